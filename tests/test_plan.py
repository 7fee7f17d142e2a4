"""The plan file is a promise: exact bytes, nothing lost, nothing foreign accepted, and one line that says what is wrong."""

import json
import math
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import jsonschema
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from solversearch import plan as plan_module
from solversearch.components import Components
from solversearch.errors import UserError, one_line
from solversearch.export.shipped import reader
from solversearch.plan import MAX_BYTES, MAX_DEPTH, Interval, Plan, PlanVariant, Provenance, Score, Threshold, schema, write_text
from solversearch.runtime import Node, Row, Start, used
from tests.assets import make_attacks, make_plan_v1, make_plans

ASSETS = Path(__file__).parent / "assets"
GOLDEN, GOLDEN_2, GOLDEN_3, GOLDEN_4, GOLDEN_5 = (ASSETS / f"plan_v{version}.json" for version in (1, 2, 3, 4, 5))
ATTACKS = {
    "alpha_negative": "node 1 ",
    "binary": "Invalid JSON",
    "control_characters_in_key": "unknown key",
    "count_as_fraction": "nfe: ",
    "cut_off": "Invalid JSON",
    "deep_decisions": "decisions: ",
    "deep_lists": "Invalid JSON",
    "deep_objects": "Invalid JSON",
    "digest_empty": "digest: ",
    "digest_malformed": "digest: ",
    "digest_mismatch": "the digest does not match",
    "duplicate_key": "nfe: the key stands twice",
    "duplicate_key_in_decisions": "order: the key stands twice",
    "empty": "Invalid JSON",
    "endless_integer": "Invalid JSON",
    "endless_key": "unknown key",
    "epsilon_at_pure_noise": "nodes: ",
    "half_a_surrogate_pair": "Invalid JSON",
    "infinity_literal": "rows.1.x: ",
    "large_seed": "provenance.seed: ",
    "limit_zero": "threshold.limit: ",
    "list": "object",
    "missing_digest": "digest: missing",
    "missing_format": "format: missing",
    "missing_network_calls": "network_calls: ",
    "missing_nfe": "nfe: ",
    "missing_nodes": "nodes: ",
    "missing_provenance": "provenance: ",
    "missing_rows": "rows: ",
    "missing_version": "version: missing",
    "nan_in_decisions": "decisions: ",
    "nan_literal": "rows.1.x: ",
    "network_calls_mismatch": "network_calls is 3, but the table spends 6",
    "nfe_absurd": "nfe: ",
    "nfe_mismatch": "nfe is 2, but the table spends 3",
    "no_nodes": "nodes: ",
    "not_json": "Invalid JSON",
    "number_as_boolean": "rows.0.x: ",
    "number_as_text": "rows.1.d.0: ",
    "overflow_to_infinity": "rows.1.x: ",
    "percentile_above_one": "threshold.percentile: ",
    "row_reads_a_future_difference": "row 0 reads the future",
    "row_reads_the_future": "row 1 reads the future",
    "row_without_x": "rows.1.x: ",
    "rows_not_a_list": "rows: ",
    "sigma_zero": "node 1 ",
    "too_few_rows": "3 nodes and 2 rows",
    "too_many_fresh_noises": "rows: ",
    "too_many_nodes": "nodes: ",
    "two_objects": "Invalid JSON",
    "unknown_format": "format: ",
    "unknown_key": "extra: unknown key",
    "unknown_key_in_interval": "scores.1.endpoint_mse.extra: unknown key",
    "unknown_key_in_node": "nodes.0.extra: unknown key",
    "unknown_key_in_provenance": "provenance.extra: unknown key",
    "unknown_key_in_row": "rows.2.extra: unknown key",
    "unknown_key_in_score": "scores.0.extra: unknown key",
    "unknown_key_in_threshold": "threshold.extra: unknown key",
    "unknown_prediction_type": "prediction_type: ",
    "unknown_threshold": "threshold.kind: ",
    "unknown_version": "version: ",
    "utf16": "Invalid JSON",
    "components_in_version_1": "version: 2 is that of plans with components",
    "no_components_in_version_1": "components: unknown key",
    "no_components_in_version_2": "version: 2 is that of plans with components",
    "version_1_with_components": "version: 2 is that of plans with components",
    "one_component": "two bands or two channels at least",
    "unknown_key_in_components": "components.extra: unknown key",
    "bands_out_of_order": "bands must ascend",
    "bands_twice": "bands must ascend",
    "band_zero": "bands must ascend",
    "band_above_one": "bands must ascend",
    "too_many_bands": "at most 64 bands",
    "channels_not_orthonormal": "the channel directions 0 and 0 are not orthonormal",
    "channels_that_repeat": "the channel directions 0 and 1 are not orthonormal",
    "channels_ragged": "as many directions as a direction has numbers",
    "too_many_channels": "128 channel directions",
    "patch_negative": "components.patch: ",
    "patch_as_fraction": "components.patch: ",
    "too_few_coefficients": "row 1 has a coefficient of 1 components",
    "coefficients_as_texts": "rows.1.x.0: ",
    "coefficients_in_lists": "rows.1.x.0: ",
    "coefficients_without_components": "row 1 has a coefficient of 6 components, the table has none",
    "digest_mismatch_in_a_component": "the digest does not match",
    "unknown_guidance_difference": "nodes.1.guidance_difference: ",
    "reuse_in_version_1": "version: 2 is that of plans with components, 3 that of plans with nodes that reuse differences",
    "reuse_in_version_2": "version: 2 is that of plans with components, 3 that of plans with nodes that reuse differences",
    "guidance_difference_in_version_1": "nodes: guidance_difference: unknown key; version 1 has none",
    "guidance_difference_in_version_2": "nodes: guidance_difference: unknown key; version 2 has none",
    "nothing_new_in_version_3": "version: 2 is that of plans with components",
    "variants_in_version_1": "variants: unknown key; version 1 has none",
    "variants_in_version_2": "variants: unknown key; version 2 has none",
    "variant_of_a_node_in_version_1": "nodes: variant: unknown key; version 1 has none",
    "variant_that_nobody_declares": "variants: they have to be those that nodes call",
    "variant_that_no_node_calls": "variants: they have to be those that nodes call",
    "variant_for_nothing": "variants.small.cost: ",
    "variant_that_pays": "variants.small.cost: ",
    "variant_without_a_cost": "variants.small.cost: ",
    "variant_with_an_unknown_key": "variants.small.speed: unknown key",
    "variant_as_a_number": "nodes.2.variant: ",
    "digest_mismatch_in_a_cost": "the digest does not match",
    "features_of_no_block": "variants.small: reuses_features: of which blocks, skips has to say",
    "features_that_nobody_computed": "nodes: 0 reuses features, but none before it computed them",
    "features_as_a_number": "variants.small.reuses_features: ",
    "digest_mismatch_in_features": "the digest does not match",
    "reuse_of_one_that_guides": "node 2 reuses guidance differences, so its guidance is 1, got 7.5",
    "reuse_of_its_own_difference": "node 1 reuses guidance differences, but a row has a coefficient for its own",
    "reuse_of_no_difference": "nodes: some reuse guidance differences, but no row has a coefficient for one",
    "reuse_that_costs_two": "network_calls is 6, but the table spends 4",
    "digest_mismatch_in_a_guidance_difference": "the digest does not match",
    "start_in_version_1": "start: unknown key; version 1 has none",
    "start_in_version_2": "start: unknown key; version 2 has none",
    "start_in_version_3": "start: unknown key; version 3 has none",
    "version_4_without_a_start": "4 that of plans with a start",
    "version_3_with_a_start": "4 that of plans with a start",
    "start_without_a_picture": "start: a start needs finite numbers, alpha > 0 and sigma > 0",
    "start_without_noise": "start: a start needs finite numbers, alpha > 0 and sigma > 0",
    "start_without_a_time": "start.t: ",
    "start_as_a_share": "start: ",
    "start_with_an_unknown_key": "start.guidance: unknown key",
    "digest_mismatch_in_a_start": "the digest does not match",
    "beta_in_version_1": "nodes: beta: unknown key; version 1 has none",
    "beta_in_version_2": "nodes: beta: unknown key; version 2 has none",
    "beta_in_version_3": "nodes: beta: unknown key; version 3 has none",
    "beta_in_version_4": "nodes: beta: unknown key; version 4 has none",
    "version_4_with_a_beta": "5 that of plans with nodes that have a beta",
    "version_5_without_a_beta": "5 that of plans with nodes that have a beta",
    "beta_of_one_node": "all nodes have a finite beta, or none has one",
    "beta_as_a_text": "nodes.1.beta: ",
    "beta_of_infinity": "nodes.1.beta: ",
    "digest_mismatch_in_a_beta": "the digest does not match",
}
"""What the message for each file of attacks/ names."""
NOT_JSON = {name for name, fragment in ATTACKS.items() if fragment == "Invalid JSON"}
NOT_JSON |= {"nan_literal", "infinity_literal", "overflow_to_infinity", "nan_in_decisions", "beta_of_infinity"}
BEYOND_A_SCHEMA = {  # legal JSON of legal parts: only the whole is wrong
    "deep_decisions", "digest_mismatch", "duplicate_key", "duplicate_key_in_decisions", "epsilon_at_pure_noise", "network_calls_mismatch",
    "nfe_mismatch", "row_reads_a_future_difference", "row_reads_the_future", "sigma_zero", "alpha_negative", "too_few_rows",
    "too_many_fresh_noises", "components_in_version_1", "no_components_in_version_1", "no_components_in_version_2",
    "version_1_with_components",
    "one_component", "bands_out_of_order", "bands_twice", "band_zero", "band_above_one", "too_many_bands", "channels_not_orthonormal",
    "channels_that_repeat", "channels_ragged", "too_many_channels", "too_few_coefficients", "coefficients_without_components",
    "digest_mismatch_in_a_component", "reuse_in_version_1", "reuse_in_version_2", "guidance_difference_in_version_1",
    "guidance_difference_in_version_2", "nothing_new_in_version_3", "reuse_of_one_that_guides", "reuse_of_its_own_difference",
    "reuse_of_no_difference", "reuse_that_costs_two", "digest_mismatch_in_a_guidance_difference", "variants_in_version_1",
    "variants_in_version_2", "variant_of_a_node_in_version_1", "variant_that_nobody_declares", "variant_that_no_node_calls",
    "digest_mismatch_in_a_cost", "start_in_version_1", "start_in_version_2", "start_in_version_3", "version_4_without_a_start",
    "version_3_with_a_start", "start_without_a_picture", "start_without_noise", "digest_mismatch_in_a_start",
    "features_of_no_block", "features_that_nobody_computed", "digest_mismatch_in_features", "beta_in_version_1", "beta_in_version_2",
    "beta_in_version_3", "beta_in_version_4", "version_4_with_a_beta", "version_5_without_a_beta", "beta_of_one_node",
    "digest_mismatch_in_a_beta",
}  # fmt: skip


