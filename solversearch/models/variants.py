"""Cheaper stand-ins for a model's network: where they come from, and those that a plan calls."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from torch import nn

from solversearch.errors import UserError
from solversearch.models.base import Model, Network, Variant
from solversearch.models.digest import weights_digest
from solversearch.models.skipping import blocks_of, operations, reusing, skip_sets, without
from solversearch.plan import Plan

CLOSE = 1e-3
"""How far angles of two schedules may be apart."""


def with_skips(model: Model) -> Model:
    """The model with variants that do not run some blocks of its network, where blocks can be found."""
    return model if model.lacks else replace(model, variants={**skip_sets(model), **model.variants})


def with_others(model: Model, others: Sequence[tuple[str, Model]]) -> Model:
    """The model with the networks of other models of the same samples as variants, by name. Raises `UserError`."""
    return replace(model, variants={**model.variants, **{name: _variant(model, name, other) for name, other in others}})


def _variant(model: Model, name: str, other: Model) -> Variant:
    times = np.linspace(model.schedule.t_end, model.schedule.t_start, 17)
    apart = float(np.abs(model.schedule.angle(times) - other.schedule.angle(times)).max())
    for what, one, two in (
        ("samples of the shape", model.shape, other.shape),
        ("predictions of the type", model.prediction_type, other.prediction_type),
        ("conditions of the shape", _shape(model), _shape(other)),
    ):
        if one != two:
            raise UserError(f"--variant {name}: {other.name!r} has {what} {two}, and {model.name!r} {one}: it cannot stand in for it")
    if not apart < CLOSE:
        raise UserError(f"--variant {name}: {other.name!r} has other noise levels than {model.name!r}: it cannot stand in for it")
    return variant_of(model, other.network, other.weights)


def variant_of(model: Model, network: Network, weights: str = "") -> Variant:
    """A network with the arguments of the model's own; its cost is that of its multiplications. weights is a digest, where it is no
    module. Raises `UserError`."""
    own, others = operations(model, model.network), operations(model, network)
    if not own or not others:
        raise UserError(f"the network of {model.name!r}, or a variant of it, has no multiplications to count: what it costs is not known")
    return Variant(network, others / own, weights_digest(network) if isinstance(network, nn.Module) else weights)


def _shape(model: Model) -> tuple[int, ...] | None:
    return None if model.conditions is None else tuple(model.conditions.shape)


def of_plan(model: Model, plan: Plan) -> Model:
    """The model with the variants that a plan calls. Raises `UserError` where it cannot have them."""
    found = {}
    for name, each in plan.variants.items():
        if each.skips:
            try:
                made = reusing(model, blocks_of(model, each.skips)) if each.reuses_features else without(model, each.skips)
                found[name] = replace(made, cost=each.cost)
            except KeyError as error:
                raise UserError(f"the plan's variant {name!r} leaves out {error}, which is no block of {model.name!r}") from None
        elif name not in model.variants:
            raise UserError(
                f"the plan calls a variant {name!r} of the network, which {model.name!r} is loaded without: --variant {name}=MODEL"
            )
        elif model.variants[name].digest != each.digest:
            raise UserError(f"the plan was made with another variant {name!r} of the network: other weights than those given")
    return replace(model, variants={**model.variants, **found})
