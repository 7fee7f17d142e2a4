"""Captions, and embeddings that are computed once."""

import gc
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file

from solversearch.errors import UserError
from solversearch.models import pipelines
from solversearch.models.pipelines import prompts as module
from solversearch.models.pipelines.prompts import captions, prompt_length
from solversearch.models.pipelines.source import local
from solversearch.noise import SPLITS, draw
from tests import tiny

Folder = Callable[[str], Path]
ENCODERS = (transformers.CLIPTextModel, transformers.CLIPTextModelWithProjection, transformers.T5EncoderModel)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SOLVERSEARCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def kept(cache: Path) -> list[Path]:
    return sorted(cache.glob("prompts-*.safetensors"))


def test_shipped_captions_are_many_and_varied() -> None:
    found = captions()
    assert len(found) == len(set(found)) == 384
    assert len({caption[:16] for caption in found}) > 370
    assert captions(short=False) == found[:96]
    assert max(len(caption.split()) for caption in found) < 40


def test_a_file_has_one_caption_a_line(tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_bytes("\N{ZERO WIDTH NO-BREAK SPACE}a café\r\n\r\n  two boats \na lamp\ntwo boats\n".encode())
    assert captions(file) == captions(file, short=False) == ["a café", "two boats", "a lamp"]


def test_unusable_files_are_named(tmp_path: Path) -> None:
    empty, latin, few = tmp_path / "empty.txt", tmp_path / "latin.txt", tmp_path / "few.txt"
    empty.write_text(" \n\n")
    few.write_text("a lamp\ntwo boats\na lamp\n")
    latin.write_bytes("a café".encode("latin-1"))
    for file, message in [
        (tmp_path / "none.txt", "No such file"),
        (tmp_path, "directory"),
        (empty, "no prompts"),
        (few, "need prompts of their own, so at least 3 different ones, got 2; add some, one a line"),
        (latin, "not UTF-8 text, at byte 5"),
    ]:
        with pytest.raises(UserError, match=message) as caught:
            captions(file)
        assert str(file) in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("family", "count"), [("sd", 384), ("flux", 96)])
def test_fitting_validation_and_held_out_samples_have_prompts_of_their_own(
    family: str, count: int, pipeline: Folder, cache: Path, tmp_path: Path
) -> None:
    """A third of the shipped ones each, of which T5's embeddings are too large for all; every third of a file of one's own."""

    def drawn(samples: int, **options: Any) -> list[set[int]]:
        model = pipelines.load(str(pipeline(family)), tiny.options(family, **options))
        assert model.conditions is not None and len(model.conditions) == (len(tiny.CAPTIONS) if options else count)
        conditions = [draw(model, split, samples).conditions for split in SPLITS]
        return [set(each.tolist()) for each in conditions if each is not None]

    parts = drawn(1000)
    assert sum(map(len, parts)) == len(set.union(*parts)) and all(0.9 * count / 3 < len(part) <= count / 3 for part in parts)
    own = tmp_path / "own.txt"
    own.write_text("\n".join(tiny.CAPTIONS))
    assert drawn(5, prompts=own) == [{0}, {1}, {2}]


