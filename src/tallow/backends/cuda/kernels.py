"""Kernels as functions that can be launched, and what they are told about arrays."""

from __future__ import annotations

from typing import Any

import cupy
from cupy_backends.cuda.api import driver

from tallow import dtypes
from tallow.backends.cuda.compiler import architecture, machine_code
from tallow.device import compute_capability

NAMES = {dtypes.float32.numpy: "f32", dtypes.float16.numpy: "f16", dtypes.bfloat16.numpy: "bf16"}
"""The types that kernels compute on, as the sources call them."""

_MAX_DYNAMIC_SHARED = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
_functions: dict[Any, Any] = {}


def function(file: str, name: str, shared: int = 0, **macros: Any) -> Any:
    """A kernel for the current card, to be called with a grid, a block and its arguments.

    Arrays, Python integers (64 bits there) and floats (double) may be passed; 0 is the null pointer.

    Args:
        file: its source, without ``.cu``.
        name: its name there.
        shared: bytes of shared memory that it will be launched with.
        macros: what the source leaves open.
    """
    key = (file, name, cupy.cuda.runtime.getDevice(), *macros.values())
    found = _functions.get(key)
    if found is None:
        module = cupy.cuda.function.Module()
        module.load(machine_code(f"{file}.cu", macros, architecture(compute_capability(key[2]))))
        found = module.get_function(name)
        if shared > 48 << 10:
            driver.funcSetAttribute(found.ptr, _MAX_DYNAMIC_SHARED, shared)
        found = _functions.setdefault(key, found)
    return found


_tickets: dict[int, Any] = {}
TICKETS = 1 << 16


def tickets() -> Any:
    """Counters (uint32), all zero between kernels, by which the last block of a kernel knows that it is."""
    index = cupy.cuda.runtime.getDevice()
    if index not in _tickets:
        _tickets[index] = cupy.zeros(TICKETS, cupy.uint32)
    return _tickets[index]


def strides(array: Any) -> list[int]:
    """The distances between neighbours along each axis, in elements."""
    size = array.itemsize
    return [stride // size for stride in array.strides]


def adjacent(array: Any) -> Any:
    """The array, copied only if neighbours along its last axis do not lie side by side."""
    if array.ndim and array.shape[-1] != 1 and array.strides[-1] != array.itemsize:
        return cupy.ascontiguousarray(array)
    return array


def rows_of(array: Any) -> tuple[Any, int, int, int, int]:
    """An array as rows along its last axis, copied only where two strides cannot describe them.

    Returns:
        The array, the number of rows, and (inner, outer stride, inner stride), in elements, by which row r begins at
        ``r // inner * outer + r % inner * inner stride``.
    """
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
        return rows_of(cupy.ascontiguousarray(array))
    (outer, outer_stride), (inner, inner_stride) = [*[(1, 0)] * (2 - len(axes)), *axes]
    return array, outer * inner, inner, outer_stride, inner_stride


def matrix_of(array: Any) -> tuple[Any, int, int]:
    """An array as rows at equal distances: the array (copied if need be), their number and distance in elements."""
    array, rows, inner, _, distance = rows_of(array)
    width = array.shape[-1]
    if rows == inner and (distance >= width or rows == 1):
        return array, rows, distance if rows > 1 else width
    return cupy.ascontiguousarray(array), rows, width
