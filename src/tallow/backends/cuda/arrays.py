"""What kernels are told about arrays."""

from __future__ import annotations

from typing import Any

from tallow.backends.cuda.copy import gapless


def strides(array: Any) -> list[int]:
    """The distances between neighbours along each axis, in elements."""
    size = array.itemsize
    return [stride // size for stride in array.strides]


def vector(*arrays: Any, width: int) -> int:
    """How many numbers of the first array's type kernels may read at a time: 16 bytes' worth, or 1.

    Args:
        arrays: all begin at multiples of 16 bytes, or it is 1; so do their rows, if they have any.
        width: of a row.
    """
    size = 16 // int(arrays[0].itemsize)
    return size if width % size == 0 and all(map(evenly_placed, arrays)) else 1


def evenly_placed(array: Any) -> bool:
    """Whether an array and its rows, along the last axis, begin at multiples of 16 bytes."""
    shape, distances = array.shape, array.strides
    united: int = array.data.ptr
    for axis in range(len(shape) - 1):
        if shape[axis] > 1:
            united |= distances[axis]
    return united % 16 == 0


def adjacent(array: Any) -> Any:
    """The array, copied only if neighbours along its last axis do not lie side by side."""
    if array.ndim and array.shape[-1] != 1 and array.strides[-1] != array.itemsize:
        return gapless(array)
    return array


def rows_of(array: Any) -> tuple[Any, int, int, int, int]:
    """An array as rows along its last axis, copied only where two strides cannot describe them.

    Returns:
        The array, the number of rows, and (inner, outer stride, inner stride), in elements, by which row r begins at
        ``r // inner * outer + r % inner * inner stride``.
    """
    width = array.shape[-1]
    if array.flags.c_contiguous and array.size:  # as what operations give mostly is
        rows = array.size // width
        return (array, rows, rows, 0, width) if rows > 1 else (array, 1, 1, 0, 0)
    array = adjacent(array)
    axes: list[tuple[int, int]] = []  # size and stride, neighbours that can be made one united
    for size, stride in zip(array.shape[:-1], strides(array), strict=False):
        if size == 1:
            continue
        if axes and axes[-1][1] == size * stride:
            axes[-1] = (axes[-1][0] * size, stride)
        else:
            axes.append((size, stride))
    if len(axes) > 2:
        return rows_of(gapless(array))
    (outer, outer_stride), (inner, inner_stride) = [*[(1, 0)] * (2 - len(axes)), *axes]
    return array, outer * inner, inner, outer_stride, inner_stride


def matrix_of(array: Any) -> tuple[Any, int, int]:
    """An array as rows at equal distances: the array (copied if need be), their number and distance in elements."""
    width = array.shape[-1]
    array, rows, inner, _, distance = rows_of(array)
    if rows == inner and (distance >= width or rows == 1):
        return array, rows, distance if rows > 1 else width
    return gapless(array), rows, width
