"""What a pipeline is called with: the prompt or the label, the size, and guidance."""

import re
from dataclasses import dataclass, field
from typing import Any

from solversearch.errors import UserError
from solversearch.models.aliases import Alias
from solversearch.models.options import Options
from solversearch.models.pipelines.guest import Call, Guest

SCALE = 5.0
"""Of guidance, while a pipeline is watched: it has to run its network without the condition too."""


@dataclass
class Asking:
    """The arguments of a pipeline's `__call__` that are the same for all prompts, and those of one.

    kind is what is sampled under: a "prompt", a class "label", or nothing. guides is the argument that guidance with an unconditional
    network call hangs on, if any; tells the one of a scale that the network itself is told.
    """

    kind: str
    negative: str | None
    fixed: dict[str, Any] = field(default_factory=dict)
    guides: str = ""
    tells: str = ""

    @classmethod
    def of(cls, guest: Guest, options: Options, alias: Alias | None = None) -> "Asking":
        """Raises `UserError` for a size that the pipeline cannot make."""
        known = guest.parameters
        kind = "prompt" if "prompt" in known else "label" if "class_labels" in known else ""
        guides = next((name for name in ("true_cfg_scale", "guidance_scale") if name in known), "")
        negative = options.negative_prompt
        if negative is None and guides == "true_cfg_scale":
            negative = ""  # without one these do not guide
        asking = cls(
            kind,
            negative if "negative_prompt" in known else None,
            _size(guest, options, alias) | (dict(alias.call) if alias else {}),
            guides,
        )
        if "use_resolution_binning" in known:
            asking.fixed["use_resolution_binning"] = False
        longest = _longest(guest.pipe)
        default = known["max_sequence_length"].default if "max_sequence_length" in known else None
        if isinstance(default, int) and longest is not None and longest < default:
            asking.fixed["max_sequence_length"] = longest
        if guides:
            asking.fixed[guides] = SCALE
        return asking

    def arguments(self, prompt: Any, count: int = 1) -> dict[str, Any]:
        if self.kind == "label":
            return self.fixed | {"class_labels": [prompt] * count}
        if not self.kind:
            return self.fixed | {"batch_size": count}
        texts = {"prompt": prompt} | ({} if self.negative is None else {"negative_prompt": self.negative})
        return self.fixed | {name: text if count == 1 else [text] * count for name, text in texts.items()}  # some take one alone, no list

    def call(self, prompt: Any, encoded: list[Any] | None, count: int = 1) -> Call:
        return Call(self.arguments(prompt, count), encoded)


def _size(guest: Guest, options: Options, alias: Alias | None) -> dict[str, int]:
    """Pixels and frames, where they are not the pipeline's own."""
    resolution = options.resolution if options.resolution is not None else alias.resolution if alias else None
    frames = options.frames if options.frames is not None else alias.frames if alias else None
    size: dict[str, int] = {}
    if resolution is not None and "height" in guest.parameters:
        width, height = pixels(resolution)
        size = {"height": height, "width": width}
        multiple = _multiple(guest)
        sides = [max(round(each / multiple), 1) * multiple for each in (width, height)]
        if sides != [width, height]:
            told = f"{sides[0]}x{sides[1]}" if "x" in str(resolution).lower() else sides[0]
            raise UserError(f"--resolution {resolution} is no multiple of {multiple} pixels, as {guest.name} needs; the nearest is {told}")
    elif options.resolution is not None and pixels(options.resolution) != ((side := _own_side(guest)), side):
        raise UserError(f"{guest.name} makes pictures of {side or 'its own'} pixels only; leave out --resolution")
    if frames is not None and "num_frames" in guest.parameters:
        size["num_frames"] = frames
        step = getattr(guest.pipe, "vae_scale_factor_temporal", None) or getattr(guest.pipe, "vae_temporal_compression_ratio", None) or 1
        if frames < 1 or (frames - 1) % int(step):
            near = max(round((frames - 1) / step), 0) * int(step) + 1
            raise UserError(f"--frames {frames} is not one more than a multiple of {step}, as {guest.name} needs; the nearest is {near}")
    elif options.frames is not None:
        raise UserError(f"{guest.name} makes no videos; leave out --frames")
    return size


def pixels(resolution: int | str) -> tuple[int, int]:
    """Width and height of "1024", a square, or "1024x576"."""
    match = re.fullmatch(r"([1-9]\d{0,5})(?:x([1-9]\d{0,5}))?", str(resolution).strip().lower())
    if match is None:
        raise UserError(f"--resolution {resolution}: pixels of a side, such as 1024, or WIDTHxHEIGHT, such as 1024x576")
    return int(match[1]), int(match[2] or match[1])


def _own_side(guest: Guest) -> int | None:
    """Pixels of the pictures that a pipeline makes which takes no size; None where its network does not say."""
    side = next(iter(guest.networks.values())).config.get("sample_size")
    vae = getattr(guest.pipe, "vae", None)
    return side * 2 ** (len(vae.config.block_out_channels) - 1 if vae is not None else 0) if isinstance(side, int) else None


def _multiple(guest: Guest) -> int:
    """What sides are divided by on the way to the network, patches counted, as its processor of pictures or its network knows."""
    pipe, patch = guest.pipe, next((each.config.get("patch_size") for each in guest.networks.values()), None) or 1
    processor = getattr(pipe, "image_processor", None) or getattr(pipe, "video_processor", None)
    own = getattr(pipe, "vae_scale_factor_spatial", None) or getattr(pipe, "vae_scale_factor", None) or 1
    patched = int(own) * int(patch if isinstance(patch, int) else patch[-1])
    return max(patched, int(processor.config.vae_scale_factor) if processor is not None else 1)


def _longest(pipe: Any) -> int | None:
    """Tokens of a prompt that the tokenizer of the longest prompts keeps; None where there is none, as in SD3 without its T5."""
    found = [getattr(pipe, name) for name in ("tokenizer", "tokenizer_2", "tokenizer_3") if hasattr(pipe, name)]
    length = getattr(found[-1], "model_max_length", None) if found else None
    return int(length) if isinstance(length, int | float) and 0 < length < 10**6 else None
