"""Products of matrices, vectors and tensors. float16 and bfloat16 are computed in float32 and rounded once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tallow.errors import ShapeError
from tallow.ops.dispatch import operation
from tallow.ops.operands import axes_of, axis_of, common_dtype, module_of, quiet, widened, wrap_as
from tallow.tensor import Tensor


def _common(name: str, x1: Tensor, x2: Tensor) -> tuple[Any, Any, np.dtype[Any]]:
    """The arrays of both factors in the type to compute in, and the type of the result."""
    a, b = x1.storage, x2.storage
    dtype = a.dtype
    if dtype != b.dtype:
        dtype = common_dtype(name, x1, x2).numpy
        a, b = a.astype(dtype, copy=False), b.astype(dtype, copy=False)
    return widened(a), widened(b), dtype


@operation
def matmul(x1: Tensor, x2: Tensor, /) -> Tensor:
    """The matrix product ``x1 @ x2``.

    Args:
        x1: (…, n, k), or a vector (k,), whose axis then drops out of the result.
        x2: (…, k, m), or a vector (k,) likewise; the leading axes broadcast.

    Raises:
        ShapeError: for shapes that do not fit.

    Examples:
        >>> x = tl.asarray([[1.0, 2.0], [3.0, 4.0]])
        >>> tl.matmul(x, x).tolist()
        [[7.0, 10.0], [15.0, 22.0]]
        >>> (x @ tl.asarray([1.0, 1.0])).tolist()
        [3.0, 7.0]
    """
    a, b, dtype = _common("matmul", x1, x2)
    try:
        return wrap_as(quiet.run(np.matmul, a, b), dtype, x1.device)
    except ValueError:
        raise ShapeError(f"matmul: shapes {x1.shape} and {x2.shape} do not fit: {_misfit(x1, x2)}") from None


def _misfit(x1: Tensor, x2: Tensor) -> str:
    if not x1.ndim or not x2.ndim:
        return "both need at least one axis"
    inner = x2.shape[-2] if x2.ndim > 1 else x2.shape[0]
    if x1.shape[-1] != inner:
        return f"x1 has {x1.shape[-1]} columns, x2 {inner} rows"
    return f"leading axes {x1.shape[:-2]} and {x2.shape[:-2]} do not broadcast"


@operation
def tensordot(x1: Tensor, x2: Tensor, /, *, axes: int | tuple[Sequence[int], Sequence[int]] = 2) -> Tensor:
    """Products summed over pairs of axes.

    Args:
        x1: the first tensor.
        x2: the second tensor.
        axes: how many axes, the last of x1 with the first of x2; or the axes of each, in pairs.

    Returns:
        x1's other axes, then x2's.
    """
    a, b, dtype = _common("tensordot", x1, x2)
    if isinstance(axes, int):
        pairs = (list(range(a.ndim - axes, a.ndim)), list(range(axes)))
        if not 0 <= axes <= min(a.ndim, b.ndim):
            raise ShapeError(f"tensordot: shapes {x1.shape} and {x2.shape} have no {axes} axes to sum over")
    else:
        pairs = (list(axes_of("tensordot", tuple(axes[0]), a.ndim)), list(axes_of("tensordot", tuple(axes[1]), b.ndim)))
    if [a.shape[i] for i in pairs[0]] != [b.shape[i] for i in pairs[1]]:
        raise ShapeError(f"tensordot: shapes {x1.shape} and {x2.shape} do not fit along axes {pairs[0]} and {pairs[1]}")
    return wrap_as(quiet.run(module_of(a).tensordot, a, b, axes=pairs), dtype, x1.device)


@operation
def vecdot(x1: Tensor, x2: Tensor, /, *, axis: int = -1) -> Tensor:
    """The products of vectors along an axis, summed; complex numbers of x1 are conjugated.

    Args:
        x1: (…, n, …).
        x2: (…, n, …); the other axes broadcast.
        axis: the vectors' axis, counted from the last one (so a negative number).
    """
    a, b, dtype = _common("vecdot", x1, x2)
    first, second = axis_of("vecdot", axis, a.ndim), axis_of("vecdot", axis, b.ndim)
    if a.shape[first] != b.shape[second]:
        raise ShapeError(f"vecdot: shapes {x1.shape} and {x2.shape} differ along axis {axis}")
    xp = module_of(a)
    rows, columns = xp.moveaxis(a, first, -1).conj()[..., None, :], xp.moveaxis(b, second, -1)[..., None]
    try:
        return wrap_as(quiet.run(np.matmul, rows, columns)[..., 0, 0], dtype, x1.device)
    except ValueError:
        raise ShapeError(f"vecdot: shapes {x1.shape} and {x2.shape} do not broadcast beside axis {axis}") from None


@operation
def outer(x1: Tensor, x2: Tensor, /) -> Tensor:
    """The products (n, m) of each element of a vector (n,) with each of another (m,)."""
    if x1.ndim != 1 or x2.ndim != 1:
        raise ShapeError(f"outer: expected two vectors, found shapes {x1.shape} and {x2.shape}")
    a, b, dtype = _common("outer", x1, x2)
    return wrap_as(quiet.run(np.multiply, a[:, None], b[None, :]), dtype, x1.device)


@operation
def cross(x1: Tensor, x2: Tensor, /, *, axis: int = -1) -> Tensor:
    """The cross products of vectors of 3 elements along an axis.

    Args:
        x1: (…, 3, …).
        x2: (…, 3, …); the other axes broadcast.
        axis: the vectors' axis, counted from the last one (so a negative number).
    """
    a, b, dtype = _common("cross", x1, x2)
    first, second = axis_of("cross", axis, a.ndim), axis_of("cross", axis, b.ndim)
    if a.shape[first] != 3 or b.shape[second] != 3:
        raise ShapeError(f"cross: shapes {x1.shape} and {x2.shape} do not both have size 3 in axis {axis}")
    xp = module_of(a)
    u, v = xp.moveaxis(a, first, 0), xp.moveaxis(b, second, 0)
    try:
        parts = [quiet.run(lambda i=i, j=j: u[i] * v[j] - u[j] * v[i]) for i, j in ((1, 2), (2, 0), (0, 1))]
    except ValueError:
        raise ShapeError(f"cross: shapes {x1.shape} and {x2.shape} do not broadcast beside axis {axis}") from None
    return wrap_as(xp.stack(parts, axis=axis), dtype, x1.device)
