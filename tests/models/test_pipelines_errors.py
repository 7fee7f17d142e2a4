"""What can be wrong with a pipeline is told in one line; the Hub is replaced by what it would answer."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError
from safetensors.torch import load_file, save_file

from solversearch.errors import UserError
from solversearch.models import pipelines
from solversearch.models.aliases import Alias
from solversearch.models.options import Options
from tests import tiny

Folder = Callable[[str], Path]
UNET = Path("unet", "diffusion_pytorch_model.safetensors")


def refusal(where: Path | str, **changed: Any) -> str:
    """The line with which loading fails."""
    with pytest.raises(UserError) as caught:
        pipelines.load(str(where), Options(**({"device": "cpu"} | changed)))
    line = str(caught.value)
    assert "\n" not in line
    return line


@pytest.fixture
def sd(pipeline: Folder, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(pipeline("sd"), tmp_path / "sd"))


def rewrite(file: Path, **changed: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changed))


# Packages and options --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("package", ["diffusers", "transformers"])
def test_missing_packages(package: str, sd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    assert f"pipelines need {package}" in (line := refusal(sd))
    assert "pip install 'solversearch[diffusers]'" in line


@pytest.mark.parametrize(
    ("family", "changed", "message"),
    [
        ("sd", {"dtype": "float8"}, "unknown dtype 'float8'"),
        ("sd", {"device": "cuda:77"}, "--device cuda:77 cannot be used here"),
        ("sd", {"device": "gpu"}, "--device gpu cannot be used here"),
        ("sd", {"resolution": 17}, "--resolution 17 is no multiple of 2 pixels, as StableDiffusionPipeline needs; the nearest is 16"),
        (
            "sd",
            {"resolution": "17x32"},
            "17x32 is no multiple of 2 pixels, as StableDiffusionPipeline needs; the nearest is 16x32",
        ),
        ("sd", {"resolution": -16}, "--resolution -16"),
        ("flux", {"resolution": 18}, "multiple of 4 pixels"),
        ("ddpm", {"resolution": 16}, "pictures of 8 pixels only"),
        ("dit", {"resolution": 32}, "pictures of 16 pixels only"),
        ("ddpm", {"prompts": Path("p.txt")}, "--prompts does not apply"),
        ("dit", {"negative_prompt": "dull"}, "--negative-prompt does not apply"),
        ("sd", {"distilled_guidance": 2.0}, "--distilled-guidance does not apply"),
        ("sd", {"prompts": Path("none.txt")}, "none.txt: the prompts cannot be read"),
    ],
)
def test_options_that_do_not_fit(family: str, changed: dict[str, Any], message: str, pipeline: Folder) -> None:
    assert message in refusal(pipeline(family), **changed)


def test_the_own_size_may_be_named(pipeline: Folder) -> None:
    assert pipelines.load(str(pipeline("dit")), Options(device="cpu", resolution=16)).shape == (4, 8, 8)


# Folders ---------------------------------------------------------------------------------------------------------


def test_no_folder(tmp_path: Path) -> None:
    assert "there is no such folder" in refusal(tmp_path / "nothing")
    assert "there is no such folder" in refusal("./nothing")


def test_a_folder_that_is_no_pipeline(tmp_path: Path) -> None:
    assert "model_index.json: the file is missing" in refusal(tmp_path)


def test_unreadable_configuration(sd: Path) -> None:
    (sd / "unet" / "config.json").write_text("{")
    assert "unet/config.json: not readable as JSON" in refusal(sd)
    (sd / "model_index.json").write_text("[]")
    assert "model_index.json: holds no JSON object" in refusal(sd)


def test_unknown_pipelines_name_the_known_ones(sd: Path) -> None:
    rewrite(sd / "model_index.json", _class_name="StableDifusionPipeline")
    assert "did you mean 'StableDiffusionPipeline'?" in (line := refusal(sd))
    assert "FluxPipeline" in line


@pytest.mark.parametrize(
    ("part", "kind"),
    [
        ("unet", ["my_code", "UNet2DConditionModel"]),
        ("unet", ["diffusers.utils", "FrozenDict"]),
        ("text_encoder", ["os", "system"]),
        ("tokenizer", ["diffusers", "DiffusionPipeline"]),
        ("tokenizer", ["diffusers", "AutoModel"]),
        ("tokenizer", ["transformers", "AutoTokenizer"]),
    ],
)
def test_only_classes_of_the_two_libraries_are_made(part: str, kind: list[str], sd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder cannot have code of its own run, nor import a module of its choice; nor by way of a class that loads others."""
    for place in (sd, sd / part):
        (place / "my_code.py").write_text("raise SystemExit('ran')")
        (place / "pipeline.py").write_text("raise SystemExit('ran')")
    (sd / part / "model_index.json").write_text(json.dumps({"_class_name": ["pipeline", "Mine"]}))
    monkeypatch.chdir(sd)
    monkeypatch.syspath_prepend(sd)
    rewrite(sd / "model_index.json", **{part: kind})
    assert f"{part} is {'.'.join(kind)} in model_index.json, which is no part of diffusers or transformers" in refusal(sd)
    assert "my_code" not in sys.modules


