"""Discrete Fourier transforms, the array API's extension ``fft``.

``norm`` says where the factor 1/n stands: ``"backward"`` in the inverse, ``"forward"`` in the transform, ``"ortho"``
its root in both. float64 and complex128 are computed in double precision; everything else in float32 and complex64.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tallow import dtypes
from tallow.device import as_device
from tallow.dtypes import DTypeLike, as_dtype
from tallow.errors import ArgumentError, DTypeError, ShapeError
from tallow.ops.creation import Place
from tallow.ops.dispatch import operation
from tallow.ops.manipulation import roll
from tallow.ops.operands import axes_of, axis_of, make, module_of, quiet, wrap
from tallow.tensor import Tensor

__all__ = [
    "fft",
    "fftfreq",
    "fftn",
    "fftshift",
    "hfft",
    "ifft",
    "ifftn",
    "ifftshift",
    "ihfft",
    "irfft",
    "irfftn",
    "rfft",
    "rfftfreq",
    "rfftn",
]


def _input(name: str, x: Tensor, norm: str, real: bool = False) -> Any:
    """The array to transform, in single precision unless it is double."""
    if norm not in ("backward", "ortho", "forward"):
        raise ArgumentError(f"{name}: norm is {norm!r}; expected 'backward', 'ortho' or 'forward'")
    if real and x.dtype.kind == "complex":
        raise DTypeError(f"{name}: takes real numbers, found {x.dtype.name}")
    kept = x.dtype in (dtypes.float64, dtypes.complex64, dtypes.complex128)
    return x.storage if kept else x.storage.astype(np.float32, copy=False)


def _along(name: str, x: Tensor, n: int | None, axis: int, norm: str, real: bool = False) -> Tensor:
    """A transform along one axis."""
    array = _input(name, x, norm, real)
    found = axis_of(name, axis, x.ndim)
    try:
        return wrap(quiet.run(getattr(module_of(array).fft, name), array, n=n, axis=found, norm=norm), x.device)
    except ValueError as error:
        raise ShapeError(f"{name}: {error} (shape {x.shape}, n {n}, axis {axis})") from None


def _over(
    name: str, x: Tensor, s: Sequence[int] | None, axes: Sequence[int] | None, norm: str, real: bool = False
) -> Tensor:
    """A transform over several axes: all, or the last ones where only their sizes are given."""
    array = _input(name, x, norm, real)
    if axes is None:
        chosen = tuple(range(0 if s is None else max(x.ndim - len(s), 0), x.ndim))
    else:
        chosen = axes_of(name, tuple(axes), x.ndim)
    if s is not None and len(s) != len(chosen):
        raise ShapeError(f"{name}: {len(s)} sizes for {len(chosen)} axes")
    try:
        return wrap(quiet.run(getattr(module_of(array).fft, name), array, s=s, axes=chosen, norm=norm), x.device)
    except (ValueError, IndexError) as error:
        raise ShapeError(f"{name}: {error} (shape {x.shape}, s {s}, axes {axes})") from None


@operation
def fft(x: Tensor, /, *, n: int | None = None, axis: int = -1, norm: str = "backward") -> Tensor:
    """The transform along an axis.

    Args:
        x: complex (or real) numbers.
        n: the length to cut the axis or fill it with zeros to; by default its own.
        axis: the axis.
        norm: see above.
    """
    return _along("fft", x, n, axis, norm)


@operation
def ifft(x: Tensor, /, *, n: int | None = None, axis: int = -1, norm: str = "backward") -> Tensor:
    """The inverse of ``fft``; the arguments are the same."""
    return _along("ifft", x, n, axis, norm)


@operation
def fftn(
    x: Tensor, /, *, s: Sequence[int] | None = None, axes: Sequence[int] | None = None, norm: str = "backward"
) -> Tensor:
    """The transform over several axes.

    Args:
        x: complex (or real) numbers.
        s: the lengths to cut these axes or fill them with zeros to; by default their own.
        axes: the axes; by default all, or the last ``len(s)``.
        norm: see above.
    """
    return _over("fftn", x, s, axes, norm)


@operation
def ifftn(
    x: Tensor, /, *, s: Sequence[int] | None = None, axes: Sequence[int] | None = None, norm: str = "backward"
) -> Tensor:
    """The inverse of ``fftn``; the arguments are the same."""
    return _over("ifftn", x, s, axes, norm)


@operation
def rfft(x: Tensor, /, *, n: int | None = None, axis: int = -1, norm: str = "backward") -> Tensor:
    """The first ``n // 2 + 1`` terms of the transform of real numbers; the rest mirror them. See ``fft``.

    Examples:
        >>> tl.fft.rfft(tl.asarray([1.0, 0.0, 0.0, 0.0])).tolist()
        [(1+0j), (1+0j), (1+0j)]
    """
    return _along("rfft", x, n, axis, norm, real=True)


@operation
def irfft(x: Tensor, /, *, n: int | None = None, axis: int = -1, norm: str = "backward") -> Tensor:
    """The inverse of ``rfft``: n real numbers, by default ``2 * (m - 1)`` from m terms."""
    return _along("irfft", x, n, axis, norm)


@operation
def rfftn(
    x: Tensor, /, *, s: Sequence[int] | None = None, axes: Sequence[int] | None = None, norm: str = "backward"
) -> Tensor:
    """``rfft`` along the last of the axes, then ``fft`` along the others. See ``fftn``."""
    return _over("rfftn", x, s, axes, norm, real=True)


@operation
def irfftn(
    x: Tensor, /, *, s: Sequence[int] | None = None, axes: Sequence[int] | None = None, norm: str = "backward"
) -> Tensor:
    """The inverse of ``rfftn``; the last length is by default ``2 * (m - 1)`` for m terms."""
    return _over("irfftn", x, s, axes, norm)


@operation
def hfft(x: Tensor, /, *, n: int | None = None, axis: int = -1, norm: str = "backward") -> Tensor:
    """The real transform of a Hermitian signal, of which x holds the first half; n is by default ``2 * (m - 1)``."""
    return _along("hfft", x, n, axis, norm)


@operation
def ihfft(x: Tensor, /, *, n: int | None = None, axis: int = -1, norm: str = "backward") -> Tensor:
    """The inverse of ``hfft``: ``n // 2 + 1`` complex terms."""
    return _along("ihfft", x, n, axis, norm, real=True)


