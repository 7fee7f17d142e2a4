"""How many threads torch takes for a network on a CPU."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from solversearch.judging.baselines import SMALL
from solversearch.models.base import Model


@contextmanager
def few_threads(model: Model) -> Iterator[None]:
    """One thread for a small network on a CPU, torch's own number for others and afterwards.

    Calls of small networks take milliseconds, and the threads of a pool wait for each other by spinning: where any other process keeps a
    core busy, two threads took 5 to 35 times as long as one (digits, 512 samples, two cores). Measuring at the start would not know what
    runs a minute later. The digits' numbers are the same to the last bit with one thread and two.
    """
    threads = torch.get_num_threads()
    if model.numbers <= SMALL and torch.device(model.device).type == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
