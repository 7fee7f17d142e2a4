"""The coins on a machine that gives trouble: each kind begins when its file lies in the folder that TROUBLES names.

die: the process is killed, once. hang: a call does not return, once. slow: every call takes so many seconds. hangs, nan: a call never
returns, or returns NaN, at the time that the file says, for that is how a test names a candidate. memory: calls with more samples than
the file says run out of memory.
"""

import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from solversearch.models.base import Model
from tests.assets import coins


class Troubled(coins.Coins):
    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        folder = Path(os.environ["TROUBLES"])
        if self._once(folder / "die"):
            os.kill(os.getpid(), signal.SIGKILL)
        if self._once(folder / "hang") or self._now(folder / "hangs", t).any():
            time.sleep(1000)
        if (folder / "slow").exists():
            time.sleep(float((folder / "slow").read_text()))
        if (folder / "memory").exists() and len(x) > int((folder / "memory").read_text()):
            raise torch.OutOfMemoryError("there is none left")
        output = super().forward(x, t, condition)
        return output.masked_fill(self._now(folder / "nan", t).view(-1, *[1] * (x.ndim - 1)), float("nan"))

    @staticmethod
    def _once(file: Path) -> bool:
        try:
            file.unlink()
        except FileNotFoundError:
            return False
        return True

    @staticmethod
    def _now(file: Path, t: Tensor) -> Tensor:
        return t == (float(file.read_text()) if file.exists() else -1.0)


def factory() -> Model:
    return replace(coins.factory(), name="troubled", network=Troubled())
