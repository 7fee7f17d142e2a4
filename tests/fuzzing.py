"""Damaged and hostile files for the readers: mutations that know JSON, YAML and bytes, and what each reader may do with them.

A reader gives a valid object or raises `UserError`. Whatever else it raises is a finding, as is a long time or a large allocation.
"""

import hashlib
import io
import json
import random
import warnings
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from solversearch.cpr import Cpr
from solversearch.cpr.polynomial import Cascade
from solversearch.cpr.regression import FittedPlan
from solversearch.judging.compare import Comparison
from solversearch.judging.objectives import parse_many
from solversearch.models import Options
from solversearch.plan import Plan, read_json
from solversearch.report.page.files import importances, picture
from solversearch.report.page.run import run_page
from solversearch.report.page.study import study_page
from solversearch.report.page.sweep import sweep_page
from solversearch.schedules import DiscreteVP
from solversearch.search.evaluating.evaluations import Entry, Log
from solversearch.search.evaluating.evaluator import Evaluated, Failure
from solversearch.search.evaluating.run_folder import Run, versions
from solversearch.search.evaluating.warm_start import read_records, write_records
from solversearch.search.settings import Settings
from solversearch.search.surrogates.predictor import WIDTH, Record
from solversearch.spaces import Domain, SearchSpace, presets
from solversearch.studies.study import Study
from solversearch.studies.sweep import SweepSpec
from solversearch.teacher import _read
from tests.assets import coins
from tests.report.conftest import whole, write_journal
from tests.report.test_page import study, sweep
from tests.test_report import PLANS

VP, COINS = DiscreteVP.named(), coins.factory()
NOISE, PROBE = torch.zeros(4, 1, 2), [3, -700]

RAW = (
    "NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1e-999", "-0", "1E308", "5e-324", "9007199254740993", "9" * 400, "9" * 5000,
    '"\\ud800"', '"\\u0000"', "[" * 200 + "]" * 200, "[" * 5000, '{"a":' * 300 + "1" + "}" * 300, "[" + "0," * 30_000 + "0]",
    '{"a": 1, "a": 2}', "truE", "'x'", "01", "+1", "1.", ".5", "0x10", "[1,]", "/**/", "\ufeff", "\x00",
)  # fmt: skip
"""Text in the place of a JSON value."""
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 0.0, -0.5, 0.5, 1e-300, 1e300, 2**31, 2**53, 2**63, -(2**63), 10**25, "", "x", "nan", "1", "true",
    "../../etc/passwd", "/dev/zero", "os:system", "python:os:system", "${HOME}", "{{ 7*7 }}", "<script>alert(1)</script>", "\u202e",
    "é" * 40, "k" * 5000, [], [[]], {}, {"": ""}, [0.0] * 50, ["x"] * 50, {"a": {"b": {"c": []}}}, {str(k): k for k in range(300)},
)  # fmt: skip
"""Values of other kinds than was expected, or of hardly believable size."""
YAML = (
    "*a", "&a [1, 2]", "&a [*a, *a]", "<<: *a", "!!python/object/apply:os.system ['true']", "!!python/name:os.system", "!!binary 'é'",
    "!!binary aGVsbG8=", "!!timestamp ''", "!!timestamp 2020-99-99", "2020-99-99", "2020-01-01", "!!int ''", "!!int x", "!!bool maybe",
    "!!float x", "!!set {a, b}", "!!omap [a: 1]", "!!null x", "!!str 1", "!own 1", "1:30", "1" + ":59" * 2000, "0x" + "f" * 4000,
    "0b1", "0o7", "1_000", "9" * 4000, "9" * 5000, "1e5", "1.e+400", ".inf", "-.inf", ".nan", "~", "null", "yes", "off", "=",
    "? [a]\n: b", "{[a]: b}",
    "{? {a: b} : c}", "|\n  text", ">-\n  text", "---", "...", "%YAML 9.9\n---", "%TAG ! x\n---", "\t", "\x00", "\ufeff", "\u2028",
    "[" * 14 + "]" * 14, "[" * 40, "{" * 40, "[" + ", ".join(map(str, range(9000))) + "]",
    "{" + ", ".join(f"k{i}: 1" for i in range(4000)) + "}", "k" * 9000,
    "os:system", "tests.assets.coins:factory", "../../x", "a: b: c", "- - - 1", "'", '"', "#",
)  # fmt: skip
"""Text in the place of a part of a YAML file."""


