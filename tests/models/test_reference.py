"""Statistics of real images: a folder's are kept, files of other tools are read, and what does not fit is told in one line."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from solversearch import models
from solversearch.errors import UserError
from solversearch.models import reference
from solversearch.models.base import Model
from solversearch.models.extractor import Extractor, extractor_of
from solversearch.models.features import ImageFeatures
from solversearch.models.options import Options
from tests.assets import networks


@pytest.fixture(scope="module")
def summary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return networks.save(networks.Summary(), tmp_path_factory.mktemp("weights") / "summary.pt")


@pytest.fixture(scope="module")
def extractor(summary: Path) -> Extractor:
    return replace(extractor_of(Options(features=str(summary)), "cpu"), width=7)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "real"
    made.mkdir()
    for i in range(12):
        paint(made / f"{i:02}.png", seed=i)
    return made


def paint(path: Path, seed: int, side: int = 8) -> None:
    rng = np.random.default_rng(seed)
    Image.fromarray(rng.integers(0, rng.integers(100, 256), (side, side + seed % 3, 3), dtype=np.uint8)).save(path)


def counted(extractor: Extractor, calls: list[int]) -> Extractor:
    def network(x: torch.Tensor) -> torch.Tensor:
        calls.append(len(x))
        return extractor.network(x)

    return replace(extractor, network=network)  # type: ignore[arg-type]


# Folders -------------------------------------------------------------------------------------------------------


def test_a_folder_has_the_moments_of_its_images(folder: Path, extractor: Extractor) -> None:
    found = reference.reference_at(folder, extractor)()
    features = extractor(sorted(folder.iterdir()), reference.picture).double().numpy()
    np.testing.assert_allclose(found.gaussian.mean.numpy(), features.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.gaussian.covariance.numpy(), np.cov(features.T), rtol=1e-9, atol=1e-15)
    assert found.features is not None and np.array_equal(found.features.double().numpy(), features)


def test_a_folder_is_looked_at_once_until_it_changes(folder: Path, extractor: Extractor) -> None:
    calls: list[int] = []
    watched = counted(extractor, calls)
    first = reference.reference_at(folder, watched)()
    assert sum(calls) == 12
    second = reference.reference_at(folder, watched)()
    assert sum(calls) == 12 and torch.equal(first.gaussian.covariance, second.gaussian.covariance)
    reference.reference_at(folder, replace(watched, key="another network"))()
    assert sum(calls) == 24
    paint(folder / "12.png", seed=12)
    third = reference.reference_at(folder, watched)()
    assert sum(calls) == 24 + 13 and not torch.equal(first.gaussian.mean, third.gaussian.mean)


def test_nothing_is_looked_at_before_it_is_needed(folder: Path, summary: Path) -> None:
    digits = models.load("digits", Options(features=str(summary), reference=folder))
    (folder / "05.png").write_bytes(b"no image any more")
    assert digits.reference is not None
    with pytest.raises(UserError, match=r"05.png: cannot read this image"):
        _ = digits.real


def test_only_some_features_are_kept(extractor: Extractor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "KEPT", 5)
    features = torch.arange(21.0)[:, None].expand(21, 7) * torch.randn(7, generator=torch.Generator().manual_seed(0))
    made = reference.of_features(features)
    assert made.features is not None and torch.equal(made.features, features[[0, 5, 10, 15, 20]])
    torch.testing.assert_close(made.gaussian.covariance, torch.cov(features.double().T))


# Files ---------------------------------------------------------------------------------------------------------


def test_what_is_written_is_read(extractor: Extractor, tmp_path: Path) -> None:
    features = torch.randn(30, 7, generator=torch.Generator().manual_seed(0))
    reference.write(tmp_path / "own.npz", features, extractor)
    found, made = reference.read(tmp_path / "own.npz", extractor), reference.of_features(features)
    assert torch.equal(found.gaussian.mean, made.gaussian.mean) and torch.equal(found.gaussian.covariance, made.gaussian.covariance)
    assert found.features is not None and made.features is not None and torch.equal(found.features, made.features)
    with np.load(tmp_path / "own.npz", allow_pickle=False) as file:  # as other tools read it
        assert {"mu", "sigma"} <= set(file) and file["sigma"].shape == (7, 7) and int(file["count"]) == 30
    assert [each.name for each in tmp_path.iterdir()] == ["own.npz"]


def test_files_of_other_tools_have_no_samples(extractor: Extractor, tmp_path: Path) -> None:
    np.savez(tmp_path / "theirs.npz", mu=np.arange(7.0), sigma=np.eye(7, dtype=np.float32))
    found = reference.reference_at(tmp_path / "theirs.npz", extractor)()
    assert found.features is None and found.gaussian.mean.tolist() == list(range(7)) and found.gaussian.covariance.dtype == torch.float64


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"mu": np.zeros(5), "sigma": np.eye(5)}, r"are mu \(5,\) and sigma \(5, 5\), and summary.pt has 7 features"),
        ({"mu": np.zeros(7), "sigma": np.eye(6)}, r"sigma \(6, 6\)"),
        ({"mu": np.zeros(7), "sigma": np.eye(7), "feats": np.zeros((3, 6))}, "has 7 features"),
        ({"mu": np.zeros(7)}, "holds no statistics .*'mu' and 'sigma'"),
        ({"mu": np.zeros(7), "sigma": np.triu(np.ones((7, 7)))}, "finite and symmetric"),
        ({"mu": np.full(7, np.nan), "sigma": np.eye(7)}, "finite and symmetric"),
        ({"mu": np.array(["a"] * 7), "sigma": np.eye(7)}, "holds no statistics"),
        ({"mu": np.array([None] * 7), "sigma": np.eye(7)}, "cannot read these statistics"),
        ({"mu": np.zeros(7), "sigma": np.eye(7), "extractor": "0123 clean-fid"}, "other features than summary.pt; make them with"),
    ],
)
def test_statistics_that_do_not_fit(content: dict[str, Any], told: str, extractor: Extractor, tmp_path: Path) -> None:
    path = tmp_path / "odd.npz"
    np.savez(path, **content)
    with pytest.raises(UserError, match=told) as caught:
        reference.reference_at(path, extractor)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_paths_that_hold_no_reference(extractor: Extractor, tmp_path: Path) -> None:
    cases: Sequence[tuple[str, bytes | None, str]] = [
        ("missing.npz", None, "cannot read these statistics"),
        ("damaged.npz", b"PK\x03\x04 and then nothing", "cannot read these statistics"),
        ("text.npz", b"mu, sigma", "cannot read these statistics"),
        ("image.png", b"", "a reference is a folder of images or statistics of one"),
    ]
    for name, content, told in cases:
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=f"{name}: {told}") as caught:
            reference.reference_at(tmp_path / name, extractor)
        assert "\n" not in str(caught.value)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty: holds 0 images; statistics need at least 2"):
        reference.reference_at(tmp_path / "empty", extractor)


# Models --------------------------------------------------------------------------------------------------------


def test_a_reference_goes_before_the_models_own_data(folder: Path, summary: Path) -> None:
    plain = models.load("digits", Options(features=str(summary)))
    given = models.load("digits", Options(features=str(summary), reference=folder))
    assert isinstance(plain.features, ImageFeatures) and plain.data is not None and plain.real is not None and given.real is not None
    torch.testing.assert_close(plain.real.gaussian.mean, plain.features(plain.data()).double().mean(0))
    images = plain.features.extractor(sorted(folder.iterdir()), reference.picture)
    torch.testing.assert_close(given.real.gaussian.mean, images.double().mean(0))
    blind: Model = replace(plain, data=None)
    assert blind.real is None


@pytest.mark.parametrize("mode", ["I;16", "I;16B"])
def test_grey_of_sixteen_bits_means_what_it_is_divided_by_257(mode: str, tmp_path: Path) -> None:
    values = np.linspace(0, 65535, 256).round().astype(np.uint16).reshape(16, 16)
    kind = {"I;16": "<u2", "I;16B": ">u2"}[mode]
    Image.frombytes(mode, (16, 16), values.astype(kind).tobytes()).save(tmp_path / "ramp.png")
    got = reference.picture(tmp_path / "ramp.png")
    assert got.shape == (16, 16, 3) and got.dtype == np.uint8
    assert (got == (values / 257).round()[..., None]).all() and got.reshape(-1, 3)[:, 0].tolist() == list(range(256))


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1", "LA"])
def test_other_pictures_are_as_before(mode: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).convert(mode)
    picture.save(tmp_path / "a.png")
    assert (reference.picture(tmp_path / "a.png") == np.array(picture.convert("RGB"))).all()


def test_leftovers_among_images(folder: Path) -> None:
    for place in ("._00.png", ".thumbnails/00.png", "__MACOSX/._00.png", "old.png/.hidden.jpg"):
        (folder / place).parent.mkdir(exist_ok=True)
        (folder / place).write_bytes(b"\x00\x05\x16\x07Mac OS X")
    (folder / "gone.png").symlink_to("nowhere.png")
    (folder / "old.png" / "kept.png").write_bytes((folder / "00.png").read_bytes())
    assert [str(file.relative_to(folder)) for file in reference.images_in(folder)] == [
        *(f"{i:02}.png" for i in range(12)),
        "old.png/kept.png",
    ]
