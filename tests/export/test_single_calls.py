"""Networks that are asked for half of an evaluation: what is left on them, and what is not taken apart."""

from itertools import permutations
from typing import Any

import pytest
import torch
from torch import nn

from solversearch.export.single_calls import Order, half, whole
from solversearch.overriding import Override


@pytest.mark.parametrize("order", list(permutations(range(3))))
@pytest.mark.parametrize("own", [False, True])
def test_several_overrides_go_in_any_order(order: tuple[int, ...], own: bool) -> None:
    module, seen = nn.Identity(), list[int]()
    if own:  # as offloading leaves it
        module.forward = forward = lambda x: x + 10  # type: ignore[method-assign]

    def asking(k: int) -> Any:
        def ask(inner: Any, x: int) -> Any:
            seen.append(k)
            return inner(x)

        return ask

    made = [Override(module, asking(k)) for k in range(3)]
    for done, k in enumerate(order, 1):
        made[k].remove()
        seen.clear()
        assert module(1) == (11 if own else 1) and sorted(seen) == sorted(set(range(3)) - set(order[:done]))
    assert vars(module).get("forward") is (forward if own else None)


@pytest.mark.parametrize("first", [True, False])
def test_rows_with_the_condition_are_taken_and_put_back(first: bool) -> None:
    order = Order(4, first)
    rows = torch.arange(4.0)
    mine, other = (rows[2:], rows[:2]) if first else (rows[:2], rows[2:])
    given = {
        "x": rows,
        "t": torch.tensor(3.0),
        "ids": torch.zeros(7),
        "names": ["a", "b", "c", "d"],
        "more": [rows, rows],
        "pair": (rows, None),
    }
    taken = half(given, order)
    assert taken["names"] == (["c", "d"] if first else ["a", "b"]) and taken["t"] is given["t"] and taken["ids"] is given["ids"]
    for each in (taken["x"], *taken["more"], taken["pair"][0]):
        assert torch.equal(each, mine)
    last = -rows
    expected = torch.cat([-other, mine] if first else [mine, -other])
    for output in (mine, [*mine], (mine, "more")):
        back = whole(last if isinstance(output, torch.Tensor) else [*last] if isinstance(output, list) else (last, ""), output, order)
        back = back[0] if isinstance(back, tuple) else torch.stack(back) if isinstance(back, list) else back
        assert torch.equal(back, expected)
    with pytest.raises(ValueError, match="3 rows"):
        whole(last, rows[:3], order)
