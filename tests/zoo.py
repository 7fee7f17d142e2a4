"""Tiny pipelines of the families that people use now, with random networks, and their own denoiser.

In memory they have embedded prompts; to be saved, text encoders of random weights and a tokenizer of letters.

The denoiser is the pipeline itself: one call a node, whose scheduler hands back what the pipeline made of its network's outputs.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from solversearch.export.diffusers import PlanScheduler
from solversearch.models import pipelines
from solversearch.models.base import Denoiser, Model
from solversearch.models.options import Options
from solversearch.models.pipelines.asking import Asking
from solversearch.models.pipelines.guest import Guest
from solversearch.models.pipelines.library import quiet
from solversearch.models.pipelines.packing import Unpacked
from solversearch.plan import Plan
from solversearch.runtime import Node, Row, Tableau
from solversearch.schedules import CLEAN, data_prediction
from solversearch.solvers import get
from solversearch.tableau import trace
from tests import tiny
from tests.export.families import error, plan_of

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
    text makes the parts that read prompts.
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
    text: Mapping[str, Callable[[], Any]] = MappingProxyType({})


def letters() -> Any:
    """A tokenizer of single letters, which knows chats, too."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    known = ["<pad>", "<unk>", "<eos>", *(chr(i) for i in range(32, 127)), "\n"]
    tokenizer = Tokenizer(models.WordLevel({token: i for i, token in enumerate(known)}, "<unk>"))
    tokenizer.decoder = decoders.Fuse()
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.post_processor = processors.TemplateProcessing("<eos> $A", special_tokens=[("<eos>", 2)])
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", eos_token="<eos>", model_max_length=128
    )
    made.chat_template = "{% for each in messages %}{{ each['content'] }}{% endfor %}"
    return made


def _reader(layers: int = 3) -> Any:
    """A language model."""
    from transformers import Qwen3Config, Qwen3Model

    sizes = {"hidden_size": WIDTH, "intermediate_size": WIDTH, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 8}
    return Qwen3Model(Qwen3Config(vocab_size=128, num_hidden_layers=layers, initializer_range=0.3, **sizes)).eval()


_T5: dict[str, Callable[[], Any]] = {"tokenizer": tiny._t5_tokenizer, "text_encoder": tiny._t5}
_CLIP: dict[str, Callable[[], Any]] = {"tokenizer_2": tiny._clip_tokenizer, "text_encoder_2": partial(tiny._clip_text, length=77)}
_CHAT: dict[str, Callable[[], Any]] = {"tokenizer": letters, "text_encoder": _reader}
_WAN = {
    "patch_size": (1, 2, 2), "num_attention_heads": 2, "attention_head_dim": 12, "in_channels": 16, "out_channels": 16, "text_dim": WIDTH,
    "freq_dim": 32, "ffn_dim": 32, "num_layers": 2, "rope_max_seq_len": 32,
}  # fmt: skip
_MMDIT = {"num_layers": 1, "num_single_layers": 1, "num_attention_heads": 2, "attention_head_dim": 16, "joint_attention_dim": WIDTH}
_PICTURE = {"height": 32, "width": 32}
_VIDEO = {"height": 32, "width": 32, "num_frames": 9}
_COGVIDEO = (
    "CogVideoXDDIMScheduler",
    {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "snr_shift_scale": 1.0, "timestep_spacing": "trailing"},
)

