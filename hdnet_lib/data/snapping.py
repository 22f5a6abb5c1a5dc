"""A mask moved to the border of the paste that its composite shows."""

from itertools import product

import numpy as np
from PIL import Image
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import breadth_first_order, maximum_flow
from skimage.color import rgb2lab
from skimage.measure import find_contours

from hdnet_lib.data.masks import signed_distance
from hdnet_lib.data.save import as_uint8

COARSE, FINE = 384, 1536
"""Longest sides in pixels of the sizes at which the first and the last step work."""
REACH = 1 / 64
"""How far the whole outline can move, as a share of the longer side."""
SHIFT = 3
"""How far a mask can be shifted within that reach, in pixels of the coarse size."""
STEP = 0.25
"""Between the offsets that are tried, in pixels of the coarse size."""
SHORTER = 0.05
"""Share of its colour step that a pixel of shift costs: of two that are alike the shorter one is taken."""
CLEARER = 1.1
"""So many times stronger must the colour step be on a moved outline, or the outline stays."""
DISTINCT = 1.2
"""So many times stronger must the colour step be on the outline than beside it (the median, see ``_move``), or
nothing is done: there is no border to be seen."""
BANDS = (3, 1)
"""How far the first and the second cut can move the outline, in pixels of each size."""
STAY = 0.25
"""What it costs a pixel of the band to change sides, where a border without a colour step costs 1 a pixel."""
SLOPE = 0.7
"""Share of the steps on either side that is taken off a colour step: the border of a paste is sharper than those of
a photo."""


