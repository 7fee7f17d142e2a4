"""What people have on their disks beside pipelines: checkpoints in a single file, LoRAs, and networks that are to be quantised.

A checkpoint says neither how its parts are built nor how it is sampled. That stands in a pipeline's folder, its configuration, which is
looked for in the Hub's cache and never fetched.
"""

import hashlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from solversearch.errors import UserError, nearest, short
from solversearch.models.aliases import ALIASES
from solversearch.models.options import Options
from solversearch.models.pipelines import weights
from solversearch.models.pipelines.library import BROKEN, library, quiet
from solversearch.models.pipelines.lora import Lora, fuse
from solversearch.models.pipelines.source import Folder, cached, local, read_json

_QUANTIZED = ("8bit", "4bit", "gguf")
_MOVED = {"stabilityai/stable-diffusion-2-1": ALIASES["sd21"].repository}
"""Of what diffusers names as the configuration of a checkpoint, what is no longer at the Hub under that name."""


@dataclass(frozen=True)
class Changed(Folder):
    """A pipeline with the weights of a checkpoint, with LoRAs, or with a quantised network. path is its configuration."""

    file: Path | None = None
    loras: tuple[Lora, ...] = ()
    quantize: str | None = None

    def has(self, part: str) -> bool:
        """Whether the checkpoint has the part; the others are the configuration's own."""
        if self.file is None or part == self.networks[0]:
            return self.file is not None
        utils, kind = library("diffusers.loaders.single_file_utils"), self.class_of(part)
        if part in self.decoders:
            return any(name.startswith(("first_stage_model.", "vae.")) for name in self.tensors)
        if kind.__name__ == "T5EncoderModel":
            return bool(utils.is_t5_in_single_file(self.tensors))
        return bool(utils.is_clip_model_in_single_file(kind, self.tensors))

    @cached_property
    def tensors(self) -> Mapping[str, Tensor]:
        """The checkpoint's, by their names, without their content."""
        return {} if self.file is None else header(self.file)

    def weights(self, part: str) -> tuple[str | None, list[Path]]:
        """Of the configuration, for a part that the checkpoint does not have."""
        try:
            return super().weights(part)
        except UserError as error:
            if self.file is None:
                raise
            raise UserError(f"{self.file} has no {part}: name a whole pipeline with --config FOLDER ({error})") from error

    def dtype(self, part: str) -> torch.dtype:
        if self.file is None or not self.has(part):
            return super().dtype(part)
        return torch.bfloat16 if self.quantize == "gguf" else weights.stored_dtype(self.file)

    def digest(self, part: str) -> str:
        """Without LoRAs and quantisation it is that of the pipeline's folder with the same weights."""
        if self.file is None or not self.has(part):
            base = super().digest(part)
        elif self.quantize == "gguf":
            with self.file.open("rb") as content:
                base = hashlib.file_digest(content, "sha256").hexdigest()
        else:
            base = weights.remembered([self.file], lambda: self._converted(part), f"{part} {read_json(self.place(part) / 'config.json')}")
        changes = [lora.digest for lora in self.loras if part not in self.decoders]
        if part in self.networks and self.quantize in ("8bit", "4bit"):
            changes.append(self.quantize)
        return hashlib.sha256(" ".join([base, *changes]).encode()).hexdigest() if changes else base

    def _converted(self, part: str) -> str:
        tensors = self._own(part, self.dtype(part)).state_dict()
        return weights.digest_of(tensors, tensors.__getitem__)

    def load(self, part: str, dtype: torch.dtype, **more: Any) -> Any:
        """With the LoRAs in its weights, unless these are quantised: then they stay beside them."""
        quantized = part in self.networks and self.quantize is not None
        module, names = self._own(part, dtype, **(more | self._quantization(dtype) if quantized else more)), []
        for number, lora in enumerate(self.loras if part not in self.decoders else ()):
            if lora.apply(module, part, self.kind, f"lora_{number}"):
                names.append((f"lora_{number}", lora.scale))
                if not quantized:
                    fuse(module, lora.scale)
        if quantized and names:
            module.set_adapters(*map(list, zip(*names, strict=True)))
        return module.eval().requires_grad_(False)

    def _own(self, part: str, dtype: torch.dtype, **more: Any) -> Any:
        if self.file is None or not self.has(part):
            return super().load(part, dtype, **more)
        place = {"config": str(self.path), "torch_dtype": dtype, "local_files_only": True}
        kind = self.class_of(part)
        try:
            with quiet():
                if hasattr(kind, "from_single_file"):
                    module = kind.from_single_file(str(self.file), subfolder=part, **place, **more)
                else:  # of transformers
                    others = dict.fromkeys(each for each in self.modules if each != part)
                    module = getattr(self.kind.from_single_file(str(self.file), **place, **others), part)
        except (*BROKEN, ImportError) as error:
            reason = "tensors are missing" if "meta tensor" in str(error) else short(error, 160)
            raise UserError(
                f"{self.file}: its {part} does not load as {self.path} says it is built ({reason}); name the right configuration with "
                "--config FOLDER"
            ) from error
        if lacking := [name for name, each in module.named_parameters() if each.is_meta]:
            raise UserError(
                f"{self.file}: its {part} lacks {len(lacking)} tensors that it has by {self.path}, such as {lacking[0]}; name the right "
                "configuration with --config FOLDER, or download it again"
            )
        return module.eval().requires_grad_(False)

    def _quantization(self, dtype: torch.dtype) -> dict[str, Any]:
        diffusers = library()
        if self.quantize == "gguf":
            return {"quantization_config": diffusers.GGUFQuantizationConfig(compute_dtype=dtype)}
        if self.quantize == "8bit":
            return {"quantization_config": diffusers.BitsAndBytesConfig(load_in_8bit=True)}
        four = diffusers.BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)
        return {"quantization_config": four}


