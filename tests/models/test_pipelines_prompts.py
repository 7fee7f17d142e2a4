"""Captions, and embeddings that are computed once."""

import gc
import json
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
import transformers
from torch import Tensor

from solversearch.errors import UserError
from solversearch.models import pipelines
from solversearch.models.base import Model
from solversearch.models.pipelines import prompts as module
from solversearch.models.pipelines.prompts import captions
from solversearch.noise import SPLITS, draw
from tests import tiny

Folder = Callable[[str], Path]
ENCODERS = (transformers.CLIPTextModel, transformers.CLIPTextModelWithProjection, transformers.T5EncoderModel)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SOLVERSEARCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def seen(model: Model, count: int) -> dict[str, Tensor]:
    """The tensors that the network of diffusers is given for the first conditions, a row each."""
    calls: list[dict[str, Tensor]] = []
    outer: Any = model.network
    (core,) = getattr(outer, "network", outer).core.values()

    def hook(module: Any, positional: Any, named: dict[str, Any]) -> None:
        calls.append({name: value for name, value in named.items() if isinstance(value, Tensor)})

    handle = core.register_forward_pre_hook(hook, with_kwargs=True)
    model.network(torch.zeros(count, *model.shape, dtype=model.dtype), torch.full((count,), 500.0), torch.arange(count))
    handle.remove()
    return {name: torch.cat([call[name] for call in calls]) for name in calls[0]}


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
    empty, latin = tmp_path / "empty.txt", tmp_path / "latin.txt"
    empty.write_text(" \n\n")
    latin.write_bytes("a café".encode("latin-1"))
    for file, message in [
        (tmp_path / "none.txt", "No such file"),
        (tmp_path, "directory"),
        (empty, "no prompts"),
        (latin, "not UTF-8 text, at byte 5"),
    ]:
        with pytest.raises(UserError, match=message) as caught:
            captions(file)
        assert str(file) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_fewer_prompts_than_splits_are_shared(pipeline: Folder, cache: Path, tmp_path: Path) -> None:
    few = tmp_path / "few.txt"
    few.write_text("a lamp\ntwo boats\na lamp\n")
    with pytest.warns(UserWarning, match="held-out samples share the 2 different prompts there; with 3 or more each has") as caught:
        model = pipelines.load(str(pipeline("sd")), tiny.options("sd", prompts=few))
    assert len(caught) == 1 and str(few) in str(caught[0].message)
    assert not model.disjoint
    for split in SPLITS:
        conditions = draw(model, split, 20).conditions
        assert conditions is not None and set(conditions.tolist()) == {0, 1}


@pytest.mark.parametrize(("family", "limit", "count"), [("sd", module.SHORT, 384), ("flux", 2**8, 96)])
def test_fitting_validation_and_held_out_samples_have_prompts_of_their_own(
    family: str, limit: int, count: int, pipeline: Folder, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A third of the shipped ones each, of which large embeddings (T5's) are not made for all; every third of a file of one's own."""
    monkeypatch.setattr(module, "SHORT", limit)

    def drawn(samples: int, **options: Any) -> list[set[int]]:
        model = pipelines.load(str(pipeline(family)), tiny.options(family, **options))
        assert model.disjoint and model.conditions is not None and len(model.conditions) == (len(tiny.CAPTIONS) if options else count)
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
    assert len(kept(cache)) == 1
    for kind in ENCODERS:
        monkeypatch.setattr(kind, "from_pretrained", lambda *given, **named: pytest.fail("a text encoder was loaded again"))
    second = pipelines.load(str(pipeline(family)), options)
    x, t, condition = torch.randn(4, *first.shape), torch.full((4,), 500.0), torch.arange(4)
    assert torch.equal(first.network(x, t, condition), second.network(x, t, condition))
    assert len(kept(cache)) == 1


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
    """Prompts, negative prompt, size, precision and text encoder; not the network."""
    other = tmp_path / "other.txt"
    other.write_text("a quiet lake\na loud lake\na lake\n")
    folder = Path(shutil.copytree(pipeline("sd"), tmp_path / "sd"))

    def count(**changed: Any) -> int:
        pipelines.load(str(folder), tiny.options("sd", **({"prompts": prompts} | changed)))
        return len(kept(cache))

    assert [count(), count(), count(prompts=other), count(negative_prompt="dull"), count(dtype="bfloat16")] == [1, 1, 2, 3, 4]
    assert count(resolution=32) == 5  # pipelines may encode a prompt by the size
    tiny.build("sd_v", tmp_path / "sd_v")
    shutil.copytree(tmp_path / "sd_v" / "unet", folder / "unet", dirs_exist_ok=True)
    assert count() == 5
    shutil.copytree(tmp_path / "sd_v" / "text_encoder", folder / "text_encoder", dirs_exist_ok=True)
    assert count() == 6


def test_damaged_and_unwritable_caches_cost_time_only(
    pipeline: Folder, prompts: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def embedded() -> Tensor:
        return seen(pipelines.load(str(pipeline("sd")), tiny.options("sd", prompts=prompts)), 4)["encoder_hidden_states"]

    first = embedded()
    assert len({tuple(row.flatten().tolist()) for row in first}) == 4
    whole = kept(cache)[0].read_bytes()
    for damaged in (b"damaged", whole[:-100], b""):
        kept(cache)[0].write_bytes(damaged)
        assert torch.equal(embedded(), first)
        assert kept(cache)[0].read_bytes() == whole
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("SOLVERSEARCH_CACHE", str(blocked / "below"))
    with pytest.warns(UserWarning, match="could not be cached"):
        assert torch.equal(embedded(), first)


def test_many_prompts_are_encoded_as_the_pipeline_does_together(pipeline: Folder, cache: Path, tmp_path: Path) -> None:
    texts = captions()[:11]
    file = tmp_path / "many.txt"
    file.write_text("\n".join(texts))
    pipe = diffusers.StableDiffusion3Pipeline.from_pretrained(pipeline("sd3"))
    with torch.no_grad():
        own, null, pooled, pooled_null = pipe.encode_prompt(texts, None, None, negative_prompt="dull", max_sequence_length=tiny.TOKENS)
    model = pipelines.load(str(pipeline("sd3")), tiny.options("sd3", prompts=file, negative_prompt="dull"))
    given = seen(model, 12)
    torch.testing.assert_close(given["encoder_hidden_states"], torch.cat([own, null[:1]]), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(given["pooled_projections"], torch.cat([pooled, pooled_null[:1]]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("family", "kept_by_tokenizer", "expected"), [("flux", 24, 24), ("flux", 600, 512), ("pixart", 600, 120)])
def test_prompts_are_as_long_as_the_pipeline_makes_them(
    family: str, kept_by_tokenizer: int, expected: int, pipeline: Folder, prompts: Path, tmp_path: Path
) -> None:
    """T5 reads the pipeline's own number of tokens, unless its tokenizer stops before."""
    folder = Path(shutil.copytree(pipeline(family), tmp_path / family))
    file = folder / ("tokenizer_2" if family == "flux" else "tokenizer") / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"model_max_length": kept_by_tokenizer}))
    model = pipelines.load(str(folder), tiny.options(family, prompts=prompts))
    assert seen(model, 3)["encoder_hidden_states"].shape == (3, expected, tiny.WIDTH)


def test_prompts_of_clip_are_as_long_as_it_reads(pipeline: Folder, prompts: Path) -> None:
    model = pipelines.load(str(pipeline("sd")), tiny.options("sd", prompts=prompts))
    assert seen(model, 3)["encoder_hidden_states"].shape == (3, tiny.TOKENS, tiny.WIDTH)