def plan(**changes: Any) -> Plan:
    """A small legal plan."""
    fields: dict[str, Any] = {
        "prediction_type": "sample",
        "guidance": 1.0,
        "nfe": 1,
        "network_calls": 1,
        "nodes": (Node(1.0, 0.5, 0.5),),
        "rows": (Row(1.0), Row(0.0, (1.0,))),
        "provenance": Provenance(model="digits", model_digest=""),
    }
    return Plan(**{**fields, **changes})


# What is written ---------------------------------------------------------------------------------------------


def test_exact_bytes(tmp_path: Path) -> None:
    old = Plan.read(GOLDEN)  # whose digest is of the spelling, with a negative zero
    old.write(tmp_path / "new" / "plan.json")
    assert (tmp_path / "new" / "plan.json").read_bytes() == GOLDEN.read_bytes()
    made = make_plan_v1.make()
    assert made.text() == GOLDEN.read_text(encoding="utf-8").replace(old.digest, made.digest)


def test_digest_as_documented() -> None:
    import hashlib

    content = json.loads(GOLDEN.read_text(encoding="utf-8"))
    digest = content.pop("digest")
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert digest == "sha256:" + hashlib.sha256(text.encode()).hexdigest() == Plan.read(GOLDEN).digest
    assert text.count("-0.0") == 1
    now = "sha256:" + hashlib.sha256(text.replace("-0.0", "0.0").encode()).hexdigest()
    assert now == Plan.read(GOLDEN).content_digest() == make_plan_v1.make().digest


