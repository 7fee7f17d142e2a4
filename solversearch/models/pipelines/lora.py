"""LoRAs: files of small changes of a network's layers, added to the weights when a part is loaded."""

from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from solversearch.errors import UserError, short
from solversearch.models.pipelines import weights
from solversearch.models.pipelines.library import BROKEN, library, quiet


@dataclass(frozen=True)
class Lora:
    """A file and what its changes are multiplied by."""

    file: Path
    scale: float = 1.0

    @classmethod
    def of(cls, text: str) -> "Lora":
        """Of FILE or FILE:SCALE. Raises `UserError`."""
        file, scale = Path(text).expanduser(), 1.0
        if not file.is_file():
            name, _, told = text.rpartition(":")
            file = Path(name).expanduser()
            if not name or not file.is_file():
                raise UserError(f"--lora {text}: there is no such file; write FILE.safetensors, or FILE.safetensors:SCALE")
            try:
                scale = float(told)
            except ValueError:
                scale = float("nan")
            if not isfinite(scale):
                raise UserError(f"--lora {text}: the scale {told!r} is no finite number; write for example {name}:0.8")
        if file.suffix.lower() != ".safetensors":
            raise UserError(f"--lora {text}: only safetensors are opened, other files can run code; save it in that format")
        if not library("diffusers.utils").USE_PEFT_BACKEND:
            raise UserError("--lora needs peft, which diffusers loads LoRAs with and which is not there: pip install peft")
        return cls(file, scale)

    @property
    def digest(self) -> str:
        return f"{weights.digest([self.file])}:{self.scale!r}"

    def read(self, kind: Any, config: Any = None) -> tuple[dict[str, Any], Any, Any]:
        """Tensors by part and layer, alphas and metadata, as the pipeline's class converts them from other programs' names.

        config is the UNet's, by which some files number its blocks.
        """
        if not hasattr(kind, "lora_state_dict"):
            raise UserError(f"--lora {self.file}: diffusers loads no LoRAs into {kind.__name__}")
        weights.opened(self.file)
        asked = {"return_alphas": True, "return_lora_metadata": True, "local_files_only": True, "use_safetensors": True}
        try:
            with quiet():
                state, *alphas, metadata = kind.lora_state_dict(str(self.file), unet_config=config, **asked)
        except BROKEN as error:
            raise self._misfit(kind, error) from error
        return state, alphas[0] if alphas else None, metadata

    def check(self, kind: Any, parts: tuple[str, ...]) -> None:
        """Raises `UserError` where none of a pipeline's parts is changed by it."""
        state, _, _ = self.read(kind)
        if not {key.partition(".")[0] for key in state} & set(parts):
            raise UserError(
                f"--lora {self.file}: it is of another architecture than {kind.__name__}: it changes {next(iter(state), 'nothing')[:80]}"
            )

    def apply(self, module: Any, part: str, kind: Any, name: str) -> bool:
        """Adds an adapter of that name to a part; False where the file does not change that one."""
        state, alphas, metadata = self.read(kind, getattr(module, "config", None) if part == "unet" else None)
        own = {key.removeprefix(f"{part}."): value for key, value in state.items() if key.startswith(f"{part}.")}
        if not own:
            return False
        try:
            with quiet():
                if hasattr(module, "load_lora_adapter"):
                    self._check_layers(module, own, kind)
                    module.load_lora_adapter(state, prefix=part, network_alphas=alphas or None, metadata=metadata, adapter_name=name)
                else:
                    kind.load_lora_into_text_encoder(state, alphas, module, prefix=part, adapter_name=name, metadata=metadata)
        except BROKEN as error:
            raise self._misfit(kind, error) from error
        return True

    def _check_layers(self, module: Any, own: dict[str, Any], kind: Any) -> None:
        """Files of other networks have layers that this one lacks, which diffusers leaves out with a remark."""
        if "lora_A" not in next(iter(own)) and not any(".lokr_" in key for key in own):
            own = library("diffusers.utils").convert_unet_state_dict_to_peft(own)
        layers, known = {key.partition(".lo")[0] for key in own}, dict(module.named_modules())
        if lacking := sorted(layers - set(known)):
            raise UserError(
                f"--lora {self.file}: it is of another architecture than {kind.__name__}: {len(lacking)} of its {len(layers)} layers are "
                f"not there, such as {lacking[0]}"
            )

    def _misfit(self, kind: Any, error: Exception) -> UserError:
        if isinstance(error, UserError):
            return error
        reason = short(error, 160)
        return UserError(f"--lora {self.file}: it does not fit {kind.__name__}, so it is of another architecture, or damaged ({reason})")


def fuse(module: Any, scale: float) -> None:
    """Adds the adapters of a module, times the scale, to its weights: then they cost nothing."""
    with quiet():
        if hasattr(module, "fuse_lora"):
            module.fuse_lora(lora_scale=scale, safe_fusing=True)
            module.unload_lora()
        else:  # a text encoder of transformers
            library("diffusers.loaders.lora_base").fuse_text_encoder_lora(module, lora_scale=scale, safe_fusing=True)
            library("diffusers.utils").recurse_remove_peft_layers(module)
            if hasattr(module, "peft_config"):
                del module.peft_config
                module._hf_peft_config_loaded = False
