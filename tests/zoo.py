"""Tiny pipelines of the families that people use now, built in memory with random networks and embedded prompts, and their own denoiser.

The denoiser is the pipeline itself: one call a node, whose scheduler hands back what the pipeline made of its network's outputs.
"""

import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from solversearch.export.diffusers import PlanScheduler
from solversearch.models.pipelines.library import quiet
from solversearch.runtime import Node
from solversearch.schedules import data_prediction

TOKENS, WIDTH = 16, 16


def _text(seed: int, width: int = WIDTH) -> Tensor:
    return 3 * torch.randn(1, TOKENS, width, generator=torch.Generator().manual_seed(seed))


def _pair(name: str = "prompt_embeds", width: int = WIDTH) -> dict[str, Tensor]:
    return {name: _text(1, width), f"negative_{name}": _text(2, width)}


def _masks(name: str = "prompt_attention_mask", dtype: torch.dtype = torch.int64) -> dict[str, Tensor]:
    mask = torch.ones(1, TOKENS, dtype=dtype)
    return {name: mask, f"negative_{name}": mask}


class _Unchecked(torch.nn.Module):
    """In the place of a safety checker."""

    device, dtype = torch.device("cpu"), torch.float32


class Family(NamedTuple):
    """pipeline and network are classes of diffusers; latents is the shape that the loop works on, call how the pipeline is called.

    unpack makes of that what the pipeline is given, which it multiplies by unit.
    guides is the argument of guidance, offset what its formula adds to that (c + g (c - u) has 1), plain whether c and u can be told.
    """

    pipeline: str
    network: str
    settings: dict[str, Any]
    latents: tuple[int, ...]
    call: Callable[[], dict[str, Any]]
    scheduler: tuple[str, dict[str, Any]] = ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0})
    guides: str = "guidance_scale"
    offset: int = 0
    plain: bool = True
    more: Mapping[str, Any] = MappingProxyType({})
    unit: float = 1.0
    unpack: Callable[[Tensor], Tensor] = lambda x: x


_WAN = {
    "patch_size": (1, 2, 2), "num_attention_heads": 2, "attention_head_dim": 12, "in_channels": 16, "out_channels": 16, "text_dim": WIDTH,
    "freq_dim": 32, "ffn_dim": 32, "num_layers": 2, "rope_max_seq_len": 32,
}  # fmt: skip
_MMDIT = {"num_layers": 1, "num_single_layers": 1, "num_attention_heads": 2, "attention_head_dim": 16, "joint_attention_dim": WIDTH}
_PICTURE = {"height": 32, "width": 32}
_VIDEO = {"height": 32, "width": 32, "num_frames": 5}
_COGVIDEO = (
    "CogVideoXDDIMScheduler",
    {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "snr_shift_scale": 1.0, "timestep_spacing": "trailing"},
)

