"""Compare grids: lay one picture over the other, then look whether any part of them differs.

    grids --align, coarse to fine--> scale and shift in x and in y --> difference, block by block --> same or not

A crop shows a part of a picture: x and y are scaled and shifted, each by itself, as grids are square whatever the shape
of a picture. Gauss and Newton's method finds these four numbers, from large blurs to small ones. A difference counts
against what encoding (a few levels) and a misplacement of half a cell explain; along edges that is much, in an even
sky little. The worst block decides, so that one cat more or less is seen in a picture that is the same elsewhere.
"""

import numpy as np
import numpy.typing as npt

from bridgetower.pictures.likeness.grids import SIDE

MOST_STRETCH = 1.34  # of a side of one picture against that of the other: a quarter of it is cropped off

_Array = npt.NDArray[np.float32]

_STAGES = ((16, 3), (32, 3), (SIDE, 3))  # points a side, and steps; the blur is the distance of two points
_BLOCKS = 8  # a side
_COARSE_BLOCKS = 4
_LEVELS = 5.0  # of 255: difference that encoding explains
_CELLS = 0.5  # misplacement that alignment leaves
_LIMIT = 1.0  # of a difference, where 1 is all that the two explain
_COARSE_LIMIT = 5.0  # after the first stage, which places less exactly
_MOST_SHIFT = 0.15  # of a side
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_AT_ONCE = 128  # pairs


