"""Threads of torch, by the size of the network's samples."""

from dataclasses import replace

import pytest
import torch

from solversearch.threads import few_threads
from tests.assets import coins

SMALL = coins.factory()


@pytest.mark.parametrize(("shape", "inside"), [((3, 16, 16), 1), ((4, 32, 32), 2)])
def test_small_networks_take_one_thread_and_give_the_others_back(shape: tuple[int, ...], inside: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(KeyError), few_threads(replace(SMALL, shape=shape)):
            assert torch.get_num_threads() == inside
            raise KeyError
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