ZOO = {
    "wan21": Family("WanPipeline", "WanTransformer3DModel", _WAN, (1, 16, 2, 4, 4), lambda: _VIDEO | _pair()),
    "wan22": Family(
        "WanPipeline", "WanTransformer3DModel", _WAN, (1, 16, 2, 4, 4), lambda: _VIDEO | _pair(),
        ("UniPCMultistepScheduler", {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}),
        more={"transformer_2": True, "boundary_ratio": 0.6},
    ),
    "z_image": Family(
        "ZImagePipeline", "ZImageTransformer2DModel",
        {"dim": 32, "n_layers": 2, "n_refiner_layers": 1, "n_heads": 2, "n_kv_heads": 2, "cap_feat_dim": WIDTH, "axes_dims": [8, 4, 4],
         "axes_lens": [256, 32, 32]},
        (1, 16, 4, 4), lambda: _PICTURE | {name: [each[0]] for name, each in _pair().items()}, offset=1,
    ),
    "flux2": Family(
        "Flux2KleinPipeline", "Flux2Transformer2DModel",
        _MMDIT | {"in_channels": 16, "timestep_guidance_channels": 32, "axes_dims_rope": [4, 4, 4, 4], "guidance_embeds": False},
        (1, 4, 16), lambda: _PICTURE | _pair(), unpack=lambda x: x.transpose(1, 2).reshape(1, 16, 2, 2),
    ),
    "qwen_image": Family(
        "QwenImagePipeline", "QwenImageTransformer2DModel",
        {"in_channels": 16, "out_channels": 4, "num_layers": 2, "attention_head_dim": 16, "num_attention_heads": 2,
         "joint_attention_dim": WIDTH, "axes_dims_rope": (8, 4, 4)},
        (1, 4, 16), lambda: _PICTURE | _pair() | _masks("prompt_embeds_mask"), guides="true_cfg_scale", plain=False,
    ),
    "ltx": Family(
        "LTXPipeline", "LTXVideoTransformer3DModel",
        {"in_channels": 8, "out_channels": 8, "num_attention_heads": 2, "attention_head_dim": 16, "cross_attention_dim": 32,
         "num_layers": 1, "caption_channels": WIDTH},
        (1, 1, 8), lambda: _VIDEO | _pair() | _masks(dtype=torch.bool),
    ),
    "chroma": Family(
        "ChromaPipeline", "ChromaTransformer2DModel",
        _MMDIT | {"in_channels": 16, "axes_dims_rope": (4, 4, 8), "approximator_hidden_dim": 32, "approximator_layers": 1,
         "approximator_num_channels": 16},
        (1, 4, 16), lambda: _PICTURE | _pair() | _masks(dtype=torch.bool),
    ),
    "sana": Family(
        "SanaPipeline", "SanaTransformer2DModel",
        {"patch_size": 1, "in_channels": 4, "out_channels": 4, "num_layers": 1, "num_attention_heads": 2, "attention_head_dim": 4,
         "num_cross_attention_heads": 2, "cross_attention_head_dim": 4, "cross_attention_dim": 8, "caption_channels": WIDTH,
         "sample_size": 32},
        (1, 4, 1, 1), lambda: _PICTURE | _pair() | _masks() | {"use_resolution_binning": False, "negative_prompt": None},
        ("DPMSolverMultistepScheduler", {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}),
    ),
    "cogview4": Family(
        "CogView4Pipeline", "CogView4Transformer2DModel",
        {"in_channels": 4, "out_channels": 4, "num_layers": 2, "attention_head_dim": 4, "num_attention_heads": 4,
         "text_embed_dim": WIDTH, "time_embed_dim": 8, "condition_dim": 4},
        (1, 4, 4, 4), lambda: _PICTURE | _pair(),
        ("FlowMatchEulerDiscreteScheduler", {"base_shift": 0.25, "max_shift": 0.75, "use_dynamic_shifting": True,
         "time_shift_type": "linear"}),
    ),
    "lumina2": Family(
        "Lumina2Pipeline", "Lumina2Transformer2DModel",
        {"sample_size": 4, "in_channels": 4, "hidden_size": 8, "num_layers": 2, "num_attention_heads": 1, "num_kv_heads": 1,
         "multiple_of": 16, "axes_dim_rope": (4, 2, 2), "cap_feat_dim": WIDTH},
        (1, 4, 4, 4), lambda: _PICTURE | _pair() | _masks(), plain=False,
    ),
    "kandinsky5": Family(
        "Kandinsky5T2VPipeline", "Kandinsky5Transformer3DModel",
        {"in_visual_dim": 16, "out_visual_dim": 16, "in_text_dim": WIDTH, "in_text_dim2": WIDTH, "time_dim": 16, "model_dim": 16,
         "ff_dim": 32, "num_text_blocks": 1, "num_visual_blocks": 1, "axes_dims": (1, 1, 2)},
        (1, 2, 4, 4, 16),
        lambda: _VIDEO | _pair("prompt_embeds_qwen") | {"prompt_embeds_clip": _text(3)[:, 0],
         "negative_prompt_embeds_clip": _text(4)[:, 0], "prompt_cu_seqlens": torch.tensor([0, TOKENS], dtype=torch.int32),
         "negative_prompt_cu_seqlens": torch.tensor([0, TOKENS], dtype=torch.int32)},
    ),
    "cosmos2": Family(
        "Cosmos2TextToImagePipeline", "CosmosTransformer3DModel",
        {"in_channels": 16, "out_channels": 16, "num_attention_heads": 2, "attention_head_dim": 16, "num_layers": 1,
         "text_embed_dim": WIDTH, "adaln_lora_dim": 4, "max_size": (4, 32, 32), "rope_scale": (2.0, 1.0, 1.0)},
        (1, 16, 1, 4, 4), lambda: _PICTURE | _pair(), offset=1, unit=80.0,
        more={"safety_checker": _Unchecked()},
    ),
    "aura_flow": Family(
        "AuraFlowPipeline", "AuraFlowTransformer2DModel",
        {"sample_size": 4, "in_channels": 4, "out_channels": 4, "num_mmdit_layers": 1, "num_single_dit_layers": 1,
         "attention_head_dim": 8, "num_attention_heads": 2, "caption_projection_dim": 16, "joint_attention_dim": WIDTH,
         "pos_embed_max_size": 16},
        (1, 4, 4, 4), lambda: _PICTURE | _pair() | _masks(),
    ),
    "cogvideox": Family(
        "CogVideoXPipeline", "CogVideoXTransformer3DModel",
        {"num_attention_heads": 2, "attention_head_dim": 16, "in_channels": 4, "out_channels": 4, "time_embed_dim": 2,
         "text_embed_dim": WIDTH, "num_layers": 1, "sample_width": 4, "sample_height": 4, "sample_frames": 5,
         "max_text_seq_length": TOKENS},
        (1, 2, 4, 4, 4), lambda: _VIDEO | _pair(), _COGVIDEO,
    ),
    "hunyuan_video": Family(
        "HunyuanVideoPipeline", "HunyuanVideoTransformer3DModel",
        {"in_channels": 4, "out_channels": 4, "num_attention_heads": 2, "attention_head_dim": 10, "num_layers": 1,
         "num_single_layers": 1, "num_refiner_layers": 1, "patch_size": 1, "patch_size_t": 1, "guidance_embeds": True,
         "text_embed_dim": WIDTH, "pooled_projection_dim": 8, "rope_axes_dim": (2, 4, 4)},
        (1, 4, 2, 4, 4),
        lambda: _VIDEO | _pair() | _masks() | {"pooled_prompt_embeds": _text(5, 8)[:, 0],
         "negative_pooled_prompt_embeds": _text(6, 8)[:, 0]},
        guides="true_cfg_scale",
    ),
}  # fmt: skip


