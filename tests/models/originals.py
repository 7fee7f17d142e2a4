"""Checkpoints in a single file, made of tiny pipelines: the names that Stable Diffusion's own program gives the tensors.

Written from the tables of those programs for two levels of one layer each; no part of diffusers is asked.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

State = dict[str, Tensor]

_RESNET = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
           "conv2": "out_layers.3", "conv_shortcut": "skip_connection"}  # fmt: skip
_UNET = {
    "conv_in": "input_blocks.0.0", "down_blocks.0.resnets.0": "input_blocks.1.0",
    "down_blocks.0.downsamplers.0.conv": "input_blocks.2.0.op",
    "down_blocks.1.resnets.0": "input_blocks.3.0", "down_blocks.1.attentions.0": "input_blocks.3.1",
    "mid_block.resnets.0": "middle_block.0", "mid_block.attentions.0": "middle_block.1", "mid_block.resnets.1": "middle_block.2",
    "up_blocks.0.resnets.0": "output_blocks.0.0", "up_blocks.0.attentions.0": "output_blocks.0.1",
    "up_blocks.0.resnets.1": "output_blocks.1.0", "up_blocks.0.attentions.1": "output_blocks.1.1",
    "up_blocks.0.upsamplers.0.conv": "output_blocks.1.2.conv",
    "up_blocks.1.resnets.0": "output_blocks.2.0", "up_blocks.1.resnets.1": "output_blocks.3.0",
    "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2", "conv_norm_out": "out.0", "conv_out": "out.2",
    "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2",
}  # fmt: skip
_VAE = {
    "down_blocks.0.downsamplers.0": "down.0.downsample", "down_blocks.0.resnets": "down.0.block", "down_blocks.1.resnets": "down.1.block",
    "up_blocks.0.resnets": "up.1.block", "up_blocks.1.resnets": "up.0.block", "up_blocks.0.upsamplers.0": "up.1.upsample",
    "mid_block.resnets.0": "mid.block_1", "mid_block.resnets.1": "mid.block_2", "mid_block.attentions.0": "mid.attn_1",
    "conv_norm_out": "norm_out", "conv_shortcut": "nin_shortcut", "attn_1.group_norm": "attn_1.norm", "to_q": "q", "to_k": "k", "to_v": "v",
    "to_out.0": "proj_out",
}  # fmt: skip
_OPEN = {
    "layers.": "transformer.resblocks.", "layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj", "encoder.": "", "final_layer_norm": "ln_final",
    "embeddings.token_embedding": "token_embedding", "embeddings.position_embedding.weight": "positional_embedding",
}  # fmt: skip


def checkpoint(pipe: Any, file: Path) -> Path:
    """The pipeline of Stable Diffusion 1, 2 or XL in one file."""
    state = _named("model.diffusion_model.", _unet(pipe.unet.state_dict())) | _named("first_stage_model.", _vae(pipe.vae.state_dict()))
    if hasattr(pipe, "text_encoder_2"):
        state |= _named("conditioner.embedders.0.transformer.text_model.", _clip(pipe.text_encoder))
        state |= _named("conditioner.embedders.1.model.", _open_clip(pipe.text_encoder_2))
    elif pipe.scheduler.config.prediction_type == "v_prediction":
        state |= _named("cond_stage_model.model.", _open_clip(pipe.text_encoder))
    else:
        state |= _named("cond_stage_model.transformer.text_model.", _clip(pipe.text_encoder))
    save_file({name: tensor.contiguous().clone() for name, tensor in state.items()}, file, {"format": "pt"})
    return file


def _named(prefix: str, state: State) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def _renamed(name: str, table: dict[str, str]) -> str:
    for theirs, ours in table.items():
        name = name.replace(theirs, ours)
    return name


def _unet(state: State) -> State:
    found = {}
    for name, tensor in state.items():
        place = next(each for each in _UNET if name == each or name.startswith(each + "."))
        rest = name.removeprefix(place)
        found[_UNET[place] + (_renamed(rest, _RESNET) if ".resnets." in place else rest)] = tensor
    return found


def _vae(state: State) -> State:
    """Its attention has convolutions of one pixel."""
    return {_renamed(name, _VAE): tensor[:, :, None, None] if ".attentions." in name and tensor.ndim == 2 else tensor
            for name, tensor in state.items()}  # fmt: skip


def _clip(encoder: Any) -> State:
    return {name.removeprefix("text_model."): tensor for name, tensor in encoder.state_dict().items() if "position_ids" not in name}


def _open_clip(encoder: Any) -> State:
    state, found = _clip(encoder), {}
    for name, tensor in state.items():
        if ".q_proj." in name:
            q, k, v = (state[name.replace("q_proj", each)] for each in ("q_proj", "k_proj", "v_proj"))
            layer, _, kind = name.partition(".self_attn.q_proj.")
            found[_renamed(layer, _OPEN) + f".attn.in_proj_{kind}"] = torch.cat([q, k, v])
        elif name == "text_projection.weight":
            found["text_projection"] = tensor.T
        elif "_proj." not in name.replace("out_proj", ""):
            found[_renamed(name, _OPEN)] = tensor
    return found
