"""A plan that other programs have written again: every reader takes it, or refuses it alike; the digest is of its numbers."""

import json
import math
import random
import shutil
import subprocess
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from solversearch.errors import UserError
from solversearch.export import EXPORTERS
from solversearch.export.diffusers import PlanScheduler
from solversearch.export.shipped import reader
from solversearch.plan import Plan
from tests.assets import make_plan_v1, make_plans
from tests.export.consumers import PLANS, imported
from tests.test_plan import ASSETS, ATTACKS, GOLDEN, plan, plans

QUIET = settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))


def taken(text: bytes) -> str | None:
    """The digest by which all readers take a plan, None where all refuse it."""
    found: list[tuple[Any, ...] | None] = []
    for read in (Plan.parse, reader.parse):
        try:
            made = read(text)
        except (UserError, ValueError):
            found.append(None)
        else:
            found.append((made.digest, made.nodes, made.rows, made.prediction_type, made.guidance))
    assert found[0] == found[1]
    return None if found[0] is None else found[0][0]


# What other programs do to a file ------------------------------------------------------------------------------


def as_javascript(value: Any) -> str:
    """JSON.stringify: whole numbers below 1e21 have no point, zeros no sign; 1e-7 and 1e+22."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(name)}:{as_javascript(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(as_javascript, value)) + "]"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return json.dumps(value)
    number = float(value)
    if number.is_integer() and abs(number) < 1e21:
        digits = f"{Decimal(repr(number)):f}".partition(".")[0]
        return digits if number else "0"
    mantissa, _, exponent = repr(number).partition("e")
    return f"{mantissa}e{int(exponent):+d}" if exponent else mantissa


def by_sorted_keys(text: str) -> str:
    """As a database keeps an object."""
    return json.dumps(json.loads(text), sort_keys=True)


def by_length_of_keys(text: str) -> str:
    """PostgreSQL's jsonb: shorter keys first."""

    def ordered(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: ordered(value[name]) for name in sorted(value, key=lambda name: (len(name), name))}
        return [ordered(each) for each in value] if isinstance(value, list) else value

    return json.dumps(ordered(json.loads(text)))


REWRITES: dict[str, Callable[[str], bytes]] = {
    "JavaScript": lambda text: as_javascript(json.loads(text)).encode(),
    "sorted keys": lambda text: by_sorted_keys(text).encode(),
    "jsonb": lambda text: by_length_of_keys(text).encode(),
    "every character escaped": lambda text: json.dumps(json.loads(text), ensure_ascii=True).encode(),
    "Windows": lambda text: b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode(),
    "an old Mac": lambda text: text.replace("\n", "\r").encode(),
    "floats everywhere": lambda text: json.dumps(json.loads(text, parse_int=float)).encode(),
    "exponents": lambda text: written(json.loads(text), lambda number: f"{number:.16E}").encode(),
}


def written(value: Any, spelled: Callable[[float], str]) -> str:
    """JSON in which every number that is no boolean is spelled so."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(name)}: {written(inner, spelled)}" for name, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(written(each, spelled) for each in value) + "]"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return json.dumps(value)
    return spelled(value)


@pytest.mark.parametrize("name", REWRITES)
def test_plans_of_today_and_of_before(name: str) -> None:
    guided = plan(decisions={"guidance": 4.0, "order": [1, 2, 2], "ridge": 1e-7, "müde": [True, None, 1.5, -0.0, 2.0**60]})
    later = [make_plans.version_2(), make_plans.version_3(), make_plans.version_4(), make_plans.version_5()]
    for made in (plan(), guided, make_plan_v1.make(), Plan.read(GOLDEN), *later):
        assert taken(REWRITES[name](made.text())) == made.digest


def test_a_guided_plan_of_before() -> None:
    """Its decisions have a float that is whole, and its digest is of that spelling."""
    import hashlib

    content = json.loads(plan(decisions={"guidance": 4.0, "order": [1, 2]}).text())
    content.pop("digest")
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).replace('"guidance":4,', '"guidance":4.0,')
    old = "sha256:" + hashlib.sha256(text.encode()).hexdigest()
    content = json.loads(text) | {"digest": old}
    for rewritten in (json.dumps(content), as_javascript(content)):
        assert taken(rewritten.encode()) == old
    assert taken(as_javascript(content | {"guidance": 1.5}).encode()) is None
    assert taken(as_javascript(content | {"decisions": {"guidance": 5, "order": [1, 2]}}).encode()) is None


@QUIET
@given(plans(), st.sampled_from(sorted(REWRITES)), st.sampled_from(sorted(REWRITES)))
def test_any_spelling_of_the_same_numbers_is_the_same_plan(made: Plan, first: str, second: str) -> None:
    once = REWRITES[first](made.text())
    assert taken(once) == made.digest
    again = REWRITES[second](once.decode("utf-8-sig").replace("\r\n", "\n"))
    assert taken(again) == made.digest


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where numbers stand."""
    if isinstance(value, dict | list):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        return [place for name, inner in pairs for place in places(inner, (*path, name))]
    return [path] if isinstance(value, int | float) and not isinstance(value, bool) else []