def snap_mask(composite: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Move the outline of a mask to the border of the paste.

    A pasted object ends at a sudden step of colour. The photo at a coarse size tells where the whole outline lies: one
    offset and one shift, those with the largest mean step in L*a*b*. From there to finer sizes, minimum cuts in narrow
    bands around the outline decide for each pixel, object or background: the border runs where the steps are large, and
    where they tell little, it stays.

    >>> photo = np.full((64, 64, 3), 100, np.uint8)
    >>> photo[20:40, 20:40] = 180
    >>> careless = np.zeros((64, 64), bool)
    >>> careless[19:41, 19:41] = True
    >>> int(snap_mask(photo, careless).sum())
    400

    Args:
        composite: (H, W, 3) uint8, or uint16 on the scale 0 to 65,535; in sRGB.
        mask: (H, W) bool, or float in [0, 1], cut at one half. A float mask keeps its softness: its grey border
            moves as it is.

    Returns:
        A mask of the same type and shape; the same one if the composite shows no border, if nothing would be left of
        object or background, or if no outline is twelve pixels long at the coarse size. No outline moves further than
        :data:`REACH` of the longer side, rounded up to pixels of the coarse size, in the first step, and seven of
        these pixels in the cuts. Parts and gaps that are thinner than three of them are not lost.
    """
    given = mask >= 0.5
    if given.all() or not given.any() or min(given.shape) < 3:
        return mask
    height, width = given.shape
    longer = max(height, width)
    scale = min(1, FINE / longer)
    scales = [scale]
    while scales[0] * longer > COARSE:
        scales.insert(0, scales[0] / 2)
    pixels = Image.fromarray(as_uint8(composite))
    before = labels = np.zeros((0, 0), bool)
    for scale in scales:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        here = _resized(given, size, Image.Resampling.BOX)
        if min(size) < 3 or here.all() or not here.any():
            continue
        lab = rgb2lab(np.asarray(pixels.resize(size, Image.Resampling.BOX))).astype(np.float32)
        moved = _transfer(before, labels, here) if labels.size else _move(here, lab)
        if moved is None:
            return mask
        for reach in BANDS:
            moved = _cut(moved, lab, reach)
        before, labels = here, moved
    if not labels.size:
        return mask
    if labels.shape != given.shape:
        labels = _transfer(before, labels, given)
    if np.array_equal(labels, given):
        return mask
    snapped = labels if mask.dtype == bool else _soften(mask, given, labels)
    left = snapped >= 0.5
    return snapped if left.any() and not left.all() else mask


def _move(mask: np.ndarray, lab: np.ndarray) -> np.ndarray | None:
    """The mask grown and shifted to where its outline has the largest colour step; None if it shows no border."""
    reach = np.ceil(max(mask.shape) * REACH)
    offsets = np.arange(-reach, reach + STEP, STEP)
    found = [_steps(lab, *outline, offsets) for outline in _outlines(mask)]
    if not found or not sum(len(steps) for steps, _ in found):
        return None
    steps, normals = (np.concatenate(parts) for parts in zip(*found, strict=True))
    mean = steps.mean(axis=0)
    zero = len(offsets) // 2
    # The same for all outlines, along their normals; and a shift, of which each sees the part along its normal.
    shifts = [(y, x) for y, x in product(range(-SHIFT, SHIFT + 1), repeat=2) if np.hypot(y, x) <= SHIFT]
    some = np.linspace(0, len(steps) - 1, min(len(steps), 400)).astype(int)
    best, largest = (0.0, 0.0, 0.0), mean[zero]
    for y, x in shifts:
        along = np.rint((normals[some] @ (y, x)) / STEP).astype(int)
        for column, offset in enumerate(offsets):
            if abs(offset) + np.hypot(y, x) > reach:
                continue
            at = along + column
            value = steps[some, at].mean() * (1 - SHORTER * np.hypot(y, x))
            if value > max(largest, CLEARER * mean[zero]):
                best, largest = (float(offset), float(y), float(x)), value
    # Between the centres of two pixels noise weighs less: of each offset the largest within half a pixel counts.
    if largest <= DISTINCT * np.median(ndimage.maximum_filter1d(mean, 1 + round(1 / STEP))):
        return None
    grow, *shift = best
    if best == (0.0, 0, 0):
        return mask
    moved = ndimage.shift(signed_distance(mask), shift, order=1, mode="nearest") > -grow
    moved = np.where(_thin(mask, 3), mask, moved)
    return moved if moved.any() and not moved.all() else mask


def _outlines(mask: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Points (S, 2), about a pixel apart, of each outline that is long enough, and their outward normals (S, 2)."""
    slope = np.stack(np.gradient(ndimage.gaussian_filter(mask.astype(np.float32), 1.5)))
    outlines = []
    for line in find_contours(mask, 0.5):
        length = np.r_[0, np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))]
        if length[-1] < 12:
            continue
        at = np.linspace(0, length[-1], round(length[-1]), endpoint=False)
        points = np.stack([np.interp(at, length, line[:, axis]) for axis in (0, 1)], axis=1)
        points = ndimage.gaussian_filter1d(points, 1, axis=0, mode="wrap" if (line[0] == line[-1]).all() else "nearest")
        inward = np.stack([ndimage.map_coordinates(part, points.T, order=1) for part in slope], axis=1)
        outlines.append((points, -inward / np.linalg.norm(inward, axis=1, keepdims=True).clip(1e-6)))
    return outlines


