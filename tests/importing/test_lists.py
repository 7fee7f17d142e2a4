"""Lists as people paste them, timesteps, published tables, and own exports."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from solversearch.errors import UserError
from solversearch.export import get as export
from solversearch.importing import as_plan, plan_of_list, plan_of_numbers, plan_of_table, read_numbers, scheduler_by_name, tables
from tests.importing.owners import FLOW, LIST, NOISE, close, gaussian, own_run, replayed, sampled

pytest.importorskip("diffusers")
pytestmark = pytest.mark.filterwarnings("ignore")

TEXTS = {
    "brackets": "[14.6, 6.5, 2.7, 0.7, 0]",
    "parentheses": "(14.6, 6.5, 2.7, 0.7, 0)",
    "semicolons": "14.6; 6.5; 2.7; 0.7; 0",
    "a line each": "14.6\r\n6.5\r\n2.7\r\n0.7\r\n0\r\n",
    "old line ends": "14.6\r6.5\r2.7\r0.7\r0",
    "a printed tensor": "tensor([14.6000,  6.5000,  2.7000,  0.7000,  0.0000])",
    "a tensor on a GPU": "tensor([[14.6, 6.5, 2.7],\n        [0.7, 0.0, ]], device='cuda:0', dtype=torch.float64, grad_fn=<MulBackward0>)",
    "printed NumPy": "[14.6  6.5  2.7  0.7  0. ]",
    "an array": "array([14.6,  6.5,  2.7,  0.7,  0. ], dtype=float32)",
    "NumPy's scalars": "[np.float64(14.6), np.float64(6.5), np.float64(2.7), np.float64(0.7), np.float64(0.0)]",
    "an assignment": "sigmas = [14.6, 6.5, 2.7, 0.7, 0]",
    "JSON": '{"steps": 4, "sigmas": [14.6, 6.5, 2.7, 0.7, 0]}',
    "JSON of text": '["14.6", "6.5", "2.7", "0.7", "0"]',
    "a Python dictionary": "{'sigmas': [14.6, 6.5, 2.7, 0.7, 0.0]}",
    "a node of ComfyUI's API": '{"class_type": "ManualSigmas", "inputs": {"sigmas": "14.6, 6.5, 2.7, 0.7, 0"}}',
    "a node of ComfyUI's workflow": '{"type": "ManualSigmas", "widgets_values": ["14.6, 6.5, 2.7, 0.7, 0"]}',
    "stable-diffusion.cpp": '--sigmas "14.6,6.5,2.7,0.7,0"',
    "comments": "# mine\n14.6, 6.5, 2.7, 0.7, 0\n# dpmpp_2m",
    "exponents": "1.46e+01 6.5e0 2.7 7e-1 0e0",
}


@pytest.mark.parametrize("name", TEXTS)
def test_lists_are_read_as_they_are_pasted(name: str) -> None:
    assert read_numbers(TEXTS[name], "sigmas").numbers == LIST


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_files_of_any_encoding(tmp_path: Path, encoding: str, end: str) -> None:
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    (tmp_path / "list.txt").write_bytes((mark + end.join(map(str, LIST))).encode(encoding))
    for name in (str(tmp_path / "list.txt"), f"@{tmp_path / 'list.txt'}"):
        assert read_numbers(name, "sigmas").numbers == LIST


def test_a_list_in_its_frame_is_euler() -> None:
    """x + (s' - s) (x - D) / s in the frame that was said, for each frame."""
    frames: dict[str, tuple[list[float], Callable[[float], float]]] = {
        "flow": (FLOW, lambda s: 1 - s),
        "edm": ([80.0, 10.0, 2.0, 0.5, 0.0], lambda s: 1.0),
    }
    for kind, (levels, alpha) in frames.items():
        x = levels[0] * NOISE
        for s, t in pairwise(levels):
            x = x + (t - s) * (x - gaussian(x, alpha(s), s)) / s
        plan = plan_of_list(levels, "euler", prediction_type=kind)
        assert plan.prediction_type == kind and close(sampled(plan), x)


def test_the_network_is_told_what_its_frame_says() -> None:
    assert [node.t for node in plan_of_list(FLOW, "euler", prediction_type="flow").nodes] == pytest.approx([1000, 900, 600, 250, 100])
    assert [
        node.t for node in plan_of_list([700.0, 1.0, 0.0], "euler", timestep_type="continuous", prediction_type="v_prediction").nodes
    ] == (pytest.approx([np.log(700) / 4, 0.0], abs=1e-12))


def test_a_list_that_may_be_of_two_frames_is_a_question() -> None:
    for levels in ([1.0, 0.5, 0.0], [0.9, 0.3, 0.0]):
        with pytest.raises(UserError, match=r"may be a flow's .* say --set prediction_type=flow"):
            plan_of_list(levels, "euler")
    assert plan_of_list([0.9, 0.3, 0.0], "euler", beta_schedule="scaled_linear").prediction_type == "epsilon"


def test_published_lists_end_above_zero() -> None:
    levels = tables()["ays_sd15"].lists[0]
    with pytest.warns(UserWarning, match=r"end at 0\.0291672, not 0; that level stands for the end"):
        assert plan_of_numbers(f"[{', '.join(map(str, levels))}]", "sigmas", "euler").rows == plan_of_table("ays_sd15", "euler").rows
    with pytest.warns(UserWarning, match="is evaluated: its clean prediction is the result"):
        assert plan_of_list(LIST[:-1], "euler").rows == plan_of_list(LIST, "euler").rows
    with pytest.warns(UserWarning, match="is evaluated"):
        assert plan_of_list(levels, "euler", nfe=11).rows == plan_of_list([*levels, 0.0], "euler").rows


# Timesteps and tables ------------------------------------------------------------------------------------------------


def test_timesteps_are_those_of_the_network() -> None:
    times = [999, 850, 736, 645, 545, 455, 343, 233, 124, 24]
    plan = plan_of_numbers(str(times), "timesteps", "DPMSolverMultistepScheduler")
    assert [node.t for node in plan.nodes] == times
    assert close(replayed(plan), own_run(scheduler_by_name("DPMSolverMultistep"), None, timesteps=times), 2e-4)
    ended = [plan_of_list([*times, 0], "euler", what="timesteps", nfe=nfe) for nfe in (None, 11, 10)]
    assert [each.nfe for each in ended] == [11, 11, 10]


def test_timesteps_of_a_flow_end_at_0() -> None:
    plan = plan_of_list([1000, 600, 250, 0], "euler", what="timesteps", prediction_type="flow")
    assert [(node.t, node.alpha, node.sigma) for node in plan.nodes] == [(1000, 0, 1), (600, 0.4, 0.6), (250, 0.75, 0.25)]
    with pytest.raises(UserError, match="is named by its noise levels; use --sigmas"):
        plan_of_list([3, 2, 1], "euler", what="timesteps", prediction_type="edm")


@pytest.mark.parametrize(
    ("name", "steps", "levels"),
    [
        ("ays_svd", 10, [700.0, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034]),
        ("ays_svd", 5, [700.0, 15.886, 4.248, 0.981, 0.173]),
        ("ays_svd", 20, [700.0, (700 * 54.5) ** 0.5, 54.5, (54.5 * 15.886) ** 0.5, 15.886]),
        ("optimal_steps_flux", 10, [0.9968, 0.9886, 0.9819, 0.975, 0.966, 0.9471, 0.9158, 0.8287, 0.5512, 0.2808]),
        ("optimal_steps_wan", 10, [1.0, 0.995, 0.991, 0.987, 0.98, 0.973, 0.96, 0.927, 0.864, 0.539]),
        ("optimal_steps_chroma", 4, [0.992, 0.943, 0.69, 0.232]),
        ("gits", 4, [14.61464119, 2.36326075, 0.92192322, 0.36617002]),
        ("gits_1.20", 7, [14.61464119, 5.85520077, 2.45070267, 1.24153244, 0.64427125, 0.29807833, 0.09824532]),
        ("gits_1.20", 40, [14.61464119, (14.61464119 * 7.49001646) ** 0.5, 7.49001646]),
    ],
)
def test_published_tables(name: str, steps: int, levels: list[float]) -> None:
    """As published, and log-linear between where the number of steps is another."""
    plan = plan_of_table(name, "euler", nfe=steps)
    found = [node.sigma if name.startswith("optimal") else node.sigma / node.alpha for node in plan.nodes]
    assert plan.nfe == steps and found[: len(levels)] == pytest.approx(levels, rel=1e-6)
    kind = {"ays_svd": "v_prediction"}.get(name, "flow" if name.startswith("optimal") else "epsilon")
    assert plan.prediction_type == kind


def test_tables_fall_and_are_named_by_what_they_are_for() -> None:
    for name, each in tables().items():
        assert all(np.all(np.diff(levels) < 0) for levels in each.lists), name
        assert plan_of_table(name, "euler").nfe == each.steps and "arXiv" in each.description
    assert plan_of_table("gits_1.20", "heun", nfe=7).nfe == 7


# Own output as input ---------------------------------------------------------------------------------------------------


def test_own_exports_come_back(tmp_path: Path) -> None:
    plan = plan_of_list(LIST, "euler")
    for name in ("sigmas", "diffusers-sigmas"):
        export(name).write(plan, tmp_path / f"{name}.json")
        assert close(sampled(plan_of_numbers(str(tmp_path / f"{name}.json"), "sigmas", "euler")), sampled(plan), 1e-6), name
    whole = as_plan(str(tmp_path / "diffusers-sigmas.json"), None)
    assert whole.decisions["solver"] == "EulerDiscrete" and close(sampled(whole), sampled(plan), 3e-3)  # it starts from sqrt(1 + 14.6^2)
    export("diffusers-sigmas").write(plan_of_list(FLOW, "euler", prediction_type="flow"), tmp_path / "flow.json")
    with pytest.warns(UserWarning, match="is evaluated"):  # diffusers adds the 0 of flows itself
        flow = plan_of_numbers(str(tmp_path / "flow.json"), "sigmas", "euler")
    assert close(sampled(flow), sampled(plan_of_list(FLOW, "euler", prediction_type="flow")))


def test_exported_timesteps_come_back(tmp_path: Path) -> None:
    plan = as_plan("DPMSolverMultistep", 5, prediction_type="v_prediction", beta_schedule="linear", beta_start=0.0001, beta_end=0.02)
    export("diffusers-timesteps").write(plan, tmp_path / "times.json")
    assert close(sampled(as_plan(str(tmp_path / "times.json"), 5)), sampled(plan), 1e-6)
    listed = plan_of_numbers(str(tmp_path / "times.json"), "timesteps", "DPMSolverMultistep")
    assert listed.prediction_type == "v_prediction" and close(sampled(listed), sampled(plan), 1e-5)
    with pytest.raises(UserError, match="there are no sigmas in it"):
        plan_of_numbers(str(tmp_path / "times.json"), "sigmas", "euler")
