"""Made the files of attacks/: `python -m tests.assets.make_attacks FOLDER`. Each is plan_v1.json with one thing wrong, or no plan."""

import json
import sys
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

GOOD = (Path(__file__).parent / "plan_v1.json").read_text(encoding="utf-8")
GOOD_2 = (Path(__file__).parent / "plan_v2.json").read_text(encoding="utf-8")
GOOD_3 = (Path(__file__).parent / "plan_v3.json").read_text(encoding="utf-8")
GOOD_4 = (Path(__file__).parent / "plan_v4.json").read_text(encoding="utf-8")
GOOD_5 = (Path(__file__).parent / "plan_v5.json").read_text(encoding="utf-8")


def changed(*path: Any, to: Any, good: str = GOOD) -> bytes:
    """The good plan with another value at the path."""
    plan = deepcopy(json.loads(good))
    inner = plan
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = to
    return json.dumps(plan, indent=1).encode()


def without(key: str) -> bytes:
    return json.dumps({name: value for name, value in json.loads(GOOD).items() if name != key}).encode()


def replaced(old: str, new: str) -> bytes:
    assert GOOD.count(old) >= 1
    return GOOD.replace(old, new, 1).encode()


def attacks() -> Iterator[tuple[str, bytes]]:
    """File names and contents."""
    yield from not_json()
    yield from wrong_parts()
    yield from wrong_wholes()
    yield from wrong_components()
    yield from wrong_differences()
    yield from wrong_variants()
    yield from wrong_starts()
    yield from wrong_betas()


def not_json() -> Iterator[tuple[str, bytes]]:
    yield "empty", b""
    yield "not_json", b"plan: yes\n"
    yield "cut_off", GOOD.encode()[:300]
    yield "two_objects", GOOD.encode() * 2
    yield "list", b"[]"
    yield "binary", bytes(range(256))
    yield "utf16", GOOD.encode("utf-16")
    yield "half_a_surrogate_pair", replaced('"unipc"', '"\\ud800"')
    yield "deep_lists", b"[" * 5_000
    yield "deep_decisions", changed("decisions", "a", to=json.loads("[" * 50 + "]" * 50))
    yield "deep_objects", b'{"format":' * 1_000
    yield "duplicate_key", replaced('"nfe": 3,', '"nfe": 4, "nfe": 3,')
    yield "duplicate_key_in_decisions", replaced('"order": 1', '"order": 2, "order": 1')
    yield "control_characters_in_key", changed("\x1b[2J\nok: fine", to=1)
    yield "endless_key", changed("k" * 10_000, to=1)
    yield "endless_integer", replaced('"seed": 7', '"seed": ' + "7" * 10_000)
    yield "large_seed", changed("provenance", "seed", to=2**60)


def wrong_parts() -> Iterator[tuple[str, bytes]]:
    yield "nan_literal", replaced('"x": 0.5', '"x": NaN')
    yield "infinity_literal", replaced('"x": 0.5', '"x": -Infinity')
    yield "overflow_to_infinity", replaced('"x": 0.5', '"x": 1e999')
    yield "nan_in_decisions", replaced('"order": 1', '"order": NaN')
    yield "number_as_text", changed("rows", 1, "d", 0, to="0.5")
    yield "number_as_boolean", changed("rows", 0, "x", to=True)
    yield "count_as_fraction", changed("nfe", to=3.5)
    yield "unknown_key", changed("extra", to=1)
    yield "unknown_key_in_node", changed("nodes", 0, "extra", to=1)
    yield "unknown_key_in_row", changed("rows", 2, "extra", to=1)
    yield "unknown_key_in_threshold", changed("threshold", "extra", to=1)
    yield "unknown_key_in_score", changed("scores", 0, "extra", to=1)
    yield "unknown_key_in_interval", changed("scores", 1, "endpoint_mse", "extra", to=1)
    yield "unknown_key_in_provenance", changed("provenance", "extra", to=1)
    yield "unknown_format", changed("format", to="other")
    yield "unknown_version", changed("version", to=6)
    yield "unknown_prediction_type", changed("prediction_type", to="eps")
    yield "unknown_threshold", changed("threshold", "kind", to="soft")
    for key in ("format", "version", "nodes", "rows", "nfe", "network_calls", "provenance", "digest"):
        yield f"missing_{key}", without(key)
    yield "no_nodes", changed("nodes", to=[])
    yield "rows_not_a_list", changed("rows", to={"0": {"x": 1.0}})
    yield "row_without_x", changed("rows", 1, to={"d": [1.0]})
    yield "limit_zero", changed("threshold", "limit", to=0.0)
    yield "percentile_above_one", changed("threshold", "percentile", to=99.5)
    yield "nfe_absurd", changed("nfe", to=10**9)
    yield "too_many_nodes", changed("nodes", to=[{"t": 1, "alpha": 1, "sigma": 1}] * 1001)
    yield "digest_malformed", changed("digest", to="sha256:xyz")
    yield "digest_empty", changed("digest", to="")