ZOO = {
    "wan21": Family("WanPipeline", "WanTransformer3DModel", _WAN, (1, 16, 3, 4, 4), lambda: _VIDEO | _pair(), text=_T5),
    "wan22": Family(
        "WanPipeline", "WanTransformer3DModel", _WAN, (1, 16, 3, 4, 4), lambda: _VIDEO | _pair(),
        ("UniPCMultistepScheduler", {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}),
        more={"transformer_2": True, "boundary_ratio": 0.6}, text=_T5,
    ),
    "z_image": Family(
        "ZImagePipeline", "ZImageTransformer2DModel",
        {"dim": 32, "n_layers": 2, "n_refiner_layers": 1, "n_heads": 2, "n_kv_heads": 2, "cap_feat_dim": WIDTH, "axes_dims": [8, 4, 4],
         "axes_lens": [256, 32, 32]},
        (1, 16, 4, 4), lambda: _PICTURE | {name: [each[0]] for name, each in _pair().items()}, offset=1, text=_CHAT,
    ),
    "flux2": Family(
        "Flux2KleinPipeline", "Flux2Transformer2DModel",
        _MMDIT | {"in_channels": 16, "timestep_guidance_channels": 32, "axes_dims_rope": [4, 4, 4, 4], "guidance_embeds": False,
         "joint_attention_dim": 3 * WIDTH},
        (1, 4, 16), lambda: _PICTURE | _pair(width=3 * WIDTH), unpack=lambda x: x.transpose(1, 2).reshape(1, 16, 2, 2),
        text=_CHAT | {"text_encoder": partial(_reader, 28)},
    ),
    "qwen_image": Family(
        "QwenImagePipeline", "QwenImageTransformer2DModel",
        {"in_channels": 16, "out_channels": 4, "num_layers": 2, "attention_head_dim": 16, "num_attention_heads": 2,
         "joint_attention_dim": WIDTH, "axes_dims_rope": (8, 4, 4)},
        (1, 4, 16), lambda: _PICTURE | _pair() | _masks("prompt_embeds_mask"), guides="true_cfg_scale", plain=False, text=_CHAT,
    ),
    "ltx": Family(
        "LTXPipeline", "LTXVideoTransformer3DModel",
        {"in_channels": 8, "out_channels": 8, "num_attention_heads": 2, "attention_head_dim": 16, "cross_attention_dim": 32,
         "num_layers": 1, "caption_channels": WIDTH},
        (1, 2, 8), lambda: _VIDEO | _pair() | _masks(dtype=torch.bool), text=_T5,
    ),
    "mochi": Family(
        "MochiPipeline", "MochiTransformer3DModel",
        {"patch_size": 2, "num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 2, "pooled_projection_dim": WIDTH,
         "text_embed_dim": WIDTH, "time_embed_dim": 4, "max_sequence_length": TOKENS},
        (1, 12, 2, 4, 4), lambda: _VIDEO | {"num_frames": 7} | _pair() | _masks(dtype=torch.bool),
        ("FlowMatchEulerDiscreteScheduler", {"invert_sigmas": True}), text=_T5,
    ),
    "chroma": Family(
        "ChromaPipeline", "ChromaTransformer2DModel",
        _MMDIT | {"in_channels": 16, "axes_dims_rope": (4, 4, 8), "approximator_hidden_dim": 32, "approximator_layers": 1,
         "approximator_num_channels": 16},
        (1, 4, 16), lambda: _PICTURE | _pair() | _masks(dtype=torch.bool), text=_T5,
    ),
    "sana": Family(
        "SanaPipeline", "SanaTransformer2DModel",
        {"patch_size": 1, "in_channels": 4, "out_channels": 4, "num_layers": 1, "num_attention_heads": 2, "attention_head_dim": 4,
         "num_cross_attention_heads": 2, "cross_attention_head_dim": 4, "cross_attention_dim": 8, "caption_channels": WIDTH,
         "sample_size": 32},
        (1, 4, 1, 1), lambda: _PICTURE | _pair() | _masks() | {"use_resolution_binning": False, "negative_prompt": None},
        ("DPMSolverMultistepScheduler", {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}), text=_CHAT,
    ),
    "cogview4": Family(
        "CogView4Pipeline", "CogView4Transformer2DModel",
        {"in_channels": 4, "out_channels": 4, "num_layers": 2, "attention_head_dim": 4, "num_attention_heads": 4,
         "text_embed_dim": WIDTH, "time_embed_dim": 8, "condition_dim": 4},
        (1, 4, 4, 4), lambda: _PICTURE | _pair(),
        ("FlowMatchEulerDiscreteScheduler", {"base_shift": 0.25, "max_shift": 0.75, "use_dynamic_shifting": True,
         "time_shift_type": "linear"}), text=_CHAT,
    ),
    "lumina": Family(
        "LuminaPipeline", "LuminaNextDiT2DModel",
        {"sample_size": 4, "in_channels": 4, "hidden_size": 8, "num_layers": 2, "num_attention_heads": 1, "num_kv_heads": 1,
         "multiple_of": 16, "cross_attention_dim": WIDTH},
        (1, 4, 4, 4), lambda: _PICTURE | _pair() | _masks(), plain=False, text=_CHAT,
    ),
    "lumina2": Family(
        "Lumina2Pipeline", "Lumina2Transformer2DModel",
        {"sample_size": 4, "in_channels": 4, "hidden_size": 8, "num_layers": 2, "num_attention_heads": 1, "num_kv_heads": 1,
         "multiple_of": 16, "axes_dim_rope": (4, 2, 2), "cap_feat_dim": WIDTH},
        (1, 4, 4, 4), lambda: _PICTURE | _pair() | _masks(), plain=False, text=_CHAT,
    ),
    "kandinsky5": Family(
        "Kandinsky5T2VPipeline", "Kandinsky5Transformer3DModel",
        {"in_visual_dim": 16, "out_visual_dim": 16, "in_text_dim": WIDTH, "in_text_dim2": WIDTH, "time_dim": 16, "model_dim": 16,
         "ff_dim": 32, "num_text_blocks": 1, "num_visual_blocks": 1, "axes_dims": (1, 1, 2)},
        (1, 3, 4, 4, 16),
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
        (1, 4, 4, 4), lambda: _PICTURE | _pair() | _masks(), text=_T5,
    ),
    "cogvideox": Family(
        "CogVideoXPipeline", "CogVideoXTransformer3DModel",
        {"num_attention_heads": 2, "attention_head_dim": 16, "in_channels": 4, "out_channels": 4, "time_embed_dim": 2,
         "text_embed_dim": WIDTH, "num_layers": 1, "sample_width": 4, "sample_height": 4, "sample_frames": 5,
         "max_text_seq_length": TOKENS},
        (1, 3, 4, 4, 4), lambda: _VIDEO | _pair(), _COGVIDEO, text=_T5,
    ),
    "hunyuan_video": Family(
        "HunyuanVideoPipeline", "HunyuanVideoTransformer3DModel",
        {"in_channels": 4, "out_channels": 4, "num_attention_heads": 2, "attention_head_dim": 10, "num_layers": 1,
         "num_single_layers": 1, "num_refiner_layers": 1, "patch_size": 1, "patch_size_t": 1, "guidance_embeds": True,
         "text_embed_dim": WIDTH, "pooled_projection_dim": WIDTH, "rope_axes_dim": (2, 4, 4)},
        (1, 4, 3, 4, 4),
        lambda: _VIDEO | _pair() | _masks() | {"pooled_prompt_embeds": _text(5)[:, 0],
         "negative_pooled_prompt_embeds": _text(6)[:, 0]},
        guides="true_cfg_scale", text=_CHAT | _CLIP,
    ),
}  # fmt: skip