def _steps(
    lab: np.ndarray, points: np.ndarray, normals: np.ndarray, offsets: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Colour steps (S', O) across outlines that are moved by offsets, and the normals of their points; of points away
    from the photo's edge."""
    inner = ((points > 1) & (points < np.array(lab.shape[:2]) - 2)).all(axis=1)
    half = round(0.5 / STEP)
    wider = np.arange(-half, len(offsets) + half) * STEP + offsets[0]
    at = (points[:, None] + wider[:, None] * normals[:, None]).transpose(2, 0, 1)
    channels = [ndimage.map_coordinates(lab[..., c], at, order=1, mode="nearest") for c in range(3)]
    colors = np.stack(channels, axis=-1)
    steps = ndimage.gaussian_filter1d(colors[:, 2 * half :] - colors[:, : -2 * half], 1.5, axis=0, mode="nearest")
    return np.linalg.norm(steps[inner], axis=2), normals[inner]


def _transfer(before: np.ndarray, after: np.ndarray, finer: np.ndarray) -> np.ndarray:
    """What was changed at a coarser size, done to the mask at a finer one; elsewhere it keeps its detail."""
    changed = ndimage.binary_dilation(before != after, np.ones((3, 3)))
    size = finer.shape[::-1]
    new = _resized(after, size, Image.Resampling.BILINEAR)
    where = np.asarray(Image.fromarray(changed).resize(size, Image.Resampling.NEAREST))
    return np.where(where, new, finer)


def _cut(mask: np.ndarray, lab: np.ndarray, reach: int) -> np.ndarray:
    """The mask with its border where a minimum cut within so many pixels of it runs."""
    side = 2 * reach + 1
    # A cut prefers short borders: it would eat up what is hardly wider than the band.
    band = (ndimage.minimum_filter(mask, side) != ndimage.maximum_filter(mask, side)) & ~_thin(mask, 2 * side - 1)
    if not band.any():
        return mask
    rows, columns = (np.flatnonzero(band.any(axis=axis)) for axis in (1, 0))
    box = np.s_[max(rows[0] - 2, 0) : rows[-1] + 3, max(columns[0] - 2, 0) : columns[-1] + 3]
    band, inside, lab = band[box], mask[box], lab[box]

    count = int(band.sum())
    source, sink = count, count + 1  # object and background
    node = np.where(inside, source, sink)
    node[band] = np.arange(count)
    ends, steps, across = [], [], []
    for axis in (0, 1):
        first, second = (np.delete(np.arange(node.shape[axis]), drop) for drop in (-1, 0))
        step = np.linalg.norm(np.diff(lab, axis=axis), axis=2)
        beside = ndimage.correlate1d(step, [0.5, 0, 0.5], axis=axis, mode="nearest")
        pair = np.stack([node.take(first, axis).ravel(), node.take(second, axis).ravel()])
        kept = (pair[0] != pair[1]) & (pair.min(axis=0) < count)
        ends.append(pair[:, kept])
        steps.append((step - SLOPE * beside).clip(0).ravel()[kept])
        across.append(step[inside.take(first, axis) != inside.take(second, axis)])
    (one, other), step = np.concatenate(ends, axis=1), np.concatenate(steps)
    typical = np.concatenate(across).mean() + 1e-6
    cost = 1 + np.rint(1000 / (1 + (step / typical) ** 2)).astype(np.int32)
    own, pixel = inside[band], np.arange(count)
    graph = coo_array(
        (
            np.concatenate([cost, cost, np.full(count, round(1000 * STAY), np.int32)]),
            (
                np.concatenate([one, other, np.where(own, source, pixel)]),
                np.concatenate([other, one, np.where(own, pixel, sink)]),
            ),
        ),
        shape=(count + 2, count + 2),
    ).tocsr()  # adds what is there twice
    left = graph - maximum_flow(graph, source, sink).flow
    left.eliminate_zeros()
    objects = np.zeros(count + 2, bool)
    objects[breadth_first_order(left, source, return_predecessors=False)] = True
    new = mask.copy()
    new[box][band] = objects[:count]
    return new


def _thin(mask: np.ndarray, side: int) -> np.ndarray:
    """Where parts of a mask, or of what is around it, hold no square of that side."""
    opened = ndimage.maximum_filter(ndimage.minimum_filter(mask, side), side)
    closed = ndimage.minimum_filter(ndimage.maximum_filter(mask, side), side)
    return mask != np.where(mask, opened, closed)


def _resized(mask: np.ndarray, size: tuple[int, int], resampling: Image.Resampling) -> np.ndarray:
    """Of a mask (H, W) bool, at another (width, height), cut at one half."""
    return np.asarray(Image.fromarray(mask.astype(np.uint8) * 255).resize(size, resampling)) >= 128


def _soften(mask: np.ndarray, given: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """A soft mask, taken as ``given`` that was blurred, with ``labels`` in its place."""
    rows, columns = (np.flatnonzero((given != labels).any(axis=axis)) for axis in (1, 0))
    # Across a ramp of so many pixels, the step from one to the next is the inverse.
    steps = [np.abs(np.diff(mask, axis=axis))[given.take(range(1, n), axis) != given.take(range(n - 1), axis)]
             for axis, n in enumerate(mask.shape)]  # fmt: skip
    ramp = 1 / np.concatenate(steps).mean(dtype=np.float64)
    width = 1 + 2 * round((ramp - 1) / 2)
    box = np.s_[max(rows[0] - width, 0) : rows[-1] + width + 1, max(columns[0] - width, 0) : columns[-1] + width + 1]
    change = ndimage.uniform_filter(labels[box].astype(np.float32) - given[box], width, mode="nearest")
    soft = mask.copy()
    soft[box] = (soft[box] + change).clip(0, 1)
    return soft