@dataclass(frozen=True)
class Target:
    """A reader: how its files are called, good ones to begin from, what reads them, and how a changed tree gets a right digest."""

    file: str
    seeds: tuple[bytes, ...]
    read: Callable[[Path], object]
    mutate: Callable[[random.Random, bytes], bytes]
    sign: Callable[[dict[str, Any]], str] | None = None
    others: dict[str, bytes] = field(default_factory=dict)
    """Files that have to lie beside it."""

    def input(self, rng: random.Random) -> bytes:
        content = rng.choice(self.seeds)
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            content = self.mutate(rng, content)
        if self.sign is not None and rng.random() < 0.5:
            content = signed(content, self.sign)
        return bytes_changed(rng, content) if rng.random() < 0.15 else content

    def run(self, folder: Path, content: bytes) -> None:
        """Reads the content as the file; raises what the reader raises."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, other in self.others.items():
            if not (folder / name).exists():
                (folder / name).write_bytes(other)
        (folder / self.file).write_bytes(content)
        self.read(folder / self.file)


# Mutations -----------------------------------------------------------------------------------------------------------


def bytes_changed(rng: random.Random, content: bytes) -> bytes:
    """Flips, cuts, doublings and insertions, whatever the format."""
    data = bytearray(content or b"\x00")
    at, to = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    kind = rng.randrange(6)
    if kind == 0:
        for _ in range(rng.choice((1, 1, 2, 8))):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif kind == 1:
        del data[at:]
    elif kind == 2:
        del data[at : min(to, at + 200)]
    elif kind == 3:
        data[at:at] = data[at : min(to, at + 2000)]
    elif kind == 4:
        data[at:at] = bytes(rng.randrange(256) for _ in range(rng.choice((1, 4, 16))))
    else:
        data[at : min(to, at + 8)] = rng.choice((b"\x00" * 8, b"\xff" * 8, b"\xff\xfe", b"\xed\xa0\x80", b"\n", b'"', b"{", b"\\"))
    return bytes(data)


def places(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths to all members of a tree."""
    keys = tree.keys() if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    for key in keys:
        yield (*path, key)
        yield from places(tree[key], (*path, key))


def json_changed(rng: random.Random, content: bytes) -> bytes:
    """One member of the tree is replaced, removed, renamed, doubled, nested, or moved."""
    try:
        tree = json.loads(content)
    except (ValueError, RecursionError):
        return bytes_changed(rng, content)
    paths = list(places(tree))
    if not paths:
        return rng.choice(RAW).encode(errors="surrogatepass")
    *above, key = rng.choice(paths)
    holder = tree
    for step in above:
        holder = holder[step]
    mark, raw = "@@raw@@", None
    kind = rng.randrange(9)
    if kind <= 2:
        holder[key] = deepcopy(rng.choice(VALUES))
    elif kind == 3:
        holder[key], raw = mark, rng.choice(RAW)
    elif kind == 4:
        del holder[key]
    elif kind == 5 and isinstance(holder, dict):
        holder[rng.choice((f"{key} ", str(key).upper(), "", "x" * 3000, "\u202e", "__class__", "extra", "digest"))] = holder.pop(key)
    elif kind == 6 and isinstance(holder, list):
        holder[key:key] = [deepcopy(holder[key]) for _ in range(rng.choice((1, 2, 50, 1100)))]
    elif kind == 7:
        holder[key] = rng.choice(([holder[key]], {"a": holder[key]}))
    else:
        *other, last = rng.choice(paths)
        source = tree
        for step in other:
            source = source[step]
        holder[key] = deepcopy(source[last])
    text = json.dumps(tree)
    return (text if raw is None else text.replace(f'"{mark}"', raw, 1)).encode("utf-8", "surrogatepass")


def signed(content: bytes, sign: Callable[[dict[str, Any]], str]) -> bytes:
    """With the digest that belongs to the content, as somebody would write it who means harm."""
    try:
        tree = json.loads(content)
        tree["digest"] = sign({name: value for name, value in tree.items() if name != "digest"})
        return json.dumps(tree).encode("utf-8", "surrogatepass")
    except (ValueError, TypeError, AttributeError, RecursionError):
        return content