def build(name: str, reads: bool = False) -> Any:
    """The pipeline, with weights that are the same every time and as large as those of trained networks; where it reads, with encoders."""
    import diffusers

    family = ZOO[name]
    torch.manual_seed(0)
    kind = getattr(diffusers, family.pipeline)
    with quiet():
        parts: dict[str, Any] = {part: None for part in inspect.signature(kind.__init__).parameters if part != "self"}
        parts["transformer"] = _network(family)
        parts["scheduler"] = getattr(diffusers, family.scheduler[0])(**family.scheduler[1])
        parts |= {part: make() for part, make in family.text.items()} if reads else {}
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
    """Keeps the noise and the last state of the loop; where `leaves`, it leaves the pipeline there: there is nothing to decode with."""

    leaves = False

    def _start(self, *given: Any) -> Any:
        run = super()._start(*given)
        self.noise = run.x / self.plan.rows[0].x
        return run

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


class Leaving(Recording):
    leaves = True


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
        inverted = bool(stock.config.get("invert_sigmas"))
        if inverted:
            probe.node, probe.level = replace(node, t=1000 - node.t), node.alpha
        self.pipe.scheduler = probe
        try:
            call(self.pipe, self.family, x, num_inference_steps=2, **{self.family.guides: scale})
        except Answer as answer:
            state, output = answer.args
            assert torch.allclose(state, x, rtol=1e-6)
            return -output if inverted else output
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