@QUIET
@given(plans(), st.randoms(use_true_random=False), st.sampled_from(sorted(REWRITES)))
def test_any_changed_number_is_refused_by_all(made: Plan, rng: random.Random, name: str) -> None:
    content = json.loads(made.text())
    *path, last = rng.choice(places(content))
    inside = content
    for key in path:
        inside = inside[key]
    number = float(inside[last])
    changed = [math.nextafter(number, math.inf), math.nextafter(number, -math.inf), -number, 0.0, number + 1, number * 10]
    inside[last] = rng.choice([each for each in changed if math.isfinite(each) and each != number])
    assert taken(REWRITES[name](json.dumps(content))) is None


@QUIET
@given(plans(), st.randoms(use_true_random=False))
def test_damaged_plans_are_one_to_all_readers(made: Plan, rng: random.Random) -> None:
    text = bytearray(made.text().encode())
    for _ in range(rng.randint(1, 3)):
        place = rng.randrange(len(text))
        text[place : place + rng.randint(0, 2)] = rng.choice(
            (b"", b"0", b"9", b",", b"}", b'"', b"-", b"e", b" ", b"\x00", b"\xff", b"NaN")
        )
    taken(bytes(text))


@pytest.mark.parametrize("name", sorted(ATTACKS))
def test_attacks_are_refused_by_all(name: str) -> None:
    assert taken((ASSETS / "attacks" / f"{name}.json").read_bytes()) is None


def with_digest(content: dict[str, Any]) -> bytes:
    """The digest that the content would have, whatever it holds."""
    import hashlib

    content.pop("digest")
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return json.dumps(content | {"digest": "sha256:" + hashlib.sha256(text.encode()).hexdigest()}).encode()


@pytest.mark.parametrize(
    "change",
    [
        {"extra": 1}, {"version": 2}, {"version": True}, {"nfe": 2}, {"nfe": True}, {"nfe": 1.5}, {"guidance": "1"}, {"guidance": None},
        {"prediction_type": "x0"}, {"threshold": {"kind": "clamp", "limit": 0.0, "percentile": 0.5}}, {"scores": {}}, {"scores": [{}]},
        {"nodes": [{"t": 1.0, "alpha": 0.5, "sigma": 0.5, "guidance": 1.0, "more": 1}]}, {"rows": [{"x": 1.0}, {"x": [], "d": [1.0]}]},
        {"rows": [{"x": 1.0, "d": [], "delta": [], "z": []}, {"x": 1.0, "d": [1.0, 2.0], "delta": [], "z": []}]},
        {"decisions": []}, {"decisions": json.loads('{"a":' * 40 + "1" + "}" * 40)}, {"decisions": {"a": "\ud800"}},
        {"provenance": {"model": "m"}}, {"provenance": {"model": "m", "model_digest": "", "seed": -1, "versions": {}, "command": ""}},
        {"provenance": {"model": "m", "model_digest": "", "seed": 1, "versions": {"a": 1}, "command": ""}}, {"decisions": {"a": 10**400}},
    ],
    ids=str,
)  # fmt: skip
def test_what_the_format_does_not_know_is_refused_by_all_though_the_digest_is_right(change: dict[str, Any]) -> None:
    content = json.loads(plan().text())
    assert taken(with_digest(dict(content))) == plan().digest
    content |= change
    try:
        text = with_digest(content)
    except UnicodeEncodeError:
        text = json.dumps(content).encode()
    assert taken(text) is None


