"""From states to pictures (B, H, W, 3) in [0, 1], as the pipeline makes them of what it has sampled."""

from collections.abc import Callable, Sequence
from itertools import cycle
from typing import Any

import numpy as np
import torch
from torch import Tensor

from solversearch.models.pipelines.guest import Arguments, Call, Guest, Time


class Decoder:
    """The end of a pipeline's call; of a video, the picture in the middle.

    guest makes one with a decoder, when the first picture is asked for. made_up are outputs of its networks, which do not matter.
    """

    def __init__(self, guest: Callable[[], Guest], call: Callable[[], Call], made_up: Sequence[Any], time: Time) -> None:
        self.make, self.call, self.made_up, self.time = guest, call, list(made_up), time
        self._guest: Guest | None = None

    def __call__(self, states: Tensor) -> Tensor:
        if self._guest is None:
            self._guest = self.make()
        return torch.cat([self._one(self._guest, state) for state in torch.split(states, 1)])

    @torch.no_grad()
    def _one(self, guest: Guest, state: Tensor) -> Tensor:
        outputs = cycle(self.made_up)

        def respond(name: str, arguments: Arguments) -> Any:
            return next(outputs)

        call = self.call()
        wanted = call.arguments | ({"output_type": "np"} if "output_type" in guest.parameters else {})
        result = guest.visit(Call(wanted, call.encoded), [self.time], lambda i, made, own: state.to(own.device).expand_as(own), respond)
        pictures = torch.as_tensor(np.asarray(result[0])).float()[:1]
        return (pictures[:, pictures.shape[1] // 2] if pictures.ndim == 5 else pictures).to(state.device)
