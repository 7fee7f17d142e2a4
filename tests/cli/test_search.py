"""`solversearch optimize` with spaces, strategies, objectives, budgets and earlier runs."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

import solversearch.judging.baselines as peers
from solversearch.plan import Plan
from solversearch.search.stages import instant
from tests.cli.calling import COINS, bad, good

pytestmark = pytest.mark.usefixtures("few_baselines")

COMMAND = ("optimize", "--model", f"{COINS}:factory", "--nfe", 3, "--samples", 128, "--out", "run")
BY_HAND = "search: {stages: {instant: false, fit: false, polish: false}}"


def searched(*arguments: object) -> dict[str, Any]:
    """The comparison of a run."""
    found: dict[str, Any] = json.loads(good(*COMMAND, "--json", *arguments))
    return found


def stages_of(comparison: dict[str, Any]) -> list[str]:
    return [stage["name"] for stage in comparison["stages"]]


def test_instant_stops_there_and_says_honestly_whether_it_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    printed = good(*COMMAND, "--instant")
    assert "instant" in printed and "Better at 3 evaluations: on " in printed
    assert Plan.read("run/plan.json").decisions["stages"] == ["best baseline", "instant"]
    monkeypatch.setattr(instant, "instant", lambda surrogates, nfe, *_: peers.baselines(surrogates.model, nfe, 1.0)[0].table)
    assert "is the best baseline itself" in good(*COMMAND, "--instant", "--overwrite")
    assert Plan.read("run/plan.json").decisions["baseline"] == "the verdict on the searched plan: undecided"


def test_without_the_instant_stage_the_others_remain() -> None:
    assert stages_of(searched("--no-instant", "--no-polish", "--trials", 2)) == ["best baseline", "fit", "search"]


def test_a_space_a_strategy_and_an_objective_of_choice() -> None:
    Path("my space.yaml").write_text(f"solver: [unip, dpmpp]\norder: [1, 2]\n{BY_HAND}")
    found = searched("--space", "my space.yaml", "--strategy", "random", "--objective", "endpoint + 0.01*frechet", "--trials", 5)
    assert stages_of(found) == ["best baseline", "search"] and len(found["progress"]) == 5 and found["predictor"] == []
    assert Plan.read("run/plan.json").decisions["space"] == "my space"
    assert stages_of(searched("--space", "my space.yaml", "--fit", "--polish", "--no-search", "--overwrite")) == [
        "best baseline", "fit", "polish",
    ]  # fmt: skip


def test_the_predictor_is_drawn_and_a_later_run_starts_with_it() -> None:
    assert stages_of(searched("--space", "s3", "--trials", 6)) == ["best baseline", "search"]
    written = json.loads(Path("run/evaluations.json").read_text())
    assert len(written["records"]) == 6 and Path("run/search.png").stat().st_size > 10_000
    warm = ("optimize", "--model", f"{COINS}:factory", "--samples", 128, "--space", "s3", "--trials", 3)
    found = json.loads(good(*warm, "--nfe", 4, "--guidance", 2, "--warm-start", "run", "--out", "later", "--json"))
    assert found["predictor"][-1]["evaluated"] == 3
    good(*warm, "--nfe", 5, "--warm-start", "run", "--warm-start", "later", "--out", "last")
    # A mistake does not cost the run that is replaced, and its evaluations may teach the next in its place.
    assert "cannot read the evaluations" in bad(*COMMAND, "--space", "s3", "--overwrite", "--warm-start", "nowhere")
    assert json.loads(Path("run/evaluations.json").read_text()) == written
    assert json.loads(good(*COMMAND, "--space", "s3", "--trials", 2, "--overwrite", "--warm-start", "run", "--json"))["predictor"]
    Path("run/evaluations.json").write_text("{}")
    assert bad(*warm, "--nfe", 4, "--warm-start", "run", "--out", "new").startswith("run/evaluations.json: model_digest: Field required")
    other = ("optimize", "--model", f"{COINS}:other_weights", "--nfe", 3, "--space", "s3", "--warm-start", "later", "--out", "other")
    assert "later/evaluations.json: of a model with other weights" in bad(*other)


def test_the_evaluations_are_bounded() -> None:
    found = searched("--space", "autodiffusion", "--evaluations", 4000, "--trials", 1000)
    spent = found["stages"][1]["evaluations"]
    assert 4000 - 3 * 256 < spent < 4000 + 3 * 256
    assert (
        json.loads(good(*COMMAND, "--trials", 60, "--evaluations", 4000, "--dry-run", "--json"))["network evaluations, search"]
        == "up to 4,000"
    )


def test_a_pareto_set_is_written_and_replaced() -> None:
    Path("interval.yaml").write_text(f"order: [1, 2]\nguidance_interval: {{above: [0.0, 0.6, 0.8]}}\n{BY_HAND}")
    arguments = ("--space", "interval.yaml", "--strategy", "nsga2", "--objective", "endpoint, network_calls", "--guidance", 3)
    found = searched(*arguments, "--trials", 30)
    assert [point["file"] for point in found["pareto"]] == [f"pareto/plan-{k}.json" for k in range(len(found["pareto"]))]
    assert len({point["network_calls"] for point in found["pareto"]}) == len(found["pareto"]) >= 2
    for point in found["pareto"]:
        assert "valid" in good("plan", "validate", f"run/{point['file']}")
    printed = good(*COMMAND, *arguments, "--trials", 1, "--overwrite")
    assert "pareto" in printed and len(list(Path("run/pareto").iterdir())) < len(found["pareto"]) + 1


SPACES = {
    "unknown key": ("solver: unip\nodrer: 2", "space.yaml:2: odrer: unknown key 'odrer'; did you mean 'order'"),
    "empty range": ("solver: unip\nridge: {low: 0.1, high: 0.01}", "space.yaml:2: ridge.low: an empty range: low 0.1 is above high 0.01"),
    "impossible order": ("solver: [dpmpp]\norder: [2, 4]", r"space.yaml:2: order.*: order 4 is impossible: dpmpp has orders 1 to 3"),
    "condition of nothing": ("solver: unip\ncorrector: {choose: true, when: {solver: dpmpp}}", "space.yaml:2: .*solver is never dpmpp"),
    "circle": (
        "order: {choose: [1, 2], when: {corrector: true}}\ncorrector: {choose: [true, false], when: {order: 1}}",
        "space.yaml:1: .*conditions go in a circle: order -> corrector -> order",
    ),
    "not YAML": ("solver: [unip", "space.yaml: not YAML"),
}  # fmt: skip


@pytest.mark.parametrize("command", [COMMAND[:-2], ("space", "show")])
@pytest.mark.parametrize("name", SPACES)
def test_a_wrong_space_is_told_with_file_line_and_key(name: str, command: tuple[object, ...]) -> None:
    content, message = SPACES[name]
    Path("space.yaml").write_text(content)
    assert re.search(message, bad(*command, *(["space.yaml"] if command[0] == "space" else ["--space", "space.yaml"])))
    assert [each.name for each in Path.cwd().iterdir()] == ["space.yaml"]


STRATEGY = """
from optuna.samplers import RandomSampler


