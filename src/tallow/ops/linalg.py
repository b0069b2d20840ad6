"""Linear algebra, the array API's extension ``linalg``: decompositions, solutions, norms.

Matrices are the last two axes; the axes before them are a stack. Types: floating point and complex; integers are
computed in float32, float16 and bfloat16 in float32 and rounded once. A matrix that a function cannot handle (singular,
not positive definite) raises ArgumentError, shapes that do not fit ShapeError.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from tallow import dtypes
from tallow.dtypes import DTypeLike, as_dtype
from tallow.errors import ArgumentError, DTypeError, ShapeError
from tallow.ops.dispatch import operation
from tallow.ops.manipulation import matrix_transpose
from tallow.ops.operands import axes_of, common_dtype, module_of, quiet, widened, wrap, wrap_as
from tallow.ops.products import cross, matmul, outer, tensordot, vecdot
from tallow.ops.statistics import total_type
from tallow.tensor import Tensor

__all__ = [
    "cholesky",
    "cross",
    "det",
    "diagonal",
    "eigh",
    "eigvalsh",
    "inv",
    "matmul",
    "matrix_norm",
    "matrix_power",
    "matrix_rank",
    "matrix_transpose",
    "outer",
    "pinv",
    "qr",
    "slogdet",
    "solve",
    "svd",
    "svdvals",
    "tensordot",
    "trace",
    "vecdot",
    "vector_norm",
]


def _matrices(name: str, x: Tensor, square: bool = False) -> Any:
    """The array of a stack of matrices, in a type to compute in."""
    if x.ndim < 2 or (square and x.shape[-1] != x.shape[-2]):
        raise ShapeError(f"{name}: expected {'square ' if square else ''}matrices (…, m, n), found shape {x.shape}")
    return x.storage.astype(np.float32) if x.storage.dtype.kind in "iub" else widened(x.storage)


def _run(name: str, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    try:
        return quiet.run(function, *args, **options)
    except np.linalg.LinAlgError as error:
        raise ArgumentError(f"{name}: {str(error).lower()}") from None
    except ValueError as error:
        raise ShapeError(f"{name}: {error}") from None


def _like(result: Any, x: Tensor) -> Tensor:
    """A result in x's type where x is a narrow float; else as it was computed."""
    return wrap_as(result, x.storage.dtype, x.device) if x.dtype.kind == "float" else wrap(result, x.device)


def _adjoint(array: Any) -> Any:
    return array.swapaxes(-1, -2).conj()


@operation
def cholesky(x: Tensor, /, *, upper: bool = False) -> Tensor:
    """The triangular L with ``L @ L^H = x``, or U with ``U^H @ U = x``, for Hermitian positive-definite matrices."""
    a = _matrices("cholesky", x, square=True)
    result = _run("cholesky", module_of(a).linalg.cholesky, a)
    return _like(_adjoint(result) if upper else result, x)


@operation
def det(x: Tensor, /) -> Tensor:
    """The determinants (…) of square matrices (…, n, n)."""
    a = _matrices("det", x, square=True)
    return _like(_run("det", module_of(a).linalg.det, a), x)


class SlogdetResult(NamedTuple):
    """A determinant as ``sign * exp(logabsdet)``."""

    sign: Tensor
    logabsdet: Tensor


@operation
def slogdet(x: Tensor, /) -> SlogdetResult:
    """The signs and the logarithms of the sizes of the determinants, which then neither overflow nor underflow."""
    a = _matrices("slogdet", x, square=True)
    sign, size = _run("slogdet", module_of(a).linalg.slogdet, a)
    return SlogdetResult(_like(sign, x), _like(size, x))


@operation
def diagonal(x: Tensor, /, *, offset: int = 0) -> Tensor:
    """A view (…, k) of the diagonals of matrices (…, m, n), ``offset`` places above the main one."""
    if x.ndim < 2:
        raise ShapeError(f"diagonal: expected matrices (…, m, n), found shape {x.shape}")
    return Tensor(x.storage.diagonal(offset, -2, -1), x.device)


@operation
def trace(x: Tensor, /, *, offset: int = 0, dtype: DTypeLike | None = None) -> Tensor:
    """The sums (…) of the diagonals of matrices (…, m, n); the type is as for ``sum``."""
    if x.ndim < 2:
        raise ShapeError(f"trace: expected matrices (…, m, n), found shape {x.shape}")
    target = total_type(x.dtype) if dtype is None else as_dtype(dtype)
    total = quiet.run(x.storage.diagonal(offset, -2, -1).sum, axis=-1, dtype=dtypes.wide(target).numpy)
    return wrap_as(total, target.numpy, x.device)


