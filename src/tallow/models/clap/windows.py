"""Where a Swin Transformer's patches stand: windows, shifted windows, merged patches (Liu et al. 2021).

Layers work on rows, one a patch, and only attention cares which patches share a window. So the rows of a stage are kept
in the order of windows throughout, and one gathering of rows between two blocks does the work of cutting into windows,
shifting, and putting together again.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

_OUT_OF_SIGHT = -100.0  # added to the score of a patch that the shift has brought from the other side


def window_order(side: int, window: int, shift: int = 0) -> Array:
    """Which patch stands at each row when rows are in the order of windows.

    Args:
        side: patches along an edge of the square, a multiple of ``window``.
        window: patches along an edge of a window.
        shift: by how many patches the windows are moved down and right; at the far edges they go on at the near ones.

    Returns:
        (side²,) numbers of patches, which are counted row by row.
    """
    grid = np.roll(np.arange(side * side).reshape(side, side), (-shift, -shift), (0, 1))
    windows = grid.reshape(side // window, window, side // window, window).swapaxes(1, 2)
    return windows.reshape(-1)


def merge_order(side: int) -> Array:
    """Which four patches become one: (side²/4, 4), in the order in which their features are laid side by side."""
    grid = np.arange(side * side).reshape(side // 2, 2, side // 2, 2)  # [row, lower, column, right]
    return grid.transpose(0, 2, 3, 1).reshape(-1, 4)


def positions(order: Array) -> Array:
    """The row at which each patch stands in an order: its inverse."""
    rows = np.empty_like(order)
    rows[order] = np.arange(len(order))
    return rows


def relative_positions(window: int) -> Array:
    """For a query and a key in a window, the row of the table of biases: (window², window²)."""
    y, x = np.divmod(np.arange(window * window), window)
    down: Array = y[:, None] - y[None, :]
    right: Array = x[:, None] - x[None, :]
    return (down + window - 1) * (2 * window - 1) + right + window - 1


def shift_mask(side: int, window: int, shift: int) -> Array:
    """What is added to scores in shifted windows, whose patches may come from opposite edges: (windows, n, n)."""
    at = np.arange(side)
    band = (at >= side - window).astype(int) + (at >= side - shift)
    region = (band[:, None] * 3 + band[None, :]).reshape(-1)[window_order(side, window)].reshape(-1, window * window)
    seen: Array = region[:, :, None] == region[:, None, :]
    return np.where(seen, np.float32(0), np.float32(_OUT_OF_SIGHT))