def are_same(
    grids: npt.NDArray[np.uint8], ones: npt.NDArray[np.int64], others: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    """Return for each pair, of places `ones` and `others` `[P]` in `grids` `[n, SIDE, SIDE, 3]`, whether they are one
    picture: bool `[P]`. A pair has the same answer in any batch.
    """
    same = np.zeros(len(ones), np.bool_)
    for start in range(0, len(ones), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        first, second = (np.moveaxis(grids[places[part]], -1, 1) for places in (ones, others))  # [P, 3, SIDE, SIDE]
        same[part] = _compared(first.astype(np.float32, order="C"), second.astype(np.float32, order="C"))
    return same


def _compared(ones: _Array, others: _Array) -> npt.NDArray[np.bool_]:
    """Return which pairs of colours `[P, 3, SIDE, SIDE]` are one picture; stage by stage only those that may be."""
    placement = np.tile(np.array([1, 0, 1, 0], np.float32), (len(ones), 1))
    same, rest = np.zeros(len(ones), np.bool_), np.arange(len(ones))
    for points, steps in _STAGES:
        if not len(rest):
            break
        placement = _aligned(_light(ones), _light(others), placement, points, steps)
        blocks, limit = (_BLOCKS, _LIMIT) if points == SIDE else (_COARSE_BLOCKS, _COARSE_LIMIT)
        close = _worst_difference(ones, others, placement, points, blocks) <= limit
        placement, rest, ones, others = placement[close], rest[close], ones[close], others[close]
    same[rest] = True
    return same


def _light(colours: _Array) -> _Array:
    """Return the lightness `[P, 1, SIDE, SIDE]` of colours `[P, 3, SIDE, SIDE]`."""
    return np.tensordot(colours, _LUMA, (1, 0))[:, None]


class _Axis:
    """Weights by which points are read from the cells of a grid along x or y: Gaussians, `[P, 1, points, SIDE]`."""

    def __init__(self, scale: _Array, shift: _Array, points: int) -> None:
        """`scale` and `shift` `[P]` place the points; 1 and 0 spread them over the whole grid."""
        blur = SIDE / points
        self.places: _Array = ((np.arange(points) + 0.5) / points - 0.5).astype(np.float32)  # middles of equal parts
        at = ((scale[:, None] * self.places + shift[:, None] + 0.5) * SIDE - 0.5)[:, None]  # [P, 1, points], in cells
        away = np.arange(SIDE, dtype=np.float32) - at.clip(0, SIDE - 1)[..., None]
        weights = np.exp(-0.5 * (away / blur) ** 2)
        self.weights = weights / weights.sum(axis=-1, keepdims=True)
        slope = self.weights * away / blur**2
        self.slopes = slope - self.weights * slope.sum(axis=-1, keepdims=True)  # of the weights, a cell
        self.inside = (at >= 0) & (at <= SIDE - 1)


def _axes(placement: _Array, points: int) -> tuple[_Axis, _Axis]:
    """Return x and y of placements `[P, 4]`: scale and shift of each."""
    return _Axis(placement[:, 0], placement[:, 1], points), _Axis(placement[:, 2], placement[:, 3], points)


def _whole(points: int) -> tuple[_Axis, _Axis]:
    return _axes(np.array([[1, 0, 1, 0]], np.float32), points)


def _inside(x: _Axis, y: _Axis) -> _Array:
    """Return 1 for the points `[P, 1, points, points]` that lie in the grid, and 0 for the others."""
    return (y.inside[..., None] & x.inside[..., None, :]).astype(np.float32)


def _read(grids: _Array, x: _Axis, y: _Axis) -> tuple[_Array, _Array, _Array]:
    """Return points `[P, C, points, points]` of grids `[P, C, SIDE, SIDE]`, and their slopes along x and y, a cell."""
    rows, along_x = np.matmul(y.weights, grids), x.weights.swapaxes(-1, -2)
    by_x = np.matmul(rows, x.slopes.swapaxes(-1, -2))
    return np.matmul(rows, along_x), by_x, np.matmul(np.matmul(y.slopes, grids), along_x)


def _aligned(ones: _Array, others: _Array, placement: _Array, points: int, steps: int) -> _Array:
    """Return better placements `[P, 4]`, by which grids `ones` `[P, 1, SIDE, SIDE]` read as `others` do."""
    wanted, _, _ = _read(others, *_whole(points))
    for _ in range(steps):
        x, y = _axes(placement, points)
        here, by_x, by_y = _read(ones, x, y)
        inside = _inside(x, y)
        by_x, by_y, missing = by_x * inside * SIDE, by_y * inside * SIDE, (wanted - here) * inside
        slopes: _Array = np.concatenate([by_x * x.places, by_x, by_y * y.places[:, None], by_y], axis=1)
        slopes = slopes.reshape(len(ones), 4, -1)
        normal = slopes @ slopes.swapaxes(1, 2)
        # Where a picture is even, nothing says where it lies: the step is then none.
        damping = 2.5e-4 * np.trace(normal, axis1=1, axis2=2) + 1e-2
        normal += damping[:, None, None] * np.eye(4, dtype=np.float32)
        step = np.linalg.solve(normal, slopes @ missing.reshape(len(ones), -1, 1))[..., 0]
        placement = (placement + step).astype(np.float32)
        placement[:, ::2] = placement[:, ::2].clip(1 / MOST_STRETCH, MOST_STRETCH)
        placement[:, 1::2] = placement[:, 1::2].clip(-_MOST_SHIFT, _MOST_SHIFT)
    return placement


def _worst_difference(ones: _Array, others: _Array, placement: _Array, points: int, blocks: int) -> _Array:
    """Return the largest difference of any block `[P]`, as a multiple of what encoding and misplacement explain."""
    x, y = _axes(placement, points)
    first, *first_slopes = _read(ones, x, y)
    second, *second_slopes = _read(others, *_whole(points))
    steep = np.maximum(*(along_x**2 + along_y**2 for along_x, along_y in (first_slopes, second_slopes)))
    inside = _inside(x, y)

    def summed(values: _Array) -> _Array:
        """Return the means of the colours, summed over each block, `[P, blocks, blocks]`."""
        cells = points // blocks
        parts = (values * inside).mean(axis=1).reshape(len(ones), blocks, cells, blocks, cells)
        found: _Array = parts.sum(axis=(2, 4))
        return found

    covered = summed(np.ones_like(inside))
    explained = _LEVELS**2 * np.maximum(covered, 1) + _CELLS**2 * summed(steep)
    counts = covered >= (points // blocks) ** 2 / 2
    worst: _Array = np.sqrt(np.where(counts, summed((first - second) ** 2) / explained, 0)).max(axis=(1, 2))
    return worst