def test_a_plan_with_components_reads_back_and_is_written_as_it_was() -> None:
    made, kept = make_plans.version_2(), Plan.read(GOLDEN_2)
    assert made == kept and made.text() == GOLDEN_2.read_text(encoding="utf-8")
    assert made.digest == kept.content_digest() != Plan.read(GOLDEN).content_digest()


def test_a_plan_that_reuses_differences_reads_back_and_is_written_as_it_was() -> None:
    made, kept = make_plans.version_3(), Plan.read(GOLDEN_3)
    assert made == kept and made.text() == GOLDEN_3.read_text(encoding="utf-8")
    assert made.digest == kept.content_digest() and made.network_calls == 2 + 1 + 1
    assert kept.text().count('"guidance_difference": "compute"') == 1 and '"components": null' in kept.text()


def test_a_plan_has_to_beat_what_costs_as_much() -> None:
    assert plan().rival_nfe == 1 and Plan.read(GOLDEN_3).rival_nfe == 4 // 2 and Plan.read(GOLDEN).rival_nfe == Plan.read(GOLDEN).nfe
    node = Node(1.0, 0.5, 0.5)
    half = plan(guidance=2.0, nfe=2, network_calls=3, nodes=(replace(node, guidance=2.0), node), rows=(Row(1.0), Row(1.0), Row(1.0)))
    assert half.rival_nfe == 2  # not less than it costs
    kept = Plan.read(GOLDEN_3)
    assert kept.price == 2 + 1 + 0.25 and kept.network_calls == 4