@pytest.mark.parametrize("family", ["sd", "sdxl", "pixart", "sd3", "flux"])
def test_text_encoders_are_loaded_once(family: str, pipeline: Folder, prompts: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = tiny.options(family, prompts=prompts)
    first = pipelines.load(str(pipeline(family)), options)
    (file,) = kept(cache)
    assert {len(tensor) for tensor in load_file(file).values()} == {4}
    for kind in ENCODERS:
        monkeypatch.setattr(kind, "from_pretrained", lambda *given, **named: pytest.fail("a text encoder was loaded again"))
    monkeypatch.setattr(transformers.CLIPTokenizer, "from_pretrained", lambda *given, **named: pytest.fail("a tokenizer was loaded again"))
    second = pipelines.load(str(pipeline(family)), options)
    x, t, condition = torch.randn(3, *first.shape), torch.full((3,), 500.0), torch.arange(3)
    assert torch.equal(first.network(x, t, condition), second.network(x, t, condition))


def test_text_encoders_are_freed(pipeline: Folder, prompts: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[weakref.ref[Any]] = []
    original = transformers.CLIPTextModel.from_pretrained

    def watched(*given: Any, **named: Any) -> Any:
        model, info = original(*given, **named)
        made.append(weakref.ref(model))
        return model, info

    monkeypatch.setattr(transformers.CLIPTextModel, "from_pretrained", watched)
    model = pipelines.load(str(pipeline("sd")), tiny.options("sd", prompts=prompts))
    gc.collect()
    assert model.conditions is not None
    assert [each() for each in made] == [None]


def test_embeddings_are_made_anew_for_whatever_they_depend_on(pipeline: Folder, prompts: Path, cache: Path, tmp_path: Path) -> None:
    """Prompts, negative prompt, precision and text encoder; not the network and not the resolution."""
    other = tmp_path / "other.txt"
    other.write_text("a quiet lake\na loud lake\na lake\n")
    folder = Path(shutil.copytree(pipeline("sd"), tmp_path / "sd"))

    def count(**changed: Any) -> int:
        pipelines.load(str(folder), tiny.options("sd", **({"prompts": prompts} | changed)))
        return len(kept(cache))

    assert [count(), count(resolution=32), count(prompts=other), count(negative_prompt="dull"), count(dtype="bfloat16")] == [1, 1, 2, 3, 4]
    tiny.build("sd_v", tmp_path / "sd_v")
    shutil.copytree(tmp_path / "sd_v" / "unet", folder / "unet", dirs_exist_ok=True)
    assert count() == 4
    shutil.copytree(tmp_path / "sd_v" / "text_encoder", folder / "text_encoder", dirs_exist_ok=True)
    assert count() == 5


def test_damaged_and_unwritable_caches_cost_time_only(
    pipeline: Folder, prompts: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = pipelines.load(str(pipeline("sd")), tiny.options("sd", prompts=prompts))
    kept(cache)[0].write_bytes(b"damaged")
    second = pipelines.load(str(pipeline("sd")), tiny.options("sd", prompts=prompts))
    assert torch.equal(first.network.prompt, second.network.prompt)  # type: ignore[attr-defined]
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("SOLVERSEARCH_CACHE", str(blocked / "below"))
    with pytest.warns(UserWarning, match="could not be cached"):
        third = pipelines.load(str(pipeline("sd")), tiny.options("sd", prompts=prompts))
    assert torch.equal(first.network.prompt, third.network.prompt)  # type: ignore[attr-defined]


def test_many_prompts_are_encoded_in_batches(pipeline: Folder, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "many.txt"
    file.write_text("\n".join(captions()[:11]))
    batched = pipelines.load(str(pipeline("sd3")), tiny.options("sd3", prompts=file)).network
    monkeypatch.setattr(module, "BATCH", 100)
    shutil.rmtree(cache)
    whole = pipelines.load(str(pipeline("sd3")), tiny.options("sd3", prompts=file)).network
    for name in ("prompt", "pooled"):
        torch.testing.assert_close(getattr(batched, name), getattr(whole, name), rtol=1e-5, atol=1e-5)
        assert len(getattr(batched, name)) == 12


def test_prompts_are_as_long_as_the_pipeline_makes_them(pipeline: Folder, tmp_path: Path) -> None:
    """T5 reads 512 tokens for FLUX.1 dev and half of that for schnell, unless its tokenizer stops before; CLIP always reads its own."""
    flux, config = pipelines.FAMILIES["FluxPipeline"], {"guidance_embeds": True}
    assert flux.prompt_length(config, 512) == 512
    assert flux.prompt_length({"guidance_embeds": False}, 512) == 256
    assert prompt_length(local(str(pipeline("flux")), False), flux) == tiny.TOKENS
    assert prompt_length(local(str(pipeline("sd")), False), pipelines.FAMILIES["StableDiffusionPipeline"]) is None