class EighResult(NamedTuple):
    """Eigenvalues (…, n) in ascending order, and eigenvectors (…, n, n) in the columns."""

    eigenvalues: Tensor
    eigenvectors: Tensor


@operation
def eigh(x: Tensor, /) -> EighResult:
    """The eigenvalues and eigenvectors of Hermitian matrices (…, n, n), of which the lower triangle is read."""
    a = _matrices("eigh", x, square=True)
    values, vectors = _run("eigh", module_of(a).linalg.eigh, a)
    return EighResult(_like(values, x), _like(vectors, x))


@operation
def eigvalsh(x: Tensor, /) -> Tensor:
    """The eigenvalues (…, n) of Hermitian matrices, in ascending order."""
    a = _matrices("eigvalsh", x, square=True)
    return _like(_run("eigvalsh", module_of(a).linalg.eigvalsh, a), x)


@operation
def inv(x: Tensor, /) -> Tensor:
    """The inverses of square matrices. Raises ArgumentError for a singular one."""
    a = _matrices("inv", x, square=True)
    return _like(_run("inv", module_of(a).linalg.inv, a), x)


@operation
def solve(x1: Tensor, x2: Tensor, /) -> Tensor:
    """The X with ``x1 @ X = x2``.

    Args:
        x1: (…, n, n), invertible.
        x2: (…, n, k), whose leading axes broadcast with x1's; or one vector (n,).

    Raises:
        ArgumentError: for a singular matrix.

    Examples:
        >>> a, b = tl.asarray([[2.0, 0.0], [0.0, 4.0]]), tl.asarray([2.0, 2.0])
        >>> tl.linalg.solve(a, b).tolist()
        [1.0, 0.5]
    """
    dtype = common_dtype("solve", x1, x2)
    a = _matrices("solve", x1, square=True)
    b = x2.storage.astype(np.float32) if x2.storage.dtype.kind in "iub" else widened(x2.storage)
    if b.ndim == 0 or b.shape[-1 if b.ndim == 1 else -2] != a.shape[-1]:
        raise ShapeError(f"solve: shapes {x1.shape} and {x2.shape} do not fit")
    result = _run("solve", module_of(a).linalg.solve, a, b)
    return wrap_as(result, dtype.numpy, x1.device) if dtype.kind == "float" else wrap(result, x1.device)


@operation
def matrix_power(x: Tensor, n: int, /) -> Tensor:
    """Square matrices multiplied with themselves n times; of their inverses for a negative n."""
    a = _matrices("matrix_power", x, square=True)
    return _like(_run("matrix_power", module_of(a).linalg.matrix_power, a, n), x)


class QRResult(NamedTuple):
    """Orthonormal columns and an upper triangle, whose product is the matrix."""

    Q: Tensor
    R: Tensor


@operation
def qr(x: Tensor, /, *, mode: str = "reduced") -> QRResult:
    """The QR decomposition of matrices (…, m, n); with k = min(m, n),

    Q is (…, m, k) and R (…, k, n) for ``mode="reduced"``, Q (…, m, m) and R (…, m, n) for ``"complete"``.
    """
    if mode not in ("reduced", "complete"):
        raise ArgumentError(f"qr: mode is {mode!r}; expected 'reduced' or 'complete'")
    a = _matrices("qr", x)
    q, r = _run("qr", module_of(a).linalg.qr, a, mode)
    return QRResult(_like(q, x), _like(r, x))


class SVDResult(NamedTuple):
    """``U @ diag(S) @ Vh`` is the matrix; S is in descending order."""

    U: Tensor
    S: Tensor
    Vh: Tensor


@operation
def svd(x: Tensor, /, *, full_matrices: bool = True) -> SVDResult:
    """The singular value decomposition of matrices (…, m, n); with k = min(m, n),

    U is (…, m, m), S (…, k) and Vh (…, n, n); with ``full_matrices=False``, U is (…, m, k) and Vh (…, k, n).
    """
    a = _matrices("svd", x)
    u, s, vh = _run("svd", module_of(a).linalg.svd, a, full_matrices)
    return SVDResult(_like(u, x), _like(s, x), _like(vh, x))