def wrong_wholes() -> Iterator[tuple[str, bytes]]:
    yield "too_few_rows", changed("rows", to=[{"x": 1.0}, {"x": 1.0}])
    yield "row_reads_the_future", changed("rows", 1, "d", to=[0.5, 0.5])
    yield "row_reads_a_future_difference", changed("rows", 0, "delta", to=[0.5])
    yield "sigma_zero", changed("nodes", 1, "sigma", to=0.0)
    yield "alpha_negative", changed("nodes", 1, "alpha", to=-0.5)
    yield "epsilon_at_pure_noise", changed("prediction_type", to="epsilon")
    yield "nfe_mismatch", changed("nfe", to=2)
    yield "network_calls_mismatch", changed("network_calls", to=3)
    yield "too_many_fresh_noises", changed("rows", 0, "z", to=[0.0] * 1001)
    yield "digest_mismatch", replaced("0.9539392014169457", "0.9539392014169458")


def wrong_components() -> Iterator[tuple[str, bytes]]:
    good: dict[str, Any] = json.loads(GOOD_2)["components"]
    yield "components_in_version_1", changed("components", to=good)
    yield "no_components_in_version_1", changed("components", to=None)
    yield "no_components_in_version_2", changed("components", to=None, good=GOOD_2)
    yield "version_1_with_components", changed("version", to=1, good=GOOD_2)
    yield "one_component", changed("components", to={"bands": [0.5]}, good=GOOD_2)
    yield "unknown_key_in_components", changed("components", "extra", to=1, good=GOOD_2)
    yield "bands_out_of_order", changed("components", "bands", to=good["bands"][::-1], good=GOOD_2)
    yield "bands_twice", changed("components", "bands", to=[0.1, 0.1, 1.0], good=GOOD_2)
    yield "band_zero", changed("components", "bands", 0, to=0.0, good=GOOD_2)
    yield "band_above_one", changed("components", "bands", 2, to=1.5, good=GOOD_2)
    yield "too_many_bands", changed("components", "bands", to=[k / 65 for k in range(1, 66)], good=GOOD_2)
    yield "channels_not_orthonormal", changed("components", "channels", 0, 0, to=0.9, good=GOOD_2)
    yield "channels_that_repeat", changed("components", "channels", to=[good["channels"][0]] * 2, good=GOOD_2)
    yield "channels_ragged", changed("components", "channels", 1, to=[1.0], good=GOOD_2)
    yield "too_many_channels", changed("components", "channels", to=[[float(i == j) for j in range(129)] for i in range(129)], good=GOOD_2)
    yield "patch_negative", changed("components", "patch", to=-1, good=GOOD_2)
    yield "patch_as_fraction", changed("components", "patch", to=1.5, good=GOOD_2)
    yield "too_few_coefficients", changed("rows", 1, "x", to=[0.5], good=GOOD_2)
    yield "coefficients_as_texts", changed("rows", 1, "x", to=["0.5"] * 6, good=GOOD_2)
    yield "coefficients_in_lists", changed("rows", 1, "x", to=[[0.5]] * 6, good=GOOD_2)
    yield "coefficients_without_components", changed("rows", 1, "x", to=[0.5] * 6)
    yield "digest_mismatch_in_a_component", changed("rows", 1, "x", 3, to=0.25, good=GOOD_2)


def wrong_differences() -> Iterator[tuple[str, bytes]]:
    yield "unknown_guidance_difference", changed("nodes", 1, "guidance_difference", to="guess", good=GOOD_3)
    yield "reuse_in_version_1", changed("version", to=1, good=GOOD_3)
    yield "reuse_in_version_2", changed("nodes", 1, "guidance_difference", to="reuse", good=GOOD_2)
    yield "guidance_difference_in_version_1", changed("nodes", 1, "guidance_difference", to="compute")
    yield "guidance_difference_in_version_2", changed("nodes", 1, "guidance_difference", to="compute", good=GOOD_2)
    plain = changed("variants", to={}, good=GOOD_3.replace('"reuse"', '"compute"').replace('"variant": "small"', '"variant": ""'))
    yield "nothing_new_in_version_3", plain
    yield "reuse_of_one_that_guides", changed("nodes", 2, "guidance", to=7.5, good=GOOD_3)
    yield "reuse_of_its_own_difference", changed("rows", 3, "delta", to=[2.5, 0.5], good=GOOD_3)
    yield "reuse_of_no_difference", GOOD_3.replace("[0.6666666666666666]", "[0.0]").replace("[2.5, 0.0]", "[0.0, 0.0]").encode()
    yield "reuse_that_costs_two", changed("network_calls", to=6, good=GOOD_3)
    yield "digest_mismatch_in_a_guidance_difference", signed_as_computed()