def yaml_changed(rng: random.Random, content: bytes) -> bytes:
    """A part of a line is replaced by something that YAML has; or lines are moved."""
    text = content.decode(errors="replace")
    lines = text.split("\n")
    at = rng.randrange(len(lines))
    line, nasty = lines[at], rng.choice(YAML)
    kind = rng.randrange(6)
    if kind == 0 and ":" in line:
        lines[at] = line.partition(":")[0] + ": " + nasty
    elif kind == 1:
        words = [word for word in line.replace(",", " ").replace("[", " ").replace("]", " ").replace("{", " ").split() if word] or [""]
        lines[at] = line.replace(rng.choice(words), nasty, 1)
    elif kind == 2:
        lines.insert(at, nasty)
    elif kind == 3:
        lines.insert(at, rng.choice(lines))
    elif kind == 4:
        lines[at] = " " * rng.randrange(6) + line
    else:
        key = rng.choice(
            (
                "solver",
                "order",
                "timesteps",
                "compensation",
                "guidance_interval",
                "search",
                "corrector",
                "when",
                "strategy",
                "models",
                "nfe",
                "settings",
            )
        )
        lines.insert(
            at, f"{key}: {rng.choice((nasty, '{choose: ' + nasty + '}', '{low: ' + nasty + ', high: 1}', '{strategy: ' + nasty + '}'))}"
        )
    return "\n".join(lines).encode("utf-8", "replace")


# Readers -------------------------------------------------------------------------------------------------------------


def read_plan(path: Path) -> None:
    plan = Plan.read(path)
    assert Plan.parse(plan.text()) == plan


def read_space(path: Path) -> None:
    space = SearchSpace.read(path)
    assert space.search.strategy.isidentifier()
    space.size(1000)
    parse_many(space.search.objective)
    for guidance in (1.0, 4.0):
        domain = Domain.of(space, VP, 3, guidance)
        domain.candidate(domain.random(np.random.default_rng(0))).tableau(VP)


def read_cpr(path: Path) -> None:
    fitted = Cpr.read(path)
    fitted.predict(fitted.nfe[1], fitted.guidance[1], StandIn(fitted.model_digest))  # type: ignore[arg-type]


@dataclass(frozen=True)
class StandIn:
    """What a regression asks of a model."""

    digest: str
    name: str = "digits"
    prediction_type: str = "sample"
    schedule: DiscreteVP = VP
    facts: Mapping[str, Any] = field(default_factory=dict)


def read_comparison(path: Path) -> None:
    read_json(Comparison, path, "comparison")
    run_page(path.parent)


def read_evaluations(path: Path) -> None:
    read_records(path.parent, COINS)


def read_study(path: Path) -> None:
    read_json(Study, path, "study")
    study_page(path.parent)


def read_run(path: Path) -> None:
    Run.read(path.parent)


def read_log(path: Path) -> None:
    with warnings.catch_warnings(action="ignore"):  # a damaged line costs its evaluation
        entries = Log(path).entries
    for entry in entries.values():
        assert entry.outcome or entry.failure is not None


def read_sweep(path: Path) -> None:
    sweep_page(path.parent, path.parent)


def read_sweep_file(path: Path) -> None:
    assert len(SweepSpec.read(path).cells()) <= 10_000


def read_teacher(path: Path) -> None:
    stored = _read(path, NOISE, 3, PROBE)
    assert stored is None or stored["endpoint"].shape == NOISE.shape


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _sha(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def sign_plan(content: dict[str, Any]) -> str:
    return _sha(json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False))


def sign_cpr(content: dict[str, Any]) -> str:
    return _sha(json.dumps(content, sort_keys=True))


def _cprs() -> Iterator[bytes]:
    cascade = Cascade(coefficients=(((0.5, 0.1), (0.2, 0.0)), ((-3.0, 0.1), (0.0, 0.1))))
    cell = FittedPlan(nfe=4, guidance=1.0, plan="", residual_times=0.1, residual_parameters=0, left_out_times=0.1, left_out_parameters=0)
    shared: dict[str, Any] = {
        "model": "digits", "model_digest": "d", "prediction_type": "sample", "nfe": (3, 4), "guidance": (1.0, 4.0), "cells": (cell,),
    }  # fmt: skip
    yield Cpr(kind="coefficients", cascades={"position": cascade, "d0": cascade, "end_x": cascade}, **shared).model_dump_json().encode()
    steps = tuple({"solver": "unip", "order": 1 if i in (0, 3) else 2, "prediction": "data", "compensation": 1.0} for i in range(4))
    found = Cpr(kind="decisions", steps=steps, cascades={"position": cascade, "compensation": cascade}, **shared)
    yield found.model_dump_json().encode()


