"""Components of a sample: radial frequency bands times channel directions, each of which a row may give a coefficient of its own.

A sample (B, C, ..., H, W) is transformed, the rows of a plan are sums in the transformed domain, and a state is transformed back:

    Y = Q y                             along the channels; the rows of Q are the directions, orthonormal
    Y = C_H Y C_W^T                     C_n[k, i] = sqrt((2 - [k = 0]) / n) cos(pi (i + 1/2) k / n), the orthonormal DCT-II
    r = sqrt(((k / H)^2 + (l / W)^2) / 2)           the normalised frequency of entry (k, l): 0 is the mean, near 1 the finest pattern
    coefficient at r = linear interpolation in log r between those of the bands, that of the outermost bands beyond their centres

So a plan acts alike at any height and width. Standard library only: arrays are of torch, NumPy or JAX, as in the runtime.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from math import cos, inf, isfinite, isqrt, log, pi, sqrt
from typing import Any

Array = Any  # a torch, NumPy or JAX array
ORTHONORMAL = 1e-6
"""Largest difference of Q Q^T from the identity."""
MOST_BANDS, MOST_CHANNELS = 64, 128


@dataclass(frozen=True, slots=True)
class Components:
    """bands: the centres of frequency bands, ascending in (0, 1]; none, or one, is a single band.

    channels: orthonormal directions, (C, C); none: all channels alike. A coefficient has one number a band of the first direction, then
    those of the next. patch is the side of the squares into which a packed sample (B, L, C * patch^2) is cut, row by row, with the
    pixels of a square beside each other in each channel (Flux, Qwen-Image); 0: it is not packed. Raises ValueError.
    """

    bands: tuple[float, ...] = ()
    channels: tuple[tuple[float, ...], ...] = ()
    patch: int = 0

    def __post_init__(self) -> None:
        if len(self.bands) > MOST_BANDS or len(self.channels) > MOST_CHANNELS:
            raise ValueError(f"components: at most {MOST_BANDS} bands and {MOST_CHANNELS} channel directions")
        if not all(isfinite(band) and 0 < band <= 1 for band in self.bands) or list(self.bands) != sorted(set(self.bands)):
            raise ValueError(f"components: bands must ascend and lie above 0 and at most at 1, got {list(self.bands)}")
        if any(len(direction) != len(self.channels) for direction in self.channels):
            raise ValueError("components: channels must be as many directions as a direction has numbers")
        for i, one in enumerate(self.channels):
            for j, other in enumerate(self.channels[: i + 1]):
                product = sum(a * b for a, b in zip(one, other, strict=True))
                if not abs(product - (i == j)) <= ORTHONORMAL:
                    raise ValueError(f"components: the channel directions {j} and {i} are not orthonormal")
        if self.patch < 0 or len(self) < 2:
            raise ValueError("components: two bands or two channels at least, and no negative patch")

    def __len__(self) -> int:
        """Numbers of a coefficient."""
        return max(1, len(self.bands)) * max(1, len(self.channels))


class Transform:
    """To and from the components of samples like the given one, (B, C, ..., H, W), or packed ones of a grid (rows, columns) of squares.

    Without a grid packed samples are taken for square pictures. Raises ValueError where samples of that shape have no such components.
    """

    def __init__(self, components: Components, like: Array, grid: tuple[int, int] | None = None) -> None:
        self.components, self.shape = components, tuple(like.shape)
        self.grid = self._grid(grid) if components.patch else None
        shape = self._unpacked()
        if len(shape) < 4:
            raise ValueError(f"components act on pictures, (batch, channels, ..., height, width), not on samples of shape {shape[1:]}")
        if components.channels and len(components.channels) != shape[1]:
            raise ValueError(f"the plan's components have {len(components.channels)} channels, but samples have {shape[1]}")
        height, width = shape[-2:]
        _check_size(components.bands, height, width)
        self.rows = _Cosines(like, height)
        self.columns = self.rows if width == height else _Cosines(like, width)
        self.bands = _hats(like, components.bands, height, width)
        self.channels = _array(like, components.channels) if components.channels else None
        self.between = [1] * (len(shape) - 4)

    def forward(self, sample: Array) -> Array:
        """The transformed sample, (B, C, ..., H, W), of a sample in float32 or wider; its frequencies are in `_order`."""
        return self.columns.along(self.rows.along(self._mixed(self._unpack(sample), self.channels), -2), -1)

    def back(self, transformed: Array) -> Array:
        """Inverse of `forward`."""
        inverse = None if self.channels is None else self.channels.T
        return self._pack(self._mixed(self.columns.back(self.rows.back(transformed, -2), -1), inverse))

    def weight(self, coefficient: Array) -> Array:
        """What a coefficient multiplies transformed samples with: itself where it is one number, or an array of one a sample.

        Else numbers or an array, (..., components), whose leading axes, if any, are those of the batch.
        """
        if isinstance(coefficient, float | int) or (not isinstance(coefficient, tuple) and coefficient.shape[-1] == 1):
            return coefficient
        each = _array(self.bands, coefficient) if isinstance(coefficient, tuple) else coefficient
        count, height, width = self.bands.shape
        return (each.reshape(*each.shape[:-1], -1, count) @ self.bands.reshape(count, -1)).reshape(
            *each.shape[:-1], -1, *self.between, height, width
        )

    def _mixed(self, sample: Array, directions: Array | None) -> Array:
        """Along the channels."""
        if directions is None:
            return sample
        return (directions @ sample.reshape(*sample.shape[:2], -1)).reshape(sample.shape)

    def _grid(self, grid: tuple[int, int] | None) -> tuple[int, int]:
        if len(self.shape) != 3 or self.shape[2] % self.components.patch**2:
            raise ValueError(f"the plan is for packed samples of patches of {self.components.patch}, not for the shape {self.shape[1:]}")
        side = isqrt(self.shape[1])
        rows, columns = grid or (side, side)
        if rows * columns != self.shape[1]:
            raise ValueError(f"{self.shape[1]} tokens are no grid of {rows} x {columns}: say the grid of a picture that is not square")
        return rows, columns

    def _unpacked(self) -> tuple[int, ...]:
        if self.grid is None:
            return self.shape
        patch = self.components.patch
        return self.shape[0], self.shape[2] // patch**2, self.grid[0] * patch, self.grid[1] * patch

    def _unpack(self, sample: Array) -> Array:
        if self.grid is None:
            return sample
        patch, count = self.components.patch, len(sample)
        squares = sample.reshape(count, *self.grid, -1, patch, patch)
        return _moved(squares, (0, 3, 1, 4, 2, 5)).reshape(count, *self._unpacked()[1:])

    def _pack(self, sample: Array) -> Array:
        if self.grid is None:
            return sample
        patch, count, (rows, columns) = self.components.patch, len(sample), self.grid
        squares = sample.reshape(count, -1, rows, patch, columns, patch)
        return _moved(squares, (0, 2, 4, 1, 3, 5)).reshape(count, *self.shape[1:])


def _moved(array: Array, axes: tuple[int, ...]) -> Array:
    return array.permute(axes) if hasattr(array, "permute") else array.transpose(axes)


def _library(like: Array) -> Any:
    name = type(like).__module__.partition(".")[0]
    return sys.modules["jax.numpy" if name in ("jax", "jaxlib") else name]


def _array(like: Array, values: Sequence[Any]) -> Array:
    """Numbers as an array of the library, place and precision of another, float32 or wider."""
    library = _library(like)
    if hasattr(like, "new_tensor"):
        return like.new_tensor(values, dtype=library.promote_types(like.dtype, library.float32))
    return library.asarray(values, dtype=library.promote_types(like.dtype, "float32"))


class _Cosines:
    """The DCT-II of n points, in half the products: its rows of even frequencies are symmetric, those of odd ones antisymmetric."""

    def __init__(self, like: Array, n: int) -> None:
        self.library, self.half, self.rest = _library(like), (n + 1) // 2, n // 2
        whole = [[sqrt((2 - (k == 0)) / n) * cos(pi * (i + 0.5) * k / n) for i in range(self.half)] for k in _order(n)]
        self.even, self.odd = _array(like, whole[: self.half]), _array(like, whole[self.half :]).reshape(self.rest, self.half)
        # The middle of an odd number of points is its own mirror image, and counts once.
        once = [1.0] * self.rest + [0.5] * (self.half - self.rest)
        self.folded = self.even * _array(like, once)

    def along(self, y: Array, axis: int) -> Array:
        """The transform along axis -1 or -2."""
        first, last = _first(y, self.half, axis), _first(self.library.flip(y, (axis,)), self.half, axis)
        parts = _product(self.folded, first + last, axis), _product(self.odd, first - last, axis)
        return self.library.concatenate(parts, axis)

    def back(self, y: Array, axis: int) -> Array:
        """Its inverse."""
        even = _product(self.even.T, _first(y, self.half, axis), axis)
        odd = _product(self.odd.T, y[..., self.half :] if axis == -1 else y[..., self.half :, :], axis)
        mirrored = self.library.flip(_first(even - odd, self.rest, axis), (axis,))
        return self.library.concatenate((even + odd, mirrored), axis)


def _first(y: Array, count: int, axis: int) -> Array:
    return y[..., :count] if axis == -1 else y[..., :count, :]


def _product(matrix: Array, y: Array, axis: int) -> Array:
    return y @ matrix.T if axis == -1 else matrix @ y


def _order(n: int) -> list[int]:
    """Frequencies as they stand in transformed samples: the even ones, then the odd ones."""
    return [*range(0, n, 2), *range(1, n, 2)]


def _hats(like: Array, bands: Sequence[float], height: int, width: int) -> Array:
    """The weight of each band at each frequency, (bands, H, W); they sum to one."""
    if len(bands) < 2:
        return _array(like, [[[1.0] * width] * height])
    library = _library(like)
    down, across = (_array(like, [(k / n) ** 2 / 2 for k in _order(n)]) for n in (height, width))
    radius = library.log((down[:, None] + across[None, :]).clip(bands[0] ** 2, 1)) / 2
    centres = [log(band) for band in bands]
    # Where a radius lies among the centres: 0 at the first and len - 1 at the last.
    place = sum(((radius - low) / (high - low)).clip(0, 1) for low, high in pairwise(centres))
    return library.stack([(1 - abs(place - band)).clip(0, 1) for band in range(len(bands))])


@lru_cache(64)
def _check_size(bands: Sequence[float], height: int, width: int) -> None:
    """Raises ValueError where no frequency is within the reach of a band: what it does there was never fitted."""
    squares = sorted({(k / height) ** 2 / 2 + (m / width) ** 2 / 2 for k in range(height) for m in range(width)})
    for band, low, high in zip(bands, (-1.0, *bands), (*bands[1:], inf), strict=False):
        if not any(max(low, 0) ** 2 < square < high**2 or square == 0 > low for square in squares):
            raise ValueError(
                f"a sample of {height} x {width} is too small for the plan's components: none of its frequencies is near {band:g}"
            )