def test_defaults_may_be_left_out() -> None:
    made = plan()
    content = {name: value for name, value in json.loads(made.text()).items() if name not in ("threshold", "decisions", "scores")}
    content["rows"] = [{name: value for name, value in row.items() if value != []} for row in content["rows"]]
    content["nodes"] = [{name: value for name, value in node.items() if name != "guidance"} for node in content["nodes"]]
    content["provenance"] = {name: content["provenance"][name] for name in ("model", "model_digest")}
    assert taken(json.dumps(content).encode()) == made.digest


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (plan().text().encode("utf-16"), "the text is UTF-16, as some programs of Windows write it; save it as UTF-8"),
        (plan().text().encode() + b"x", "Invalid JSON: "),
        (plan().text().encode() + plan().text().encode(), "Invalid JSON: "),
        (b"\xef\xbb\xbf\xef\xbb\xbf" + plan().text().encode(), "Invalid JSON: "),
        (plan().text().encode().replace(b"digits", b"digits\xe9"), "no UTF-8"),
        (plan().text().replace('"nfe": 1', '"nfe": 1, "nfe": 1').encode(), "nfe: the key stands twice"),
        (plan().text().replace('"x": 0.0', '"x": NaN').encode(), "x: "),
    ],
    ids=["UTF-16", "trailing text", "two plans", "two marks", "Latin-1", "key twice", "NaN"],
)
def test_the_reason_of_a_refusal(content: bytes, reason: str) -> None:
    assert taken(content) is None
    with pytest.raises(UserError) as told:
        Plan.parse(content, "p.json")
    assert str(told.value).startswith("p.json: ") and reason in str(told.value)


# The digest, as the page says it ---------------------------------------------------------------------------------

JAVASCRIPT = Path(__file__).parent / "assets" / "digest.js"


@pytest.mark.skipif(shutil.which("node") is None, reason="there is no node")
def test_javascript_computes_the_digest_from_the_page_alone(tmp_path: Path) -> None:
    """Written again by node, and its digest computed there."""
    texts = [make_plan_v1.make(), plan(decisions={"guidance": 4.0, "a": [1e16, 1e-5, 123456.75, -0.0, 2.0**53, 2.0**60, "\u2028é😀"]})]
    texts += [PLANS[name]("v") for name in ("a solver", "split guidance", "fresh noise", "dynamic", "other times")]
    for number, made in enumerate(texts):
        made.write(tmp_path / f"{number}.json")
    files = [str(tmp_path / f"{number}.json") for number in range(len(texts))]
    ran = subprocess.run(["node", str(JAVASCRIPT), *files], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == [made.digest for made in texts]
    for made, file in zip(texts, files, strict=True):
        assert taken(Path(file + ".js").read_bytes()) == made.digest


@pytest.mark.skipif(shutil.which("jq") is None, reason="there is no jq")
@pytest.mark.parametrize("options", [["."], ["-S", "."], ["-c", "."], ["del(.digest) + {digest}"]])
def test_jq(options: list[str]) -> None:
    for made in (plan(decisions={"guidance": 4.0, "ridge": 1e-7}), Plan.read(GOLDEN), PLANS["split guidance"]("v")):
        ran = subprocess.run(["jq", *options], input=made.text().encode(), capture_output=True, check=True)
        assert taken(ran.stdout) == made.digest


# Where plans are read -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(set(REWRITES) - {"Windows"}))
def test_exported_readers_and_schedulers_take_it(name: str, tmp_path: Path) -> None:
    made = PLANS["split guidance"]("v")
    text = REWRITES[name](made.text()).decode()
    EXPORTERS["numpy"].write(made, tmp_path / "a_plan.py")
    assert imported(tmp_path / "a_plan.py").parse(text).digest == made.digest
    assert PlanScheduler(plan=json.loads(text)).plan == made


def test_the_package_for_k_diffusion_takes_a_plan_written_again_in_place(tmp_path: Path) -> None:
    made = PLANS["guidance"]("v")
    EXPORTERS["k-diffusion"].write(made, tmp_path / "again")
    (tmp_path / "again" / "plan.json").write_bytes(b"\xef\xbb\xbf" + as_javascript(json.loads(made.text())).replace(",", ",\r\n").encode())
    assert imported(tmp_path / "again").PLAN.digest == made.digest


def test_the_digest_of_the_table() -> None:
    one, other = plan(), plan(decisions={"order": 2})
    assert one.digest != other.digest and one.table_digest() == other.table_digest()
    assert one.table_digest() != plan(guidance=2.0, nodes=one.nodes, rows=(one.rows[0], one.rows[1].__class__(0.0, (2.0,)))).table_digest()