@operation
def svdvals(x: Tensor, /) -> Tensor:
    """The singular values (…, k) of matrices (…, m, n), in descending order."""
    a = _matrices("svdvals", x)
    return _like(_run("svdvals", module_of(a).linalg.svd, a, compute_uv=False), x)


def _tolerance(x: Tensor, rtol: float | Tensor | None) -> Any:
    """The relative size below which a singular value counts as 0, by default ``max(m, n) * eps``."""
    if rtol is None:
        real = x.dtype if x.dtype.kind in ("float", "complex") else dtypes.float32
        return max(x.shape[-2:]) * dtypes.finfo(real).eps
    return rtol.storage if type(rtol) is Tensor else rtol


@operation
def matrix_rank(x: Tensor, /, *, rtol: float | Tensor | None = None) -> Tensor:
    """The number (int64) of singular values that are larger than ``rtol`` times the largest one.

    Args:
        x: (…, m, n).
        rtol: a number, or one for each matrix (…); by default ``max(m, n) * eps``.
    """
    a = _matrices("matrix_rank", x)
    values = _run("matrix_rank", module_of(a).linalg.svd, a, compute_uv=False)
    largest = values.max(axis=-1, initial=0)
    limit = quiet.run(np.multiply, largest, _tolerance(x, rtol))
    return wrap((values > limit[..., None]).sum(axis=-1, dtype=np.int64), x.device)


@operation
def pinv(x: Tensor, /, *, rtol: float | Tensor | None = None) -> Tensor:
    """The pseudo-inverses (…, n, m) of matrices (…, m, n) (Moore and Penrose).

    Args:
        x: (…, m, n).
        rtol: singular values up to ``rtol`` times the largest count as 0; see ``matrix_rank``.
    """
    a = _matrices("pinv", x)
    return _like(_run("pinv", module_of(a).linalg.pinv, a, _tolerance(x, rtol)), x)


@operation
def matrix_norm(x: Tensor, /, *, keepdims: bool = False, ord: float | str | None = "fro") -> Tensor:
    """The norms (…) of matrices (…, m, n).

    Args:
        x: the matrices.
        keepdims: keep the last two axes with size 1.
        ord: ``"fro"`` (root of the sum of squares), ``"nuc"`` (sum of the singular values), 1 and -1 (largest and
            smallest column sum of sizes), inf and -inf (of rows), 2 and -2 (largest and smallest singular value).
    """
    if ord not in ("fro", "nuc", 1, -1, 2, -2, math.inf, -math.inf, None):
        raise ArgumentError(f"matrix_norm: ord is {ord!r}; expected 'fro', 'nuc', ±1, ±2 or ±inf")
    a = _matrices("matrix_norm", x)
    norm = module_of(a).linalg.norm
    return _like(_run("matrix_norm", norm, a, ord="fro" if ord is None else ord, axis=(-2, -1), keepdims=keepdims), x)


@operation
def vector_norm(
    x: Tensor, /, *, axis: int | tuple[int, ...] | None = None, keepdims: bool = False, ord: float = 2
) -> Tensor:
    """The norms of vectors along an axis, or of all elements along several: ``sum(|x| ** ord) ** (1 / ord)``.

    Args:
        x: the vectors.
        axis: their axis or axes; None for all elements.
        keepdims: keep these axes with size 1.
        ord: the order; inf and -inf are the largest and smallest size, 0 the number of elements that are not 0.
    """
    if isinstance(ord, str):
        raise DTypeError(f"vector_norm: ord is {ord!r}; expected a number")
    axes = None if axis is None else axes_of("vector_norm", axis, x.ndim)
    a = x.storage.astype(np.float32) if x.storage.dtype.kind in "iub" else widened(x.storage)
    size = np.abs(a)
    return _like(_run("vector_norm", _norm, size, axes, keepdims, ord), x)


def _norm(size: Any, axes: tuple[int, ...] | None, keepdims: bool, ord: float) -> Any:
    if ord == math.inf:
        return size.max(axis=axes, keepdims=keepdims)
    if ord == -math.inf:
        return size.min(axis=axes, keepdims=keepdims)
    if ord == 0:
        return (size != 0).sum(axis=axes, keepdims=keepdims, dtype=size.dtype)
    if ord == 1:
        return size.sum(axis=axes, keepdims=keepdims)
    if ord == 2:
        return np.sqrt(np.square(size).sum(axis=axes, keepdims=keepdims))
    return (size**ord).sum(axis=axes, keepdims=keepdims) ** (1 / ord)