def test_the_digest_of_a_table_is_of_what_its_nodes_compute() -> None:
    """Nodes and rows alone, by PLAN_FORMAT.md: a node that reuses is another one, and files of other versions have no such key."""
    import hashlib

    for golden, keys in (
        (GOLDEN, ("nodes", "rows")),
        (GOLDEN_3, ("nodes", "rows", "variants")),
        (GOLDEN_4, ("nodes", "rows", "start")),
        (GOLDEN_5, ("nodes", "rows")),
    ):
        content = json.loads(golden.read_text(encoding="utf-8").replace("-0.0", "0.0"))
        text = json.dumps({key: content[key] for key in keys}, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        assert Plan.read(golden).table_digest() == "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def test_a_sample_of_nodes_that_reuse_is_what_it_says(tmp_path: Path) -> None:
    """By hand: D_c alone at the second and third node, the difference of the first in the last two rows."""
    kept, asked, x = Plan.read(GOLDEN_3), list[int](), np.array([[0.5, -1.0]])

    def conditional(x: Any, node: Node) -> Any:
        return 0.5 * x + node.alpha

    def denoise(x: Any, node: Node) -> Any:
        asked.append(1 if node.reuses else 2)
        c, u = conditional(x, node), x - node.sigma
        return c if node.reuses else (u + node.guidance * (c - u), c - u)

    nodes, rows = kept.nodes, kept.rows
    difference = conditional(x, nodes[0]) - (x - 1.0)
    first = x - 1.0 + 7.5 * difference
    second = conditional(0.9 * x + 0.375 * first, nodes[1])
    third = conditional(0.6 * x - 0.25 * first + 0.7 * second + 2 / 3 * difference, nodes[2])
    expected = -0.125 * second + 1.125 * third + 2.5 * difference
    assert np.abs(kept.sample(denoise, x) - expected).max() < 1e-14 * np.abs(expected).max() and len(rows) == 4
    assert asked == [2, 1, 1] and sum(asked) == kept.network_calls


def test_a_plan_that_starts_from_pictures_reads_back_and_samples_as_it_says() -> None:
    """By hand: the noised picture in the place of the noise in every row."""
    made, kept = make_plans.version_4(), Plan.read(GOLDEN_4)
    assert made == kept and made.text() == GOLDEN_4.read_text(encoding="utf-8") and made.digest == kept.content_digest()
    picture, noise = np.array([[0.5, -1.0]]), np.array([[2.0, 0.25]])
    x = 0.48 * picture + 0.88 * noise
    first = x / 2 + 500
    second = (0.375 * x + 2 / 3 * first) / 2 + 125
    assert np.abs(kept.sample(lambda x, node: x / 2 + node.t, noise, picture) - (-0.125 * first + 1.125 * second)).max() < 1e-12
    half = kept.sample(lambda x, node: x, noise.astype(np.float16), picture.astype(np.float16))
    assert half.dtype == np.float16
    with pytest.raises(ValueError, match="starts from a noised picture: give it one"):
        kept.sample(lambda x, node: x, noise)
    with pytest.raises(ValueError, match="starts from noise: leave the picture out"):
        plan().sample(lambda x, node: x, noise, picture)


def test_a_plan_with_betas_reads_back_and_samples_as_it_says() -> None:
    """By hand: the network sees each state with its share of the anchor, rows do not, and the result has none."""
    made, kept = make_plans.version_5(), Plan.read(GOLDEN_5)
    assert made == kept and made.text() == GOLDEN_5.read_text(encoding="utf-8") and made.digest == kept.content_digest()
    assert "beta" not in make_plans.version_4().text() and kept.tableau.anchored
    y, noise = np.array([[0.5, -1.0]]), np.array([[2.0, 0.25]])
    first = np.tanh(0.4 * noise + 0.995 * y + 1.0)
    second = np.tanh(0.375 * noise + 0.245 * first + 0.75 * y + 0.25)
    sampled = kept.sample(lambda x, node: np.tanh(x + node.t), noise, anchor=y)
    assert np.abs(sampled - (-0.125 * first + 1.125 * second)).max() < 1e-12
    with pytest.raises(ValueError, match="the plan's nodes have a beta: give anchor=, what each sample is made of"):
        kept.sample(lambda x, node: x, noise)
    with pytest.raises(ValueError, match="the plan's nodes have no beta: leave the anchor out"):
        plan().sample(lambda x, node: x, noise, anchor=y)


def test_features_are_written_only_where_they_are_reused() -> None:
    made = make_plans.version_3()
    fields = {name: getattr(made, name) for name in Plan.model_fields if name != "digest"}
    other = Plan(**fields | {"variants": {"small": PlanVariant(cost=0.25, skips=("blocks.1",), reuses_features=True)}})
    assert "reuses_features" not in made.text() and json.loads(other.text())["variants"]["small"]["reuses_features"] is True
    said = other.text().replace('"reuses_features": true', '"reuses_features": false')
    for text, plan in ((other.text(), other), (said.replace(other.digest, _left_out(fields).digest), _left_out(fields))):
        assert Plan.parse(text) == plan and reader.parse(text).digest == plan.digest
    assert other.table_digest() != _left_out(fields).table_digest()


def _left_out(fields: dict[str, Any]) -> Plan:
    return Plan(**fields | {"variants": {"small": PlanVariant(cost=0.25, skips=("blocks.1",))}})


def test_the_digest_of_a_table_is_of_its_components_too() -> None:
    made = make_plans.version_2()
    fields = {name: getattr(made, name) for name in Plan.model_fields if name != "digest"}
    other = Plan(**fields | {"components": Components((0.05, 0.2, 0.9), made.components.channels, 2)})  # type: ignore[union-attr]
    assert other.table_digest() != made.table_digest()


def test_every_key_is_documented() -> None:
    page = (Path(plan_module.__file__).parent / "PLAN_FORMAT.md").read_text()
    names = {*Plan.model_fields, "alpha", "sigma", "beta", "t", "d", "delta", "z", "clamp", "dynamic", "model_digest"}
    assert not [name for name in names if f"`{name}`" not in page]
    example = re.search(r'    \{"format".*?\.\.\."\}\n', page, re.DOTALL)
    assert example and Plan.model_validate_json(example[0].replace('"digest": "sha256:..."', '"guidance": 1.0')).nfe == 1


number = st.floats(allow_nan=False, allow_infinity=False)
text = st.text(max_size=8)
json_value = st.recursive(
    st.none() | st.booleans() | st.integers() | number | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)
interval = st.builds(Interval, mean=number, low=number, high=number, median=st.none() | number)
count = st.integers(0, 2**53)
score = st.builds(
    Score, name=text, kind=st.sampled_from(["plan", "baseline"]), solver=text, grid=text, nfe=count, network_calls=count,
    samples=count, endpoint_mse=interval, frechet_teacher=st.none() | interval,
)  # fmt: skip


PARTS = (Components((0.1, 1.0)), Components((), ((0.6, 0.8), (-0.8, 0.6))), Components((0.02, 0.3, 0.9), ((0.6, 0.8), (-0.8, 0.6)), 2))


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    n = draw(st.integers(1, 4))
    guidance = draw(number)
    nodes = [
        Node(draw(number), draw(st.floats(1e-300, 1e300)), draw(st.floats(1e-300, 1e300)), draw(st.sampled_from([1.0, guidance])))
        for _ in range(n)
    ]
    betas = draw(st.none() | st.lists(number, min_size=n, max_size=n))
    if betas:
        nodes = [replace(node, beta=beta) for node, beta in zip(nodes, betas, strict=True)]
    rows, components = [], draw(st.none() | st.sampled_from(PARTS))
    each: st.SearchStrategy[Any] = number
    if components:
        each = number | st.tuples(*[number] * len(components))
    for i in range(n + 1):
        d, delta, z = (tuple(draw(st.lists(each, max_size=most))) for most in (i, i if draw(st.booleans()) else 0, 3))
        rows.append(Row(draw(each), d, delta, z))
    split = any(used(row.delta) for row in rows)
    for i, node in enumerate(nodes):
        if split and node.guidance == 1 and not any(used(row.delta[i : i + 1]) for row in rows) and draw(st.booleans()):
            nodes[i] = replace(node, guidance_difference="reuse")
    reuse = [node.guidance_difference == "reuse" for node in nodes]
    start = draw(st.none() | st.builds(Start, number, st.floats(1e-300, 1e300), st.floats(1e-300, 1e300)))
    return Plan(
        version=5 if betas else 4 if start else 3 if any(reuse) else 2 if components else 1,
        start=start,
        components=components,
        prediction_type=draw(st.sampled_from(["epsilon", "v_prediction", "sample", "flow", "edm"])),
        guidance=guidance,
        nfe=n,
        network_calls=sum(2 if node.guidance != 1 or (split and not r) else 1 for node, r in zip(nodes, reuse, strict=True)),
        nodes=tuple(nodes),
        rows=tuple(rows),
        threshold=draw(st.none() | st.builds(Threshold, kind=st.sampled_from(["clamp", "dynamic"]), limit=st.floats(0.1, 9))),
        decisions=draw(st.dictionaries(text, json_value, max_size=3)),
        scores=tuple(draw(st.lists(score, max_size=2))),
        provenance=draw(st.builds(Provenance, model=text, model_digest=text, seed=st.none() | count)),
    )


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(plans())
def test_any_plan_survives_bit_for_bit(tmp_path: Path, original: Plan) -> None:
    path = tmp_path / "plan.json"
    original.write(path)
    back = Plan.read(path)
    assert back == original and back.digest == original.digest and back.text() == original.text()
    assert repr((back.nodes, back.rows)) == repr((original.nodes, original.rows))  # -0.0 == 0.0, but not here
    jsonschema.Draft202012Validator(SCHEMA).validate(json.loads(path.read_text(encoding="utf-8")))


def test_whole_numbers_become_floats() -> None:
    """1 and 1.0 are one number: the digest must not tell them apart."""
    assert plan(rows=(Row(1), Row(0, (1,)))) == plan()
    assert plan(rows=(Row(1), Row(0, (1,)))).digest == plan().digest
    parsed = Plan.parse(plan().text().replace('"guidance": 1.0', '"guidance": 1'))
    assert parsed == plan()


def test_digest_follows_every_change() -> None:
    original = make_plan_v1.make()
    assert original.with_scores(original.scores) == original
    fewer = original.with_scores(())
    assert fewer.digest != original.digest and fewer.rows == original.rows and fewer.scores == ()
    nudged = plan(rows=(Row(1.0), Row(0.0, (math.nextafter(1.0, 2.0),))))
    assert nudged.digest != plan().digest


def test_plans_are_immutable(tmp_path: Path) -> None:
    frozen = plan(decisions={"order": 2})
    with pytest.raises(ValidationError, match="frozen"):
        frozen.nfe = 2
    with pytest.raises(AttributeError):
        frozen.rows[0].x = 2.0  # type: ignore[misc]
    frozen.decisions["order"] = 3  # a dict cannot be frozen, so the writer looks
    with pytest.raises(ValueError, match="immutable"):
        frozen.write(tmp_path / "plan.json")
    with pytest.raises(ValueError, match="immutable"):
        plan().model_copy(update={"guidance": 2.0}).write(tmp_path / "plan.json")
    assert not any(tmp_path.iterdir())


def test_sample_runs_the_table_with_its_threshold() -> None:
    clipped = plan(threshold=Threshold(kind="clamp", limit=0.5))
    seen: list[int] = []
    result = clipped.sample(lambda x, node: 3 * x, np.ones((2, 3)), callback=lambda i, x, d: seen.append(i))
    assert result.tolist() == [[0.5] * 3] * 2 and seen == [0]
    assert plan().sample(lambda x, node: 3 * x, np.ones((2, 3))).tolist() == [[3.0] * 3] * 2
    dynamic = plan(threshold=Threshold(kind="dynamic", limit=0.5, percentile=1.0))
    assert dynamic.sample(lambda x, node: x, np.array([[0.5, 1.0, -2.0]])).tolist() == [[0.125, 0.25, -0.5]]


# What is refused ---------------------------------------------------------------------------------------------


def test_the_folder_of_attacks_is_the_one_that_its_script_makes() -> None:
    files = {path.name: path.read_bytes() for path in (ASSETS / "attacks").iterdir()}
    assert files == {f"{name}.json": content for name, content in make_attacks.attacks()}
    assert {Path(name).stem for name in files} == set(ATTACKS)


@pytest.mark.parametrize("name", sorted(ATTACKS))
def test_attacks_are_refused_in_one_line(name: str) -> None:
    path = ASSETS / "attacks" / f"{name}.json"
    with pytest.raises(UserError) as caught:
        Plan.read(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and ATTACKS[name] in message
    assert message.isprintable() and len(message) < len(str(path)) + 700


@pytest.mark.parametrize(
    "changes",
    [
        {"rows": (Row(math.nan), Row(1.0))},
        {"rows": (Row(1.0), Row(1.0, (math.inf,)))},
        {"rows": (Row(cast(float, "1")), Row(1.0))},
        {"rows": (Row(1.0), Row(1.0, cast(tuple[float], [1.0])))},
        {"nodes": (Node(math.nan, 1.0, 1.0),)},
        {"guidance": math.inf},
        {"nfe": True},
        {"decisions": {"a": math.nan}},
        {"decisions": {"a": "\ud800"}},
        {"decisions": {"a": 10**5000}},
        {"decisions": {"a": json.loads("[" * MAX_DEPTH + "]" * MAX_DEPTH)}},
        {"decisions": {"a": {1, 2}}},
        {"provenance": Provenance.model_construct(model=3, model_digest="")},  # type: ignore[arg-type]
    ],
)
def test_memory_is_held_to_the_rules_of_the_file(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        plan(**changes)


def test_deepest_decisions_can_be_read_back() -> None:
    deep = plan(decisions={"a": json.loads("[" * (MAX_DEPTH - 2) + "]" * (MAX_DEPTH - 2))})
    assert Plan.parse(deep.text()) == deep


def test_an_absurdly_large_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # a terabyte of nothing
    with pytest.raises(UserError, match="too large"):
        Plan.read(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"decisions": {"a": [' + b"[]," * 250_000 + b"[]]}}", "more than 250,000 lists and objects"),
        (b'{"decisions": {' + b'"a":1,' * 500_000 + b'"a":1}}', "more than 500,000 keys"),
        (b'{"nodes": [' + b"0," * 3_000_001 + b"0]}", "more than 3,000,000 values"),
        (b'{"nodes": [' + b"0," * 100_000 + b"0]}", "(and 7 more)"),
        (b'{"rows": [{"x": 1, "d": [' + b'"",' * 100_000 + b'""]}]}', "(and 7 more)"),
    ],
    ids=["lists", "keys", "values", "wrong nodes", "wrong coefficients"],
)
def test_a_small_file_does_not_fill_the_memory(content: bytes, message: str) -> None:
    """JSON of three bytes can take a kilobyte when it is parsed, and more when each member is a finding."""
    with pytest.raises(UserError) as caught:
        Plan.parse(content)
    assert message in str(caught.value)


def test_a_file_of_exactly_the_largest_size_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = plan()
    original.write(tmp_path / "plan.json")
    size = (tmp_path / "plan.json").stat().st_size
    monkeypatch.setattr(plan_module, "MAX_BYTES", size)
    assert Plan.read(tmp_path / "plan.json") == original
    monkeypatch.setattr(plan_module, "MAX_BYTES", size - 1)
    with pytest.raises(UserError, match=f"too large for a plan: more than {size - 1} bytes"):
        Plan.read(tmp_path / "plan.json")


@pytest.mark.parametrize(("changes", "more"), [({"nfe": 0}, ""), ({"nfe": 0, "guidance": "one"}, " (and 1 more)")])
def test_how_many_more_findings_there_are(tmp_path: Path, changes: dict[str, Any], more: str) -> None:
    (tmp_path / "plan.json").write_text(json.dumps(json.loads(plan().text()) | changes))
    with pytest.raises(UserError) as caught:
        Plan.read(tmp_path / "plan.json")
    assert str(caught.value).partition(" (and")[1:] == more.partition(" (and")[1:]


def test_a_newer_or_another_file_is_told_what_it_may_be(tmp_path: Path) -> None:
    for changes, hint in (({"version": 6}, "; a newer solversearch wrote this; update to read it"), ({"format": "x"}, "; is this a plan?")):
        (tmp_path / "plan.json").write_text(json.dumps(json.loads(plan().text()) | changes))
        with pytest.raises(UserError, match=re.escape(hint) + "$"):
            Plan.read(tmp_path / "plan.json")


def test_empty_lists_are_no_level_more() -> None:
    value: Any = []
    for _ in range(MAX_DEPTH - 2):
        value = [value]
    assert plan(decisions={"deep": value}).decisions == {"deep": value}
    with pytest.raises(ValidationError, match=f"decisions: nested deeper than {MAX_DEPTH}"):
        plan(decisions={"deep": [value]})


def test_bounds_of_what_is_told() -> None:
    assert one_line("x" * 200) == "x" * 200 and one_line("x" * 201) == "x" * 200 + "..."
    with pytest.raises(ValidationError, match="percentile"):
        Threshold(kind="dynamic", percentile=1.01)


def test_the_largest_plan_is_within_the_limits() -> None:
    full = plan(nfe=1000, network_calls=2000, guidance=2.0, nodes=tuple(Node(1.0, 0.5, 0.5, 2.0) for _ in range(1000)),
                rows=tuple(Row(0.1, (0.1,) * i, (0.1,) * i, (0.1,) * 1000) for i in range(1001)))  # fmt: skip
    assert Plan.parse(full.text()).digest == full.digest


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs /dev/zero")
def test_an_endless_device_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_module, "MAX_BYTES", 2**20)
    assert MAX_BYTES == 64 * 2**20
    with pytest.raises(UserError, match="too large"):
        Plan.read("/dev/zero")


@pytest.mark.parametrize("name", ["missing.json", "plan.json/inside", "empty", "empty\nfolder", "a\0b", "x" * 300, "new\nline"])
def test_unreadable_places(tmp_path: Path, name: str) -> None:
    (tmp_path / "plan.json").touch()
    for folder in ("empty", "empty\nfolder"):
        (tmp_path / folder).mkdir()
    with pytest.raises(UserError, match=r"cannot read the plan|there is no plan\.json in this folder") as caught:
        Plan.read(tmp_path / name)
    assert str(caught.value).isprintable() and str(tmp_path) in str(caught.value)


def test_no_permission_to_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(UserError, match=r"plan\.json: cannot read the plan: Permission denied$"):
        Plan.read(tmp_path / "plan.json")


def test_messages_are_one_printable_line() -> None:
    assert one_line("a\n\x1b[31m\u2028b") == "a\ufffd\ufffd[31m\ufffdb"
    assert one_line("x" * 500) == "x" * 200 + "..."


# The schema ----------------------------------------------------------------------------------------------------

SCHEMA = schema()


def test_schema_accepts_plans_and_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    validator = jsonschema.Draft202012Validator(SCHEMA)
    for original in (plan(), Plan.read(GOLDEN), Plan.read(GOLDEN_2), Plan.read(GOLDEN_3), Plan.read(GOLDEN_4)):
        validator.validate(json.loads(original.text()))


@pytest.mark.parametrize("name", sorted(set(ATTACKS) - NOT_JSON - BEYOND_A_SCHEMA))
def test_schema_refuses_what_a_schema_can(name: str) -> None:
    content = json.loads((ASSETS / "attacks" / f"{name}.json").read_text(encoding="utf-8"))
    assert not jsonschema.Draft202012Validator(SCHEMA).is_valid(content)


# Writing -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "plan.json"
    path.write_text("old")
    monkeypatch.setattr(os, step, fail)
    with pytest.raises(UserError, match=r"plan\.json: cannot write: No space left on device; choose"):
        plan().write(path)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_an_interrupted_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_text(tmp_path / "plan.json", "text")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["", "plan.json/inside", "a\0b", "x" * 300])
def test_places_that_cannot_be_written(tmp_path: Path, name: str) -> None:
    (tmp_path / "plan.json").write_text("old")
    with pytest.raises(UserError, match="cannot write") as caught:
        write_text(tmp_path / name, "text")
    assert str(caught.value).isprintable()
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]


def test_written_files_have_ordinary_permissions(tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    write_text(tmp_path / "plan.json", "å\n")
    assert (tmp_path / "plan.json").read_bytes() == "å\n".encode()
    assert (tmp_path / "plan.json").stat().st_mode == (tmp_path / "other").stat().st_mode