def changed(folder: Folder, options: Options, device: str) -> Folder:
    """The folder with the LoRAs and the quantisation that were asked for. Raises `UserError`."""
    file = getattr(folder, "file", None)
    if options.config is not None and file is None:
        raise UserError(f"--config goes with a checkpoint, --model FILE.safetensors; {folder.path} has its own configuration")
    quantize = _checked(options, file, device)
    loras = tuple(Lora.of(text) for text in options.lora or ())
    if not loras and quantize is None:
        return folder
    result = Changed(folder.path, folder.index, folder.half, file, loras, quantize)
    for lora in loras:
        lora.check(result.kind, result.modules)
    return result


def _checked(options: Options, file: Path | None, device: str) -> str | None:
    """How the network is quantised. Raises `UserError`."""
    how, gguf = options.quantize, file is not None and file.suffix.lower() == ".gguf"
    how = "gguf" if how is None and gguf else how
    if how is None:
        return None
    if how not in _QUANTIZED:
        raise UserError(nearest(how, list(_QUANTIZED), "quantisation"))
    if (how == "gguf") != gguf:
        raise UserError(
            f"--quantize {how}: {file} is quantised already, as gguf; leave it out"
            if gguf
            else "--quantize gguf goes with a file that is in that format, --model FILE.gguf; to quantise other weights choose 8bit or 4bit"
        )
    package = "gguf" if gguf else "bitsandbytes"
    if find_spec(package) is None:
        raise UserError(f"--quantize {how} needs {package}, which is not there: pip install {package}")
    if not gguf and not device.startswith("cuda"):
        raise UserError(f"--quantize {how} needs a GPU, and the network is to run on {device}; leave it out here")
    if options.offload:
        raise UserError(f"--offload does not go with --quantize {how}; leave one of them out")
    return how


# Checkpoints in a single file ------------------------------------------------------------------------------------


def single(where: str, config: Path | None, half: bool) -> Folder:
    """The pipeline of a checkpoint. config is the folder that says how it is built; else it is looked for in the Hub's cache."""
    file = Path(where).expanduser()
    if file.suffix.lower() not in (".safetensors", ".gguf"):
        raise UserError(f"{where}: only safetensors and gguf are opened, other files of weights can run code; save it in that format")
    if file.suffix.lower() == ".gguf" and find_spec("gguf") is None:
        raise UserError(f"{where}: a file in this format needs gguf, which is not there: pip install gguf")
    folder = local(str(config) if config is not None else _configuration(file), half)
    result = Changed(folder.path, folder.index, folder.half, file)
    kind = result.config("scheduler").get("prediction_type", "epsilon")
    if "v_pred" in result.tensors and kind != "v_prediction":  # how some fine-tuned models of Stable Diffusion XL say so
        raise UserError(
            f"{where}: says that it predicts v, and {folder.path / 'scheduler' / 'scheduler_config.json'} says {kind}; name a folder with "
            "--config in which that is v_prediction"
        )
    return result


def header(file: Path) -> dict[str, Tensor]:
    """Names and shapes of a file's tensors."""
    if file.suffix.lower() == ".gguf":
        try:
            found = library("gguf").GGUFReader(file).tensors
        except (OSError, ValueError, IndexError) as error:
            raise UserError(f"{file}: the weights are damaged or cut short ({error}); download them again") from None
        return {each.name: torch.empty([int(length) for length in reversed(each.shape)], device="meta") for each in found}
    with weights.opened(file) as stored:
        return {name: torch.empty(stored.get_slice(name).get_shape(), device="meta") for name in stored.keys()}  # noqa: SIM118


def _configuration(file: Path) -> str:
    """Where the pipeline lies that diffusers takes a checkpoint's keys for."""
    utils, found = library("diffusers.loaders.single_file_utils"), header(file)
    sort = utils.infer_diffusers_model_type(found)
    if sort == "v1" and utils.CHECKPOINT_KEY_NAMES["inpainting"] not in found:  # what diffusers takes all others for
        raise UserError(
            f"{file}: no checkpoint that diffusers knows, by its tensors ({next(iter(found), 'none')[:60]}); a LoRA goes with --lora, "
            "parts of a pipeline go with --config FOLDER"
        )
    repository = utils.DIFFUSERS_DEFAULT_PIPELINE_PATHS[sort]["pretrained_model_name_or_path"]
    if sort == "v2":
        warnings.warn(
            f"{file}: taken for Stable Diffusion 2.1, which predicts v; for the base model, which does not and has the same tensors, name "
            "its folder with --config",
            stacklevel=2,
        )
    names = [repository, *([_MOVED[repository]] if repository in _MOVED else [])]
    place = next(filter(None, map(cached, names)), None)
    if place is None or not (Path(place) / "model_index.json").is_file():
        raise UserError(
            f"{file}: its configuration, that of {names[-1]}, is not in the Hub's cache; name a folder that has it with --config FOLDER, "
            f"or fetch it: hf download {names[-1]} --include '*.json' '*.txt' '*.model'"
        )
    return place