@pytest.mark.parametrize("kind", ["UNet3DConditionModel", "FluxTransformer2DModel"])
def test_parts_of_another_class_than_their_settings(kind: str, sd: Path) -> None:
    rewrite(sd / "model_index.json", unet=["diffusers", kind])
    assert str(sd) in refusal(sd)


def test_pipelines_without_a_network(sd: Path) -> None:
    rewrite(sd / "model_index.json", unet=[None, None])
    assert "StableDiffusionPipeline cannot be sampled by a plan: it has no network of its own" in refusal(sd)
    rewrite(sd / "model_index.json", _class_name="DiffusionPipeline")
    assert "DiffusionPipeline cannot be sampled by a plan: it has no network of its own" in refusal(sd)


def test_pipelines_without_a_part(sd: Path) -> None:
    rewrite(sd / "model_index.json", text_encoder=[None, None], tokenizer=[None, None], vae=[None, None])
    assert str(sd) in refusal(sd)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"_class_name": "DDIMSheduler"}, "scheduler 'DDIMSheduler', which diffusers"),
        ({"beta_schedule": "scaledlinear"}, "did you mean 'scaled_linear'"),
        ({"num_train_timesteps": "many"}, "scheduler_config.json gives no noise schedule"),
    ],
)
def test_settings_of_a_scheduler_that_make_no_sense(changed: dict[str, Any], message: str, sd: Path) -> None:
    rewrite(sd / "scheduler" / "scheduler_config.json", **changed)
    assert message in refusal(sd)


def test_embeddings_are_not_taken_from_another_encoder(sd: Path) -> None:
    pipelines.load(str(sd), Options(device="cpu"))
    rewrite(sd / "model_index.json", text_encoder=["transformers", "T5EncoderModel"])
    assert "text_encoder" in refusal(sd)


def test_missing_weights(sd: Path) -> None:
    (sd / UNET).unlink()
    assert "unet: there are no weights (*.safetensors)" in (line := refusal(sd))
    assert "hf download" in line


def test_pickled_weights_are_not_opened(sd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = load_file(sd / UNET)
    (sd / UNET).unlink()
    torch.save(tensors, sd / UNET.with_suffix(".bin"))
    line = refusal(sd)
    assert "diffusion_pytorch_model.bin is a pickle" in line
    code = line.split('python -c "')[1].rstrip('"')
    monkeypatch.chdir(sd / "unet")
    exec(code, {})
    assert pipelines.load(str(sd), Options(device="cpu")).prediction_type == "epsilon"


@pytest.mark.parametrize("part", ["unet", "text_encoder"])
def test_damaged_weights(part: str, sd: Path) -> None:
    file = next((sd / part).glob("*.safetensors"))
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    assert f"{file}: the weights are damaged or cut short" in refusal(sd)


def test_a_damaged_vae_is_found_when_pictures_are_asked_for(sd: Path) -> None:
    next((sd / "vae").glob("*.safetensors")).write_bytes(b"x" * 100)
    model = pipelines.load(str(sd), Options(device="cpu"))
    assert model.images is not None
    with pytest.raises(UserError, match="vae: the weights do not load"):
        model.images(torch.zeros(1, *model.shape))


def test_weights_that_lack_a_tensor_are_not_made_up(sd: Path) -> None:
    tensors = load_file(sd / UNET)
    del tensors["conv_in.bias"]
    save_file(tensors, sd / UNET, {"format": "pt"})
    assert "conv_in.bias" in refusal(sd)


def test_weights_of_another_network(sd: Path, pipeline: Folder) -> None:
    shutil.copy(pipeline("sdxl") / UNET, sd / UNET)
    assert "unet: the weights do not load" in refusal(sd)


def test_inpainting_networks(sd: Path) -> None:
    tensors = load_file(sd / UNET)
    tensors["conv_in.weight"] = torch.cat([tensors["conv_in.weight"]] * 3, 1)[:, :9].contiguous()
    save_file(tensors, sd / UNET, {"format": "pt"})
    rewrite(sd / "unet" / "config.json", in_channels=9)
    assert "cannot be sampled by a plan: it steps with an output of the shape (1, 4, 8, 8) for a state of (1, 9, 8, 8)" in refusal(sd)


def test_latents_need_a_vae(sd: Path) -> None:
    shutil.rmtree(sd / "vae")
    assert "config.json: the file is missing" in refusal(sd)


# The Hub ---------------------------------------------------------------------------------------------------------


def answering(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """The Hub refuses; nothing is in its cache."""

    def fail(*given: Any, **named: Any) -> Any:
        raise LocalEntryNotFoundError("nothing") if named.get("local_files_only") else error

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", fail)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)


def test_the_hub_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, ConnectionError("no route"))
    line = refusal("owner/name")
    assert "hf:owner/name: not fetched from the Hugging Face Hub (ConnectionError: no route)" in line
    assert "hf download owner/name --local-dir FOLDER" in line


def test_a_gated_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, GatedRepoError("gated", response=Mock()))
    line = refusal("black-forest-labs/FLUX.1-dev")
    assert "licence must be accepted first, at https://huggingface.co/black-forest-labs/FLUX.1-dev" in line
    assert "hf auth login" in line


