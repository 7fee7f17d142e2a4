"""Whether a plan and a model belong together, and the baseline that a plan is shown beside."""

from math import atan2

from solversearch.errors import UserError
from solversearch.judging.baselines import Baseline, baselines
from solversearch.judging.measures import rivals
from solversearch.judging.race import GEOMETRIC
from solversearch.models.base import Model
from solversearch.models.digest import is_of
from solversearch.plan import Plan
from solversearch.teacher import Teacher


def check_model(plan: Plan, model: Model) -> None:
    """Raises `UserError` where the plan is another model's.

    A plan belongs to the model whose digest it carries. One without, an imported scheduler, serves every model of its prediction
    type with its noise levels.
    """
    if plan.prediction_type != model.prediction_type:
        raise UserError(
            f"the plan is for a network that predicts {plan.prediction_type!r}, but model {model.name!r} predicts {model.prediction_type!r}"
        )
    if plan.tableau.anchored != (model.anchor is not None):
        have, has = ("have a beta", "no") if plan.tableau.anchored else ("have no beta", "an")
        raise UserError(f"the plan's nodes {have}, but model {model.name!r} has {has} anchor")
    own = plan.provenance
    if own.model_digest and not is_of(own.model_digest, model):
        weights, others = own.model_digest[:12], model.digest[:12]
        what = "before its code or a setting of it was changed" if weights == others else f"with weights {weights}"
        raise UserError(
            f"the plan was made for model {own.model!r} {what}, not for {model.name!r} with weights {others}; "
            f"make one for these with 'solversearch optimize --model {model.name} --nfe {plan.nfe}'"
        )
    for i, node in enumerate(plan.nodes):
        own_and_expected = {
            "is at the angle {:.3f} = atan2(sigma, alpha)": (atan2(node.sigma, node.alpha), float(model.schedule.angle(node.t))),
            "has the beta {:.3f}": (node.beta or 0.0, float(model.schedule.beta(node.t))),
        }
        for what, (found, expected) in own_and_expected.items():
            if not own.model_digest and abs(found - expected) > 0.05:
                raise UserError(
                    f"the plan is for another noise schedule: its evaluation {i}, t={node.t:g}, {what.format(found)}, where model "
                    f"{model.name!r} has {expected:.3f}"
                )


def reguided(plan: Plan, guidance: float) -> Plan:
    """The plan at another guidance scale: the same table, every node at that scale, no scores.

    Raises `UserError` where the plan has a guidance of its own at some node, or split guidance: its coefficients contain the scale.
    """
    if guidance == plan.guidance:
        return plan
    if plan.tableau.split or any(node.guidance != plan.guidance for node in plan.nodes):
        raise UserError(
            f"the plan's coefficients hold for guidance {plan.guidance:g} only, since it has "
            f"{'split guidance' if plan.tableau.split else 'a guidance of its own at some evaluations'}; leave out --guidance"
        )
    table = plan.tableau.guided(guidance)
    changed = {"guidance": guidance, "nodes": table.nodes, "network_calls": table.network_calls, "scores": ()}
    fields = {name: getattr(plan, name) for name in type(plan).model_fields if name != "digest"}
    return Plan(**{**fields, **changed})


def rival(plan: Plan, model: Model, teacher: Teacher, batch_size: int = 512) -> Baseline:
    """The best baseline of the plan's scores; where it has none, the one of the least geometric mean error on the teacher's noise."""
    integer = all(node.t == round(node.t) for node in plan.nodes)
    scores = [(row.solver, row.grid) for row in plan.scores if row.kind == "baseline"]
    if scores:
        try:
            known = baselines(model, plan.rival_nfe, plan.guidance, integer and plan.decisions.get("timesteps") == "whole", {scores[0]})
            return known[0]
        except UserError:  # a solver or grid that is no more
            pass
    found = rivals(model, plan.rival_nfe, plan.guidance, teacher, integer, batch_size, measures=(GEOMETRIC,))
    best = found.best(GEOMETRIC)
    return Baseline(best.solver, best.grid, best.table)
