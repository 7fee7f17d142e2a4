"""No stage hands the network more samples than it is allowed, and a large model gets through with two at a time."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

import solversearch.judging.baselines as peers
import solversearch.search.surrogates.instant as stage_zero
from solversearch import memory
from solversearch.search.estimate import estimate
from solversearch.search.fitting.compensation import greedy_ratios
from solversearch.search.optimize import optimize
from solversearch.search.settings import Settings
from solversearch.search.stages import baseline, polish, search
from solversearch.search.strategies import Context
from solversearch.spaces import SearchSpace
from tests.assets import coins

COINS = coins.factory()


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polish, "STEPS", 1)
    monkeypatch.setattr(baseline, "STARTS", 2)
    for name, value in (("RANDOM", 20), ("CHILDREN", 10), ("GENERATIONS", 2)):
        monkeypatch.setattr(stage_zero, name, value)
    monkeypatch.setattr(search, "Context", partial(Context, children=50))
    monkeypatch.setattr(search, "greedy_ratios", partial(greedy_ratios, iterations=1))
    for name, kept in (("SOLVERS", ("ddim", "unipc_2", "dpmpp_2m_sde")), ("GRIDS", ("logsnr", "quadratic"))):
        monkeypatch.setattr(peers, name, {key: getattr(peers, name)[key] for key in kept})


@pytest.mark.parametrize("name", ["default", "ays", "dc", "times", "s3"])
def test_no_stage_exceeds_the_batch(name: str, tmp_path: Path) -> None:
    sizes: list[int] = []

    def network(x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        sizes.append(len(x))
        return COINS.network(x, t, condition)

    counts = {"samples": 16, "fit_samples": 10, "validation_samples": 8, "trials": 4, "evaluations": 4000}
    asked = Settings.of(SearchSpace.named(name), nfe=4, guidance=2.0, batch_size=3, **counts)
    optimize(replace(COINS, name="counted", network=network), asked, tmp_path, "", lambda *_: None)
    assert set(sizes) <= {1, 2, 3} and sizes.count(3) > len(sizes) / 2


def test_the_estimate_tells_memory_and_what_suits_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    class Large(torch.nn.Module):
        def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
            for _ in range(20):
                x = torch.sin(x)
            return x

    monkeypatch.setattr(memory, "_KNOWN", {})
    model = replace(COINS, network=Large(), shape=(4, 32, 32), name="large")
    monkeypatch.setattr(memory, "free", lambda device: 40 * 20 * 4 * model.numbers)
    facts = estimate(model, Settings.of(SearchSpace.named("default"), nfe=5, guidance=7.5))
    assert facts["samples"] == "256 held out, 64 to fit, 64 to validate"
    assert facts["samples in a network batch"] == 32  # the network is given a copy of its input
    assert str(facts["memory, polish"]).endswith("samples at a time with checkpointing")
    assert facts["memory, trajectories, in files"] == "256 MiB"
    assert {"memory, free", "memory, network batch", "memory, fit"} <= set(facts) and "memory, weights" not in facts
    evaluations = {name: int(str(value).split()[-1].replace(",", "")) for name, value in facts.items() if name.startswith("network eval")}
    assert evaluations["network evaluations, teacher"] == 2 * (256 * 25 + 128 * 12 + 128 * 96) + 128 * 24
    monkeypatch.setattr(memory, "free", lambda device: 2**50)
    facts = estimate(COINS, Settings.of(SearchSpace.named("default"), nfe=5))
    assert facts["samples in a network batch"] == 512 and "without checkpointing" in str(facts["memory, polish"])
