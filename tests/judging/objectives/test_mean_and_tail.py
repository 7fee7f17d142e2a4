"""The objectives that look at rare samples."""

from dataclasses import replace

import pytest
import torch

from solversearch.judging.objectives import OBJECTIVES, parse
from tests.judging.objectives.conftest import Ran


def test_the_mean_and_the_worst_tenth_of_known_errors(ran: Ran) -> None:
    outcome = ran("ddim", 4)
    endpoint = outcome.teacher.endpoint
    off = torch.arange(128.0).view(-1, 1, 1, 1).sqrt()  # whose squares are 0 .. 127
    known = replace(outcome, samples=(endpoint.double() + off.double()))
    assert OBJECTIVES["mean"].value(known) == pytest.approx(63.5, rel=1e-6)
    assert OBJECTIVES["tail"].value(known) == pytest.approx(sum(range(115, 128)) / 13, rel=1e-6)  # 12.8 samples, rounded up


def test_rare_samples_are_heard_by_who_asks_for_them() -> None:
    bounds = [OBJECTIVES[name].bound for name in ("endpoint", "mean", "tail")]
    assert bounds == sorted(set(bounds))
    assert parse("endpoint + 0.1*mean").bound == OBJECTIVES["mean"].bound and OBJECTIVES["frechet"].bound == OBJECTIVES["endpoint"].bound
