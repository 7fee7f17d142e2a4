'''Networks preconditioned as in EDM (Karras et al. 2022, arXiv:2206.00364): sigma is the time, and x = x0 + sigma eps.

A person's factory (see `custom`) builds the network and returns `edm(...)`. Files of EDM's authors are pickles, which are not opened here:
make the network from its code, and load tensors. Complete, with a network of one layer in place of a real one:

    import torch
    from solversearch.models.edm import edm

    class Network(torch.nn.Module):
        """c_in x (B, 3, 32, 32), ln(sigma) / 4 (B,) and one-hot labels (B, 10) to F (B, 3, 32, 32)."""
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(3 * 32 * 32 + 1 + 10, 3 * 32 * 32)
        def forward(self, x, noise, labels):
            return self.layer(torch.cat([x.flatten(1), noise[:, None], labels], dim=1)).view_as(x)

    def factory():
        network = Network()  # then network.load_state_dict(safetensors.torch.load_file("weights.safetensors"))
        return edm(network, (3, 32, 32), conditions=torch.eye(10), null_condition=torch.zeros(10))

and `--model python:my_model.py:factory`. A network that is preconditioned already, D(x, sigma, labels), as the authors' own classes are
whatever they were trained as (VP, VE, iDDPM, EDM), is passed with preconditioned=True.
'''

from typing import Any

import torch
from torch import Tensor, nn

from solversearch.models.base import Model, Network
from solversearch.schedules import VE


class Preconditioned(nn.Module):
    """D = c_skip x + c_out F(c_in x, ln(sigma) / 4, ...), table 1, with s = sigma_data and r = sqrt(sigma^2 + s^2):

    c_skip = s^2 / r^2, c_out = sigma s / r, c_in = 1 / r. negated is for networks that learned -F, as those that diffusers says predict v.
    The network sees x in its own precision; D has that of sigma.
    """

    def __init__(self, network: Network, sigma_data: float = 0.5, negated: bool = False) -> None:
        super().__init__()
        self.network, self.sigma_data, self.sign = network, sigma_data, -1.0 if negated else 1.0

    def forward(self, x: Tensor, sigma: Tensor, *condition: Tensor) -> Tensor:
        column = sigma.view(-1, *[1] * (x.ndim - 1))
        variance = column**2 + self.sigma_data**2
        inner = self.network((x / variance.sqrt()).to(x.dtype), sigma.log() / 4, *condition)
        return (self.sigma_data**2 * x + self.sign * column * self.sigma_data * variance.sqrt() * inner) / variance


def edm(
    network: nn.Module, shape: tuple[int, ...], sigma_data: float = 0.5, sigma_min: float = 0.002, sigma_max: float = 80.0,
    preconditioned: bool = False, name: str = "edm", **fields: Any,
) -> Model:  # fmt: skip
    """The model of a raw network F(c_in x, ln(sigma) / 4, condition), or of a preconditioned one, D(x, sigma, condition).

    fields are further ones of `Model`: conditions, null_condition, images, features, data. dtype and device are the network's.
    """
    network.eval().requires_grad_(False)
    weight = next((each for each in network.parameters() if each.is_floating_point()), torch.zeros(()))
    wrapped = network if preconditioned else Preconditioned(network, sigma_data)
    own: dict[str, Any] = {"dtype": weight.dtype, "device": str(weight.device)}
    return Model(name, wrapped, VE(sigma_min, sigma_max), "edm", shape, **(own | fields))
