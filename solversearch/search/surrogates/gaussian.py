"""The denoiser of one Gaussian, fitted to the teacher's samples: a table's endpoint error in closed form. And tables as arrays."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from solversearch.models.base import Model
from solversearch.runtime import Tableau
from solversearch.schedules import Floats, NoiseSchedule, data_prediction
from solversearch.teacher import Teacher

CHUNK = 512
"""Tables at a time: their numbers stay in the processor's cache."""
BANDS = 4
HUGE = 1e13
"""What the loss of a table that runs away is taken for."""
PLACES = 4
"""Places along the way at which a table is looked at, whatever its NFE."""
SUMMARY = 5 * PLACES + 2
"""Numbers of `summary`."""


@dataclass(frozen=True)
class Tables:
    """C tables of one NFE N as arrays: t, alpha, sigma, guidance (C, N); x (C, N + 1); d and delta (C, N + 1, N); z (C, N + 1, Z).

    variants are the networks that evaluations call, C tuples of N names. delta is None where no table splits the guidance.
    """

    t: Floats
    alpha: Floats
    sigma: Floats
    guidance: Floats
    x: Floats
    d: Floats
    delta: Floats | None
    z: Floats
    variants: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, tables: Sequence[Tableau]) -> Self:
        nfe = tables[0].nfe
        nodes = np.array([[(node.t, node.alpha, node.sigma, node.guidance) for node in table.nodes] for table in tables])
        noises = max(len(row.z) for table in tables for row in table.rows)
        split = any(table.split for table in tables)
        zeros = (0.0,) * nfe
        return cls(
            nodes[:, :, 0],
            nodes[:, :, 1],
            nodes[:, :, 2],
            nodes[:, :, 3],
            np.array([[row.x for row in table.rows] for table in tables]),
            np.array([[row.d + zeros[len(row.d) :] for row in table.rows] for table in tables]),
            np.array([[row.delta + zeros[len(row.delta) :] for row in table.rows] for table in tables]) if split else None,
            np.array([[row.z + (0.0,) * (noises - len(row.z)) for row in table.rows] for table in tables]),
            tuple(tuple(node.variant for node in table.nodes) for table in tables),
        )

    @property
    def guided(self) -> bool:
        return self.delta is not None or bool((self.guidance != 1).any())

    def output(self, schedule: NoiseSchedule, prediction_type: str) -> tuple[Floats, Floats, Floats, Floats]:
        """The noise scales alpha, sigma (C, N) at the times that the network is told, and how its data prediction D there counts.

        A network that is told another time than its input's predicts its own output for that time: with D = a x + b output
        (`data_prediction`), the data prediction becomes share * D + rest * x. share is 1 and rest 0 where the times agree.
        """
        alpha, sigma = schedule.alpha(self.t), schedule.sigma(self.t)
        (a, b), (told_a, told_b) = (_coefficients(prediction_type, *pair) for pair in ((self.alpha, self.sigma), (alpha, sigma)))
        share = b / told_b
        return alpha, sigma, share, a - told_a * share


def _coefficients(prediction_type: str, alpha: Floats, sigma: Floats) -> tuple[Floats, Floats]:
    a, b = data_prediction(prediction_type, np.maximum(alpha, 1e-9), sigma)  # type: ignore[arg-type]
    return np.broadcast_to(a, alpha.shape), np.broadcast_to(b, alpha.shape)


