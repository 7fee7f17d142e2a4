"""The log of a search: tensors that an earlier process has computed are not computed again, unless their file is not the one written."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from solversearch.models.base import Clock
from solversearch.outputs import claim
from solversearch.search.evaluating import evaluations
from solversearch.search.evaluating.evaluations import NAME, Log, Parts


class Counted:
    """Computes the same tensors, and counts how often; each time takes 7 evaluations and half a second."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.times = clock, 0

    def __call__(self) -> dict[str, torch.Tensor]:
        self.times += 1
        self.clock.evaluations += 7
        self.clock.seconds += 0.5
        whole = torch.arange(12, dtype=torch.float32).reshape(3, 4) / 7
        return {"part": whole[:, 1], "turned": whole.T, "error": torch.tensor(0.1, dtype=torch.float64)}


def ask(log: Log, key: str = "a") -> tuple[dict[str, torch.Tensor], int, Clock]:
    clock = Clock()
    compute = Counted(clock)
    return log.tensors(key, clock, compute), compute.times, clock


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) and a[name].dtype == b[name].dtype for name in a)


def test_tensors_are_computed_once(tmp_path: Path) -> None:
    made, times, clock = ask(Log(tmp_path / NAME))
    assert times == 1 and equal(made, Counted(Clock())())
    found, times, later = ask(Log(tmp_path / NAME))
    assert times == 0 and equal(found, made) and later == clock == Clock(0.5, 7)
    assert ask(Log(tmp_path / NAME), "another")[1] == 1


@pytest.mark.parametrize("damage", ["missing", "cut", "changed", "empty"])
def test_a_damaged_file_is_computed_again(damage: str, tmp_path: Path) -> None:
    made, _, _ = ask(Log(tmp_path / NAME))
    (file,) = (tmp_path / "kept").iterdir()
    content = file.read_bytes()
    file.unlink()
    if damage != "missing":
        file.write_bytes({"cut": content[:-1], "changed": content[:-1] + bytes([content[-1] ^ 1]), "empty": b""}[damage])
    found, times, clock = ask(Log(tmp_path / NAME))
    assert times == 1 and equal(found, made) and clock.evaluations == 7
    assert ask(Log(tmp_path / NAME))[1] == 0


def test_what_is_kept_goes_with_the_run_and_nothing_else(tmp_path: Path) -> None:
    log = Log(tmp_path / NAME)
    for clear in (log.forget, lambda: claim(tmp_path)):
        ask(log)
        (tmp_path / "kept" / ".solversearch-half").touch()
        clear()
        assert not (tmp_path / "kept").exists()
    ask(log)
    (tmp_path / "kept" / "weights.safetensors").touch()
    log.forget()
    assert [each.name for each in (tmp_path / "kept").iterdir()] == ["weights.safetensors"]


def test_nothing_is_written_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    log = Log()
    assert equal(ask(log)[0], Counted(Clock())())
    log.forget()
    assert not list(tmp_path.iterdir())


def test_seconds_add_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, log = 0.0, Log()
    monkeypatch.setattr(evaluations, "time", SimpleNamespace(perf_counter=lambda: now))

    def take(seconds: float) -> tuple[()]:
        nonlocal now
        now += seconds
        return ()

    def polish(parts: Parts, count: int) -> tuple[()]:
        for _ in range(count):
            parts.numbers(lambda: take(5))
        if count < 3:
            raise KeyboardInterrupt
        return take(1)

    def process(count: int) -> float:
        nonlocal log
        log = Log(tmp_path / NAME)
        take(2)
        log.numbers("a", Clock(), lambda: take(10))
        log.numbers("polish", Clock(), lambda: polish(Parts(log, "polish", Clock()), count))
        return log.elapsed()

    with pytest.raises(KeyboardInterrupt):
        process(2)
    assert log.elapsed() == 2 + 10 + 2 * 5
    assert process(3) == pytest.approx(22 + 2 + 5 + 1)  # two seconds again, and what was left
    assert process(3) == pytest.approx(30 + 2)
