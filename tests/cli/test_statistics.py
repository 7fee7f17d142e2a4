"""Statistics of real images and of a teacher's own, and a search and a comparison by them."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.assets import networks
from tests.cli.calling import QUICK, bad, call, good


@pytest.fixture
def network(tmp_path: Path) -> Path:
    return networks.save(networks.Summary(), tmp_path / "network.pt")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Digits on disk."""
    from solversearch.models.digits import real_digits, to_images

    made = tmp_path / "real"
    made.mkdir()
    for i, image in enumerate(to_images(real_digits()[0][:60])):
        Image.fromarray((image * 255).round().byte().numpy()).save(made / f"{i}.png")
    return made


@pytest.mark.usefixtures("few_baselines")
def test_a_search_for_fid(network: Path, folder: Path) -> None:
    told = good("statistics", folder, "--features", network, "--out", "real.npz")
    assert told == "wrote real.npz: 60 images, 7 features of network.pt\n"
    looks = ("--features", network, "--reference", "real.npz")
    out = good("optimize", "--model", "digits", "--nfe", 2, *QUICK, "--objective", "fid", *looks, "--out", "run", "--undecided", "plan")
    assert "Frechet distances are of network.pt features" in " ".join(out.split())
    comparison = json.loads(Path("run/comparison.json").read_text())
    assert comparison["features"] == "network.pt" and comparison["exported"] == "plan"
    assert comparison["objective"] == comparison["ratios"][-1]["measure"] == "fid"
    assert all(row["frechet_teacher"] and row["frechet_data"] for row in comparison["rows"])
    again = json.loads(good("compare", "--plan", "run/plan.json", "--model", "digits", "--samples", 128, *looks, "--json"))
    assert again["rows"][0]["frechet_data"] == comparison["rows"][0]["frechet_data"]
    own = json.loads(good("compare", "--plan", "run/plan.json", "--model", "digits", "--samples", 128, "--json"))
    assert own["features"] == "" and own["rows"][0]["frechet_data"] != again["rows"][0]["frechet_data"]


def test_a_teachers_own_images(network: Path) -> None:
    told = good("statistics", "--model", "digits", "--features", network, "--samples", 40, "--guidance", 2, "--out", "teacher.npz")
    assert told.startswith("wrote teacher.npz: 40 images")
    with np.load("teacher.npz", allow_pickle=False) as file:
        assert file["mu"].shape == (7,) and file["mu"][-1] == 8 and 0 < file["mu"][0] < 1 and file["feats"].shape == (40, 7)
    told = good("statistics", "--model", "digits", "--features", network, "--samples", 40, "--out", "again.npz", "--json")
    assert json.loads(told) == {"written": ["again.npz"], "images": 40, "width": 7, "features": "network.pt"}


def test_mistakes(network: Path, folder: Path) -> None:
    assert "one of the two" in bad("statistics", "--features", network)
    assert "one of the two" in bad("statistics", folder, "--model", "digits", "--features", network)
    assert "say what the distances look at" in bad("statistics", folder)
    assert "statistics are an .npz file" in bad("statistics", folder, "--features", network, "--out", "x.json")
    assert "name the folder without it" in bad("statistics", folder, "--features", network, "--reference", folder)
    Path("empty").mkdir()
    assert "empty: holds 0 images" in bad("statistics", "empty", "--features", network)
    (folder / "7.png").write_bytes(b"torn")
    result = call("statistics", folder, "--features", network)
    assert result.code == 2 and "7.png: cannot read this image" in result.err
    assert not Path("statistics.npz").exists()