# Beside the model that is loaded of a pipeline -------------------------------------------------------------------------


def options(name: str, prompts: Path, **more: Any) -> Options:
    """How a family is loaded."""
    size = {key: value for key, value in ZOO[name].call().items() if key in ("height", "num_frames")}
    return Options(device="cpu", prompts=prompts, resolution=size["height"], frames=size.get("num_frames"), **more)


def load(name: str, folder: Path) -> Model:
    """The model of a family, which is built and saved in the folder."""
    build(name, reads=True).save_pretrained(folder / name)
    (folder / "prompts.txt").write_text("\n".join(tiny.CAPTIONS))
    return pipelines.load(str(folder / name), options(name, folder / "prompts.txt"))


def asked(pipe: Any, options: Options, prompt: Any = tiny.CAPTIONS[0]) -> dict[str, Any]:
    """What the pipeline is called with as the model of these options is, but for the scale of guidance and what attach says."""
    asking = Asking.of(Guest(pipe, "cpu"), options)
    return {name: value for name, value in asking.arguments(prompt).items() if name != asking.guides}


def plan_for(model: Model, kind: str = "", nfe: int = 3) -> Plan:
    """A plan of no published solver; kind is "split", "per node" or nothing."""
    rng, start, end = np.random.default_rng(0), model.schedule.t_start, model.schedule.t_end
    times = [start + (end - start) * u for u in np.linspace(0.02, 0.9, nfe)]
    nodes = [model.schedule.node(float(round(t)) if model.schedule.discrete else t) for t in times]
    table = trace(get("dpmpp_2m").rule, model.schedule, [*nodes, CLEAN])
    guidance = [model.guidance + (i if kind else 0) for i in range(nfe)]

    def moved(i: int, row: Row) -> Row:
        d = np.array([*row.d, *[0.0] * (i - len(row.d))]) + 0.03 * rng.standard_normal(i)
        return Row(row.x if i else 1.0, tuple(d.tolist()), tuple((0.1 * rng.standard_normal(i)).tolist()) if kind == "split" else ())

    table = Tableau(
        tuple(replace(node, guidance=g) for node, g in zip(table.nodes, guidance, strict=True)),
        tuple(moved(i, row) for i, row in enumerate(table.rows)),
    )
    return plan_of(model, table)


@torch.no_grad()
def differs(pipe: Any, model: Model, plan: Plan, arguments: dict[str, Any], attached: bool = True) -> float:
    """The result of the plan in the pipeline against that of the runtime on the model from the same noise, relative.

    Not attached, the pipeline guides by its own scale.
    """
    stock, scheduler = pipe.scheduler, Leaving.from_plan(plan, pipe.scheduler)
    if attached:
        arguments = arguments | scheduler.attach(pipe)
    else:
        pipe.scheduler, arguments = scheduler, arguments | {"num_inference_steps": plan.nfe}
    try:
        pipe(**arguments, generator=torch.Generator().manual_seed(0))
        raise AssertionError("the pipeline did not sample by the plan")
    except Answer:
        pass
    finally:
        scheduler.detach()
        pipe.scheduler = stock
    packing = model.network.packing if isinstance(model.network, Unpacked) else None
    noise, last = (packing.unpacked(each) if packing else each for each in (scheduler.noise, scheduler.last))
    conditions = None if model.conditions is None else model.conditions[:1].expand(len(noise))
    expected = plan.sample(Denoiser(model, conditions, split=plan.tableau.split), noise.float())
    return error(last.float(), expected)