def _run() -> bytes:
    space = SearchSpace.named("s3")
    settings = Settings.of(space, nfe=5, samples=256, fit_samples=64, validation_samples=64, batch_size=64)
    made = Run(model="digits", options=Options(), model_digest="d", settings=settings, command="solversearch optimize", versions=versions())
    return made.model_dump_json().encode()


def _log() -> bytes:
    table = PLANS["split"].tableau
    result = Evaluated(table, torch.ones(3).double(), (0.5,), {"solver": "unip"})
    entries = [Entry.of("a", result, 10, 0.5), Entry.of("b", Failure("NaN")), Entry(key="c", numbers=(0.5, 1.0))]
    return b"".join(entry.model_dump_json(exclude_defaults=True).encode() + b"\n" for entry in entries)


SWEEP = b"""models: [digits, sdxl]
nfe: [4, 5]
guidance: [1, 2.5]
seeds: 0
spaces: [default, s3]
settings:
  strategy: random
  trials: 3
"""


def _written(write: Callable[[Path], object], folder: Path) -> bytes:
    folder.mkdir(parents=True, exist_ok=True)
    write(folder)
    return next(path for path in folder.iterdir() if path.is_file()).read_bytes()


def _picture() -> bytes:
    packed = io.BytesIO()
    Image.new("RGB", (20, 10), "gray").save(packed, "PNG")
    return packed.getvalue()


@cache
def targets(folder: Path) -> dict[str, Target]:
    """All readers by name; the folder is for what has to be written to be had."""
    plans = tuple(each.text().encode() for name, each in PLANS.items() if name != "many")
    plan = PLANS["split"]
    rows = tuple(Record(nfe=4, guidance=1.0, features=(0.5,) * WIDTH, loss=-1.0) for _ in range(2))
    tensors = {"angles": torch.ones(3).double(), "states": torch.ones(3, 4, 1, 2), "slopes": torch.ones(3, 4, 1, 2),
               "endpoint": torch.ones(4, 1, 2), "error": torch.tensor(0.1), "probe": torch.tensor(PROBE)}  # fmt: skip
    return {
        "plan": Target(
            "plan.json", (*plans, (Path(__file__).parent / "assets" / "plan_v1.json").read_bytes()), read_plan, json_changed, sign_plan
        ),
        "space": Target("space.yaml", tuple(path.read_bytes() for path in presets().values()), read_space, yaml_changed),
        "regression": Target("cpr.json", tuple(_cprs()), read_cpr, json_changed, sign_cpr),
        "comparison": Target(
            "comparison.json",
            (whole(plan).model_dump_json().encode(),),
            read_comparison,
            json_changed,
            others={"plan.json": plan.text().encode()},
        ),
        "study": Target("study.json", (study().model_dump_json().encode(),), read_study, json_changed),
        "evaluations": Target(
            "evaluations.json", (_written(lambda at: write_records(rows, at, COINS), folder / "e"),), read_evaluations, json_changed
        ),
        "run": Target("run.json", (_run(),), read_run, json_changed),
        "log": Target("evaluations.log", (_log(),), read_log, lines_changed),
        "sweep": Target("sweep.json", (sweep().model_dump_json().encode(),), read_sweep, json_changed),
        "sweep file": Target("sweep.yaml", (SWEEP,), read_sweep_file, yaml_changed),
        "teacher": Target(
            "teacher.safetensors",
            (_written(lambda at: save_file(tensors, at / "t.safetensors"), folder / "t"),),
            read_teacher,
            bytes_changed,
        ),
        "journal": Target(
            "journal.log", (_written(lambda at: write_journal(at / "journal.log", 6), folder / "j"),), importances, lines_changed
        ),
        "picture": Target("samples.png", (_picture(),), picture, bytes_changed),
    }


def lines_changed(rng: random.Random, content: bytes) -> bytes:
    """One record of a file of them is changed, doubled or removed."""
    lines = content.split(b"\n")
    at = rng.randrange(max(1, len(lines) - 1))
    kind = rng.randrange(4)
    if kind <= 1:
        lines[at] = json_changed(rng, lines[at])
    elif kind == 2:
        lines.insert(at, rng.choice(lines))
    else:
        del lines[at]
    return b"\n".join(lines)
