"""Image features: as clean-fid's own where they are Inception's, any TorchScript network's, and every mistake in one line."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from solversearch import models
from solversearch.cache import cache_folder
from solversearch.errors import UserError
from solversearch.models import extractor as module
from solversearch.models.base import Model
from solversearch.models.extractor import INCEPTION, extractor_of
from solversearch.models.features import ImageFeatures, with_features
from solversearch.models.options import Options
from solversearch.models.reference import images_in, picture
from tests.assets import networks


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return networks.save(networks.Inception(), tmp_path_factory.mktemp("weights") / INCEPTION)


@pytest.fixture(scope="module")
def summary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return networks.save(networks.Summary(), tmp_path_factory.mktemp("weights") / "summary.pt")


@pytest.fixture(scope="module")
def digits() -> Model:
    return models.load("digits")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine images of several sizes, kinds and formats, one in a folder within, and a file that is none."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "within").mkdir()
    rng = np.random.default_rng(0)
    for i, name in enumerate(("a.png", "b.png", "c.png", "d.jpg", "e.webp", "f.JPG", "grey.png", "alpha.png", "within/z.png")):
        mode = {"grey.png": "L", "alpha.png": "RGBA"}.get(name, "RGB")
        size = (20, 12) if i < 3 else (16 + i, 24)
        Image.fromarray(rng.integers(0, 256, (*size, 4), dtype=np.uint8), "RGBA").convert(mode).save(folder / name)
    (folder / "notes.txt").write_text("no image")
    return folder


def samples(n: int = 40) -> Tensor:
    return torch.from_numpy(np.random.default_rng(1).uniform(-1.2, 1.2, (n, 1, 8, 8))).float()


# Inception -----------------------------------------------------------------------------------------------------


def test_inception_is_clean_fids_own(weights: Path, photos: Path) -> None:
    """The features of a folder, made by clean-fid from the same files."""
    from cleanfid.fid import get_folder_features
    from cleanfid.inception_torchscript import InceptionV3W

    network = InceptionV3W(str(weights.parent), download=False)
    theirs = get_folder_features(str(photos), network, num_workers=0, device=torch.device("cpu"), mode="clean", verbose=False)
    files = images_in(photos)
    ours = extractor_of(Options(features="inception", inception_weights=weights), "cpu")(files, picture)
    assert ours.shape == (9, 2048) and ours.dtype == torch.float32
    order = sorted(range(9), key=lambda i: str(files[i]))
    np.testing.assert_allclose(ours.numpy()[order], theirs, rtol=1e-6, atol=1e-6)


def test_samples_and_their_pictures_on_disk_have_the_same_features(weights: Path, digits: Model, tmp_path: Path) -> None:
    drawn = samples(5)
    model = with_features(digits, Options(features="inception", inception_weights=weights.parent))
    assert model.features is not None and model.looks == "Inception" and model.digest == digits.digest
    for i, grey in enumerate(digits.images(drawn) if digits.images else ()):
        Image.fromarray((grey * 255).round().byte().numpy()).save(tmp_path / f"{i}.png")
    assert isinstance(model.features, ImageFeatures)
    assert torch.equal(model.features(drawn), model.features.extractor(images_in(tmp_path), picture))


def test_weights_are_looked_for_in_the_cache(weights: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SOLVERSEARCH_CACHE", str(tmp_path))
    (tmp_path / INCEPTION).write_bytes(weights.read_bytes())
    assert extractor_of(Options(features="inception")).width == 2048


def test_missing_weights_are_never_downloaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "CLEANFID", tmp_path)
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: pytest.fail("goes to the network"))
    with pytest.raises(UserError, match=r"are missing; download inception-2015-12-05.pt \(91 MB\) from https://.*or point to it") as told:
        extractor_of(Options(features="inception"))
    assert str(cache_folder() / INCEPTION) in str(told.value) and "\n" not in str(told.value)
    with pytest.raises(UserError, match=f"{tmp_path / INCEPTION}: Inception's weights are missing"):
        extractor_of(Options(features="inception", inception_weights=tmp_path))


# Any network ---------------------------------------------------------------------------------------------------


def test_a_network_sees_colour_pictures_from_0_to_1_at_their_own_size(summary: Path, digits: Model, photos: Path) -> None:
    drawn = samples()
    model = with_features(digits, Options(features=str(summary)))
    assert model.features is not None and model.looks == "summary.pt"
    seen = model.features(drawn)
    levels = (((drawn[:, 0] + 1) / 2).clamp(0, 1) * 255).round() / 255
    expected = torch.stack([*[levels.mean((1, 2))] * 3, *[levels.amax((1, 2))] * 3, torch.full((40,), 8.0)], 1)
    torch.testing.assert_close(seen, expected)
    files = images_in(photos)
    assert extractor_of(Options(features=str(summary)))(files, picture)[:, -1].tolist() == [picture(file).shape[0] for file in files]


def test_colour_pictures_and_batches(summary: Path, digits: Model) -> None:
    """Channels stay apart, and a sample has the same features in whatever company."""
    colour = replace(digits, images=lambda x: torch.cat([x[:, 0, :, :, None] * scale for scale in (0.2, 0.4, 0.8)], -1).abs())
    features = with_features(colour, Options(features=str(summary))).features
    assert features is not None
    drawn = samples(70)
    together = features(drawn)
    assert torch.equal(together, torch.cat([features(drawn[i : i + 9]) for i in range(0, 70, 9)]))
    means = together[:, :3]
    torch.testing.assert_close(means[:, 2] / means[:, 0], torch.full((70,), 4.0), rtol=0.02, atol=0)


def test_samples_that_are_not_finite_have_no_features(summary: Path, digits: Model) -> None:
    features = with_features(digits, Options(features=str(summary))).features
    assert features is not None
    broken = samples()
    broken[3, 0, 2, 2], broken[35, 0, 0, 0] = torch.nan, torch.nan
    lost = features(broken).isnan().all(1)
    assert lost.nonzero().flatten().tolist() == [3, 35] and features(broken)[~lost].isfinite().all()


def test_without_options_nothing_changes(digits: Model) -> None:
    assert with_features(digits, Options()) is digits


# Mistakes ------------------------------------------------------------------------------------------------------


def refused(model: Model, options: Options) -> str:
    with pytest.raises(UserError) as told:
        with_features(model, options)
    assert "\n" not in str(told.value) and len(str(told.value)) < 500
    return str(told.value)


def test_files_that_are_no_network(digits: Model, weights: Path, tmp_path: Path) -> None:
    assert "no such file; write inception, or the path of" in refused(digits, Options(features="incepton"))
    damaged = tmp_path / INCEPTION
    damaged.write_bytes(weights.read_bytes()[:2000])
    for options in (Options(features=str(damaged)), Options(features="inception", inception_weights=damaged)):
        assert f"{damaged}: damaged, or not the TorchScript network" in refused(digits, options)
    networks.save(networks.Flat(), damaged)  # TorchScript, but not Inception
    assert f"{damaged}: damaged, or not" in refused(digits, Options(features="inception", inception_weights=tmp_path))
    other = tmp_path / "weights.pt"
    other.write_bytes(weights.read_bytes())
    assert "rename the file to inception-2015-12-05.pt" in refused(digits, Options(features="inception", inception_weights=other))


def test_networks_that_do_not_give_features_are_found_at_once(digits: Model, tmp_path: Path) -> None:
    flat = networks.save(networks.Flat(), tmp_path / "flat.pt")
    unfinished = networks.save(networks.Unfinished(), tmp_path / "unfinished.pt")
    assert "flat.pt must return features (B, F), got the shape (16, 4)" in refused(digits, Options(features=str(flat)))
    assert "unfinished.pt must return features (B, F), got the shape (1, 3, 8, 8)" in refused(digits, Options(features=str(unfinished)))
    failing = replace(digits, images=lambda x: x[:, 0, :3, :3].abs())
    assert "flat.pt fails on pictures (1, 3, 3, 3)" in refused(failing, Options(features=str(flat)))


def test_options_that_do_not_go_together(digits: Model, summary: Path, photos: Path) -> None:
    assert "--reference needs --features" in refused(digits, Options(reference=photos))
    assert "--inception-weights needs --features inception" in refused(digits, Options(inception_weights=summary))
    assert "--inception-weights goes with" in refused(digits, Options(features=str(summary), inception_weights=summary))
    blind = replace(digits, images=None)
    assert "model 'digits' makes none: add `images` to its factory" in refused(blind, Options(features=str(summary)))