def wrong_variants() -> Iterator[tuple[str, bytes]]:
    yield "variants_in_version_1", changed("variants", to={})
    yield "variants_in_version_2", changed("variants", to={}, good=GOOD_2)
    yield "variant_of_a_node_in_version_1", changed("nodes", 1, "variant", to="")
    yield "variant_that_nobody_declares", changed("nodes", 1, "variant", to="other", good=GOOD_3)
    yield "variant_that_no_node_calls", changed("variants", "other", to={"cost": 0.5}, good=GOOD_3)
    yield "variant_for_nothing", changed("variants", "small", "cost", to=0, good=GOOD_3)
    yield "variant_that_pays", changed("variants", "small", "cost", to=-1.0, good=GOOD_3)
    yield "variant_without_a_cost", changed("variants", "small", to={"digest": "1"}, good=GOOD_3)
    yield "variant_with_an_unknown_key", changed("variants", "small", "speed", to=4, good=GOOD_3)
    yield "variant_as_a_number", changed("nodes", 2, "variant", to=1, good=GOOD_3)
    yield "digest_mismatch_in_a_cost", changed("variants", "small", "cost", to=0.2, good=GOOD_3)
    reuses = {"cost": 0.25, "skips": ["blocks.1"], "reuses_features": True}
    yield "features_of_no_block", changed("variants", "small", "reuses_features", to=True, good=GOOD_3)
    yield (
        "features_that_nobody_computed",
        changed("variants", "small", to=reuses, good=GOOD_3.replace('"variant": ""', '"variant": "small"')),
    )
    yield "features_as_a_number", changed("variants", "small", to=reuses | {"reuses_features": 1}, good=GOOD_3)
    yield "digest_mismatch_in_features", changed("variants", "small", to=reuses, good=GOOD_3)


def wrong_starts() -> Iterator[tuple[str, bytes]]:
    for version, good in ((1, GOOD), (2, GOOD_2), (3, GOOD_3)):
        yield f"start_in_version_{version}", changed("start", to=None, good=good)
    yield "version_4_without_a_start", changed("start", to=None, good=GOOD_4)
    yield "version_3_with_a_start", changed("version", to=3, good=GOOD_4)
    yield "start_without_a_picture", changed("start", "alpha", to=0.0, good=GOOD_4)
    yield "start_without_noise", changed("start", "sigma", to=0.0, good=GOOD_4)
    yield "start_without_a_time", changed("start", to={"alpha": 0.48, "sigma": 0.88}, good=GOOD_4)
    yield "start_as_a_share", changed("start", to=0.6, good=GOOD_4)
    yield "start_with_an_unknown_key", changed("start", "guidance", to=1.0, good=GOOD_4)
    yield "digest_mismatch_in_a_start", changed("start", "t", to=598.0, good=GOOD_4)


def wrong_betas() -> Iterator[tuple[str, bytes]]:
    for version, good in ((1, GOOD), (2, GOOD_2), (3, GOOD_3), (4, GOOD_4)):
        yield f"beta_in_version_{version}", changed("nodes", 1, "beta", to=None, good=good)
    yield "version_4_with_a_beta", changed("version", to=4, good=GOOD_5)
    yield "version_5_without_a_beta", changed("version", to=5, good=GOOD_4)
    yield "beta_of_one_node", changed("nodes", 1, "beta", to=None, good=GOOD_5)
    yield "beta_as_a_text", changed("nodes", 1, "beta", to="0.75", good=GOOD_5)
    yield "beta_of_infinity", GOOD_5.replace('"beta": 0.75', '"beta": 1e999').encode()
    yield "digest_mismatch_in_a_beta", changed("nodes", 1, "beta", to=0.5, good=GOOD_5)


def signed_as_computed() -> bytes:
    """The third node computes, which is paid for; no coefficient and no digest is changed."""
    plan = json.loads(changed("nodes", 2, "guidance_difference", to="compute", good=GOOD_3))
    return json.dumps(plan | {"network_calls": 5}, indent=1).encode()


if __name__ == "__main__":
    for name, content in attacks():
        (Path(sys.argv[1]) / f"{name}.json").write_bytes(content)