class Illegal(RandomSampler):
    def __init__(self, context):
        super().__init__(context.seed)

    def sample_independent(self, study, trial, name, distribution):
        return 7.0 if name == "time.1" else super().sample_independent(study, trial, name, distribution)


class Legal(RandomSampler):
    def __init__(self, context):
        super().__init__(context.seed)


def fails(context):
    raise RuntimeError("no idea")


def other(context):
    return 3
"""


def test_a_strategy_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path.cwd())
    Path("own_strategies.py").write_text(STRATEGY)
    quick = ("--no-instant", "--no-fit", "--no-polish", "--overwrite", "--strategy")
    assert stages_of(searched(*quick, "own_strategies:Legal", "--trials", 3)) == ["best baseline", "search"]
    for name, message in {
        "own_strategies:Illegal": r"strategy 'own_strategies:Illegal' proposed time\.1 = 7\.0; allowed: 0\.\d+ to",
        "own_strategies:fails": "raised RuntimeError: no idea when called with the context",
        "own_strategies:other": "returned a int; it must return an optuna.samplers.BaseSampler",
        "own_strategies:Leagl": "unknown attribute of own_strategies 'Leagl'; did you mean 'Legal'",
    }.items():
        assert re.search(message, bad_in_a_run(*quick, name))


def bad_in_a_run(*arguments: object) -> str:
    """A mistake that shows when the search has begun; a line a stage comes before it."""
    from tests.cli.calling import call

    result = call(*COMMAND, *arguments)
    assert result.code == 2 and result.out == "" and "Traceback" not in result.err, result
    *before, last = result.err.splitlines()
    assert last.startswith("error: ") and not any(line.startswith("error: ") for line in before)
    return last


def test_a_plan_that_starts_from_pictures_is_known_for_it_everywhere() -> None:
    arguments = ("optimize", "--model", f"{COINS}:factory", "--nfe", 2, "--start", 0.5, "--samples", 64, "--fit-samples", 32)
    told = "from pictures noised to t = 0.5"
    assert "start: pictures noised to t = 0.5\n" in good(*arguments, "--dry-run")
    printed = good(*arguments, "--instant", "--undecided", "plan")
    (folder,) = Path("runs").glob("*-nfe2-g1-start0.5")
    assert f"at 2 evaluations {told}" in printed and ".sample(denoise, noise, picture)" in printed
    assert told in good("plan", "show", folder)
    found = json.loads(good("compare", "--plan", folder, "--model", f"{COINS}:factory", "--samples", 64, "--json"))
    kept = json.loads((folder / "comparison.json").read_text())
    assert found["start"] == kept["start"] == {"t": 0.5, "alpha": 0.5, "sigma": 0.5}
    assert found["ratios"][0]["value"] == pytest.approx(kept["ratios"][0]["value"], rel=0.1)  # by a finer teacher
    assert "plan.sample(denoise, noise, picture)" in Path(json.loads(good("report", folder, "--json"))["written"][0]).read_text()
    good("export", folder, "--to", "numpy", "--out", "sampler.py")
    assert "starts from noised pictures, for which stock samplers" in bad("export", folder, "--to", "sigmas", "--out", "sigmas.txt")
    regressed = bad("cpr", "fit", folder, "--model", f"{COINS}:factory", "--out", "cpr.json")
    assert "starts from noised pictures; only plans that start from noise" in regressed