def test_an_unknown_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, RepositoryNotFoundError("no", response=Mock()))
    assert "hf:owner/name: the Hub has no such repository" in refusal("owner/name")


class Hub:
    """Serves a folder as a repository, with a checkpoint for other programs beside it, and keeps what was asked for."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.asked, self.reached = folder, [""], True
        for extra in ("v1-5-pruned.safetensors", "unet/diffusion_pytorch_model.bin", "safety_checker/model.safetensors", "README.md"):
            (folder / extra).parent.mkdir(exist_ok=True)
            (folder / extra).write_text("not wanted")
        monkeypatch.setattr(huggingface_hub.HfApi, "model_info", self.names)
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda repository, name: str(folder / name))
        monkeypatch.setattr(huggingface_hub, "snapshot_download", self.download)

    def names(self, *given: Any) -> Any:
        if not self.reached:
            raise ConnectionError("no route")
        files = (str(file.relative_to(self.folder)) for file in self.folder.rglob("*") if file.is_file())
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename=file) for file in files])

    def download(self, repository: str, allow_patterns: Any = None, local_files_only: bool = False) -> str:
        self.asked = allow_patterns
        return str(self.folder)


def test_only_what_is_needed_is_fetched(sd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_file({"x": torch.zeros(1)}, sd / "unet" / "diffusion_pytorch_model.fp16.safetensors", {"format": "pt"})
    hub = Hub(sd, monkeypatch)
    model = pipelines.load("owner/name", Options(device="cpu"), "mine")
    assert model.name == "mine"
    assert set(hub.asked) >= {
        "model_index.json",
        "unet/config.json",
        str(UNET),
        "tokenizer/tokenizer.json",
        "scheduler/scheduler_config.json",
    }
    assert not [name for name in hub.asked if "pruned" in name or ".bin" in name or "safety" in name or "fp16" in name or "README" in name]
    hub.reached = False
    monkeypatch.chdir(sd.parent)
    (sd.parent / "owner" / "name").mkdir(parents=True)
    assert pipelines.load("owner/name", Options(device="cpu"), "hf:owner/name").digest == model.digest
    (sd.parent / "owner" / "name").rmdir()
    assert pipelines.load("owner/name", Options(device="cpu")).digest == model.digest


def test_an_alias_says_what_the_files_do_not(sd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Hub(sd, monkeypatch)
    monkeypatch.setitem(pipelines.ALIASES, "tiny", Alias("owner/name", 32, "bfloat16", 3.0, "for tests"))
    model = pipelines.load_alias("tiny", Options(device="cpu"))
    assert (model.name, model.shape, model.dtype, model.guidance) == ("tiny", (4, 16, 16), torch.bfloat16, 3.0)
    assert pipelines.load_alias("tiny", Options(device="cpu", resolution=16, dtype="float32")).shape == (4, 8, 8)


def test_early_pipelines_have_a_single_folder(pipeline: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As google/ddpm-cifar10-32 lies on the Hub."""
    flat = tmp_path / "flat"
    flat.mkdir()
    for file in pipeline("ddpm").rglob("*"):
        if file.is_file():
            shutil.copy(file, flat / file.name)
    nested = pipelines.load(str(pipeline("ddpm")), Options(device="cpu"))
    assert pipelines.load(str(flat), Options(device="cpu")).digest == nested.digest
    hub = Hub(flat, monkeypatch)
    shutil.rmtree(flat / "unet")
    (flat / "v1-5-pruned.safetensors").unlink()
    assert pipelines.load("google/flat", tiny.options("ddpm")).digest == nested.digest
    assert "diffusion_pytorch_model.safetensors" in hub.asked