@operation
def fftfreq(n: int, /, *, d: float = 1.0, dtype: DTypeLike | None = None, device: Place = None) -> Tensor:
    """The frequencies of the terms of ``fft``, in cycles per unit of ``d``, the distance between samples.

    ``[0, 1, …, (n-1)//2, -(n//2), …, -1] / (d * n)``, float32 unless given.
    """
    return _frequencies("fftfreq", n, d, dtype, device)


@operation
def rfftfreq(n: int, /, *, d: float = 1.0, dtype: DTypeLike | None = None, device: Place = None) -> Tensor:
    """The frequencies of the terms of ``rfft``: ``[0, 1, …, n//2] / (d * n)``, float32 unless given."""
    return _frequencies("rfftfreq", n, d, dtype, device)


def _frequencies(name: str, n: int, d: float, dtype: DTypeLike | None, device: Place) -> Tensor:
    target = dtypes.float32 if dtype is None else as_dtype(dtype)
    if n < 1 or target.kind not in ("float", "complex"):
        raise ArgumentError(f"{name}: expected a length of at least 1 and a floating type, found {n}, {target.name}")
    if name == "rfftfreq":
        terms = make(as_device(device), "arange", n // 2 + 1, dtype=np.float64)
    else:
        terms = make(as_device(device), "arange", n, dtype=np.float64)
        terms.storage[(n + 1) // 2 :] -= n
    return wrap(quiet.run(np.divide, terms.storage, d * n).astype(target.numpy), terms.device)


@operation
def fftshift(x: Tensor, /, *, axes: int | Sequence[int] | None = None) -> Tensor:
    """x with frequency 0 moved to the middle of these axes, or all."""
    chosen = _axes("fftshift", x, axes)
    return roll(x, tuple(x.shape[axis] // 2 for axis in chosen), axis=chosen)


@operation
def ifftshift(x: Tensor, /, *, axes: int | Sequence[int] | None = None) -> Tensor:
    """The inverse of ``fftshift``."""
    chosen = _axes("ifftshift", x, axes)
    return roll(x, tuple(-(x.shape[axis] // 2) for axis in chosen), axis=chosen)


def _axes(name: str, x: Tensor, axes: int | Sequence[int] | None) -> tuple[int, ...]:
    given = range(x.ndim) if axes is None else axes
    return axes_of(name, given if isinstance(given, int) else tuple(given), x.ndim)
