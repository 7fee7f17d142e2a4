"""How a model is loaded: what a person may ask for beside its name. The same for every model; what does not apply to one is refused."""

from dataclasses import dataclass, fields
from pathlib import Path

from solversearch.errors import UserError

FOUND = ("skip", "features")
"""How the names of variants begin that are found in the network itself."""
FOR_ALL = ("features", "inception_weights", "reference", "variant")
"""What `models.load` applies to whatever model it has loaded."""


@dataclass(frozen=True)
class Options:
    """None and False stand for the model's own.

    dtype is float32, float16 or bfloat16; device a name of torch such as "cuda:1". prompts is a text file, one caption a line, and
    negative_prompt what guidance leads away from; resolution the pixels of an image's side, or
    WIDTHxHEIGHT, and frames those of a video. compiled compiles the network, offload keeps
    on the device only the part that is at work. config is the folder of a pipeline that says how a checkpoint in a single file is built;
    lora are files of LoRAs, each FILE or FILE:SCALE; quantize is 8bit, 4bit or gguf. variant are cheaper models that may stand in for
    this one, each NAME=MODEL. distilled_guidance is the scale that guidance-distilled networks are told, or pipelines that guide in a
    way of their own.
    features is what Frechet and kernel distances look at: "inception", or the path of a TorchScript network from pictures (B, 3, H, W)
    in [0, 1] to features (B, F); inception_weights is the file or folder of Inception's weights. reference is a folder of real images, or
    statistics of one (.npz). These three go with every model that makes pictures.
    """

    device: str | None = None
    dtype: str | None = None
    prompts: Path | None = None
    negative_prompt: str | None = None
    resolution: int | str | None = None
    frames: int | None = None
    distilled_guidance: float | None = None
    compiled: bool = False
    offload: bool = False
    config: Path | None = None
    lora: tuple[str, ...] | None = None
    quantize: str | None = None
    features: str | None = None
    inception_weights: Path | None = None
    reference: Path | None = None
    variant: tuple[str, ...] | None = None

    def only(self, model: str, *allowed: str) -> None:
        """Raises `UserError` where something else was asked for."""
        for each in fields(self):
            if getattr(self, each.name) not in (None, False) and each.name not in (*allowed, *FOR_ALL):
                option = "--compile" if each.name == "compiled" else "--" + each.name.replace("_", "-")
                raise UserError(f"{option} does not apply to model {model!r}; leave it out")