def build(name: str) -> Any:
    """The pipeline, with weights that are the same every time and as large as those of trained networks."""
    import diffusers

    family = ZOO[name]
    torch.manual_seed(0)
    kind = getattr(diffusers, family.pipeline)
    with quiet():
        parts: dict[str, Any] = {part: None for part in inspect.signature(kind.__init__).parameters if part != "self"}
        parts["transformer"] = _network(family)
        parts["scheduler"] = getattr(diffusers, family.scheduler[0])(**family.scheduler[1])
        parts |= {part: _network(family) if value is True else value for part, value in family.more.items()}
        defaults = {each.name for each in inspect.signature(kind.__init__).parameters.values() if each.default is not each.empty}
        pipe = kind(**{part: value for part, value in parts.items() if value is not None or part not in defaults})
    pipe.set_progress_bar_config(disable=True)
    return pipe


@torch.no_grad()
def _network(family: Family) -> Any:
    import diffusers

    network = getattr(diffusers, family.network)(**family.settings).eval()
    for parameter in network.parameters():  # some are made with zeros, which say nothing
        parameter.normal_(std=0.3 if parameter.ndim > 1 else 0.1)
    return network


class Answer(BaseException):
    """Leaves the pipeline with the state and the output that its scheduler was given."""


class Recording(PlanScheduler):
    """Keeps the last state of the loop; where `leaves`, it leaves the pipeline there: there is nothing to decode with."""

    leaves = False

    def step(
        self,
        model_output: Any,
        timestep: Any,
        sample: Any,
        generator: Any = None,
        return_dict: bool = True,
        eta: float = 0.0,
        **others: Any,
    ) -> Any:
        output = super().step(model_output, timestep, sample, generator, return_dict, eta, **others)
        self.last = output[0]
        if self.leaves and self.step_index == self.plan.nfe:
            raise Answer
        return output


class _Asking:
    """Mixed into the class of the pipeline's own scheduler: it leads to one node."""

    order, init_noise_sigma, node, level = 1, 1.0, Node(0.0, 1.0, 1.0), 0.0

    def set_timesteps(
        self, num_inference_steps: Any = None, device: Any = None, timesteps: Any = None, sigmas: Any = None, **others: Any
    ) -> None:
        self.timesteps, self.sigmas = torch.tensor([self.node.t]), torch.tensor([self.level, 0.0])
        self.num_inference_steps = 1

    def set_begin_index(self, begin_index: int = 0) -> None:
        pass

    def scale_model_input(self, sample: Tensor, timestep: Any = None) -> Tensor:
        return sample

    def step(self, model_output: Tensor, timestep: Any, sample: Tensor, *args: Any, **kwargs: Any) -> Any:
        raise Answer(sample, model_output)


class Own:
    """The data prediction of a pipeline's own network, as `runtime.run` calls it, guidance by its formula."""

    def __init__(self, pipe: Any, name: str, prediction_type: str, split: bool = False) -> None:
        self.pipe, self.family, self.prediction_type, self.split = pipe, ZOO[name], prediction_type, split

    def output(self, x: Tensor, node: Node, scale: float) -> Tensor:
        stock = self.pipe.scheduler
        probe: Any = object.__new__(type(type(stock).__name__, (_Asking, type(stock)), {}))
        probe.__dict__.update(stock.__dict__)
        probe.node, probe.level = node, node.sigma if self.prediction_type == "flow" else node.sigma / max(node.alpha, 1e-8)
        self.pipe.scheduler = probe
        try:
            call(self.pipe, self.family, x, num_inference_steps=1, **{self.family.guides: scale})
        except Answer as answer:
            state, output = answer.args
            assert torch.allclose(state, x, rtol=1e-6)
            return output
        finally:
            self.pipe.scheduler = stock
        raise AssertionError("the pipeline made no step")

    def data(self, x: Tensor, node: Node, scale: float) -> Tensor:
        """At a scale in the pipeline's own terms."""
        a, b = data_prediction(self.prediction_type, node.alpha, node.sigma)
        return a * x + b * self.output(x, node, scale)

    def __call__(self, x: Tensor, node: Node) -> Any:
        if not self.family.plain:
            return self.data(x, node, node.guidance)
        low, high = (self.data(x, node, scale - self.family.offset) for scale in (3.0, 6.0))
        difference = (high - low) / 3
        guided = low + (node.guidance - 3) * difference
        return (guided, difference) if self.split else guided


def call(pipe: Any, family: Family, state: Tensor, **arguments: Any) -> Any:
    """The call of the pipeline for a state of its loop."""
    latents = family.unpack(state / family.unit).clone()
    return pipe(**family.call(), latents=latents, output_type="latent", generator=torch.Generator().manual_seed(0), **arguments)
