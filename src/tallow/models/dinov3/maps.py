"""Pictures of features: what patches have in common, as colours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tallow.tensor import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image

Array = np.ndarray[Any, Any]

_OUTLIERS = 2.0  # per cent of the patches at either end that get the last colour
# From dark to light; each step is as large as the last one to the eye.
_HEAT = np.array([(0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164)], np.float32)


def principal_colours(patches: Tensor) -> Array:
    """The first three principal components of patches as red, green and blue.

    Args:
        patches: (rows, columns, dim).

    Returns:
        (rows, columns, 3) uint8. Each component is stretched to all levels, but for its outliers; where there are fewer
        than three, the rest is grey.
    """
    rows, columns, dim = patches.shape
    features = patches.numpy().reshape(-1, dim)
    centred = features - features.mean(0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    components = np.zeros((rows * columns, 3), np.float32)
    components[:, : min(3, len(s))] = u[:, :3] * s[:3]
    # A component's sign means nothing; this choice makes the picture the same every time.
    components *= np.where(np.abs(components.max(0)) < np.abs(components.min(0)), -1, 1)
    low, high = np.percentile(components, (_OUTLIERS, 100 - _OUTLIERS), axis=0)
    span = high - low
    levels = np.where(span > 1e-6 * (np.abs(features).max() + 1), (components - low) / np.where(span, span, 1), 0.5)
    return (levels.clip(0, 1) * 255).round().astype(np.uint8).reshape(rows, columns, 3)


def similarities(patches: Tensor, row: int, column: int) -> Array:
    """Cosines between one patch and all: (rows, columns) float32, 1 at the patch itself."""
    features = patches.numpy()
    unit = features / np.maximum(np.linalg.norm(features, axis=-1, keepdims=True), 1e-12)
    found: Array = unit @ unit[row, column]
    return found


def heat(values: Array) -> Array:
    """Values (…) as colours (…, 3) uint8, the least dark and the largest light."""
    low, high = float(values.min()), float(values.max())
    at = (values - low) / (high - low if high > low else 1.0) * (len(_HEAT) - 1)
    first = np.minimum(at.astype(int), len(_HEAT) - 2)
    part = (at - first)[..., None]
    colours: Array = _HEAT[first] * (1 - part) + _HEAT[first + 1] * part
    return colours.round().astype(np.uint8)


def side_by_side(photo: Image, maps: list[Array], unit: int) -> Image:
    """A photo and maps of its patches (rows, columns, 3), each patch ``unit`` pixels wide and high, side by side."""
    from PIL import Image as Pillow

    rows, columns = maps[0].shape[:2]
    size = columns * unit, rows * unit
    joined = Pillow.new("RGB", (size[0] * (1 + len(maps)), size[1]))
    joined.paste(photo.resize(size, Pillow.Resampling.BILINEAR), (0, 0))
    for i, values in enumerate(maps, 1):
        joined.paste(Pillow.fromarray(values).resize(size, Pillow.Resampling.NEAREST), (i * size[0], 0))
    return joined