@dataclass(frozen=True)
class Gaussian:
    """The denoiser of N(m, sum_k v_k e_k e_k'), along its axes:

        D_k(x) = m_k + g_k (x_k - alpha m_k)        g_k = alpha v_k / (alpha^2 v_k + sigma^2)

    Every state of a table is then p_k noise_k + q_k m_k, with p and q by the table's own recursion, and the exact flow keeps
    (x_k - alpha m_k) / sqrt(alpha^2 v_k + sigma^2). So the endpoint error is a sum over k of squares, without any sample.
    Conditions and guidance it does not know. Noised pictures at the start are alpha_0 m_k + sqrt(alpha_0^2 v_k + sigma_0^2) noise_k.
    """

    schedule: NoiseSchedule
    prediction_type: str
    variances: Floats
    """v_k, falling, (K,)."""
    means: Floats
    """m_k^2, (K,)."""
    dimensions: Floats
    """How many of the sample's dimensions each axis stands for, (K,)."""

    @classmethod
    def fit(cls, model: Model, teachers: Sequence[Teacher]) -> Self:
        """From the endpoints; eigenvalues are shrunk towards their mean (Chen et al. 2010, arXiv:0907.4698, equation 23)."""
        samples = np.concatenate([teacher.endpoint.flatten(1).double().cpu().numpy() for teacher in teachers])
        n, p = samples.shape
        mean = samples.mean(0)
        _, singular, axes = np.linalg.svd(samples - mean, full_matrices=False)
        variances, along = singular**2 / n, axes @ mean
        trace, squares = variances.sum(), (variances**2).sum()
        spread = (n + 1 - 2 / p) * (squares - trace**2 / p)
        shrinkage = min(((1 - 2 / p) * squares + trace**2) / spread, 1.0) if spread > 0 else 1.0
        variances = (1 - shrinkage) * variances + shrinkage * trace / p
        means, dimensions, rest = along**2, np.ones(len(variances)), p - len(variances)
        if rest:  # fewer samples than dimensions: one axis for all others
            variances, dimensions = np.append(variances, shrinkage * trace / p), np.append(dimensions, rest)
            means = np.append(means, (mean @ mean - along @ along) / rest)
        return cls(model.schedule, model.prediction_type, variances + 1e-12, np.maximum(means, 0), dimensions)

    def losses(self, tables: Sequence[Tableau]) -> Floats:
        """Mean endpoint error a dimension, (C,)."""
        return np.nan_to_num(self._errors(tables) @ self.dimensions / self.dimensions.sum(), nan=np.inf)

    def features(self, tables: Sequence[Tableau]) -> Floats:
        """ln of the loss and of its parts in `BANDS` bands, from coarse to fine; (C, 1 + BANDS)."""
        errors = self._errors(tables)
        shares = np.array_split(np.arange(len(self.variances)), BANDS)
        bands = [errors[:, share] @ self.dimensions[share] / self.dimensions[share].sum() for share in shares if len(share)]
        bands += [bands[-1]] * (BANDS - len(bands))
        total = errors @ self.dimensions / self.dimensions.sum()
        return np.log(np.nan_to_num(np.stack([total, *bands], axis=1), nan=HUGE, posinf=HUGE).clip(max=HUGE) + 1e-8)

    def _errors(self, tables: Sequence[Tableau]) -> Floats:
        """Squared endpoint error along every axis, (C, K)."""
        parts = [self._chunk(Tables.of(tables[first : first + CHUNK])) for first in range(0, len(tables), CHUNK)]
        return np.concatenate(parts)

    def _chunk(self, tables: Tables) -> Floats:
        v, nfe = self.variances, tables.t.shape[1]
        alpha, sigma, share, rest = (each[:, :, None] for each in tables.output(self.schedule, self.prediction_type))
        gain = alpha * v / (alpha**2 * v + sigma**2)
        slope, constant = share * gain + rest, share * (1 - alpha * gain)
        # One array for each thing that a state is a multiple of: the mean, the noise and every fresh noise.
        known = np.zeros((2 + tables.z.shape[2], *slope.shape))
        for i in range(nfe + 1):
            state = np.einsum("cj,scjk->sck", tables.d[:, i, :i], known[:, :, :i])
            state[1] += tables.x[:, i, None]
            state[2:] += np.moveaxis(tables.z[:, i], -1, 0)[:, :, None]
            if i < nfe:
                known[:, :, i] = slope[:, i] * state
                known[0, :, i] += constant[:, i]
        flow, mean = self._flow()
        state[0] -= mean
        state[1] -= flow
        if not self.schedule.noised:
            return state[1] ** 2 + state[0] ** 2 * self.means + (state[2:] ** 2).sum(0)
        start = self.schedule.node(self.schedule.t_start)
        spread = start.alpha**2 * v + start.sigma**2
        return state[1] ** 2 * spread + (state[0] + start.alpha * state[1]) ** 2 * self.means + (state[2:] ** 2).sum(0)

    def _flow(self) -> tuple[Floats, Floats]:
        """Factors of the noise and of the mean in the exact endpoint, which takes D at t_end as the teacher does."""
        schedule, v = self.schedule, self.variances
        (a0, a1), (s0, s1) = (f(np.array([schedule.t_start, schedule.t_end])) for f in (schedule.alpha, schedule.sigma))
        factor = a1 * v / np.sqrt((a1**2 * v + s1**2) * (a0**2 * v + s0**2))
        return factor * schedule.initial_scale(schedule.t_start), 1 - factor * a0


def at_places(values: Floats) -> Floats:
    """(C, n) along the steps, linearly interpolated at `PLACES` places: (C, PLACES)."""
    at = np.linspace(0, values.shape[1] - 1, PLACES)
    low = at.astype(int)
    high = np.minimum(low + 1, values.shape[1] - 1)
    return values[:, low] + (at - low) * (values[:, high] - values[:, low])


def summary(tables: Sequence[Tableau]) -> Floats:
    """What tables look like, whatever their NFE: positions, gaps and coefficients along the way, and guidance; (C, SUMMARY)."""
    given = Tables.of(tables)
    position = np.log(np.tan(np.arctan2(given.sigma, given.alpha) / 2) + 1e-9)
    nfe = position.shape[1]
    newest = given.d[:, np.arange(1, nfe + 1), np.arange(nfe)]
    gaps = np.diff(position, axis=1, append=0.0)  # to no noise: any number does
    along = [position, gaps, given.x[:, 1:], np.abs(given.d).sum(2)[:, 1:], newest]
    columns = np.concatenate([*map(at_places, along), given.guidance.mean(1)[:, None], given.guidance.min(1)[:, None]], axis=1)
    return columns.clip(-1e6, 1e6)
