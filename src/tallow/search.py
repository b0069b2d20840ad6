"""Exact similarity search: the vectors that have the largest inner products with a query.

``tl.search.top_k`` is the piece to begin with before there is a vector database: no index to build, no approximation,
vectors in memory or in a file larger than it.
"""

from __future__ import annotations

import mmap
import operator
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from tallow.errors import ArgumentError, CaptureError, DeviceError, DTypeError, ShapeError
from tallow.tensor import Tensor

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    Vectors = Tensor | ArrayLike | str | os.PathLike[str]

Array = np.ndarray[Any, Any]

_CHUNK = 64 << 20  # bytes of vectors between two looks at what Python has to do: Ctrl-C, pages to give back
_STORED = (np.float32, np.float16, np.int8)


def top_k(
    queries: Tensor | ArrayLike, vectors: Vectors, k: int, *, scales: Tensor | ArrayLike | float | None = None
) -> tuple[Tensor, Tensor]:
    """The k vectors that have the largest inner products with each query: all are looked at, none is missed.

    For rows of length 1, as the models' ``embed`` methods give them, the inner product is the cosine.

    Args:
        queries: (q, dim) or, for one, (dim,); floating point, computed with in float32.
        vectors: (n, dim) in float32, float16 or int8: a tensor, an array, or the path of a ``.npy`` file. Files and
            memory-mapped arrays are read once from front to back, and their pages given back behind the reader, so they
            may be larger than memory.
        k: how many to find, at least 1; of fewer vectors, all are found.
        scales: what the elements of vector i are multiplied with, (n,), or one number for all. None: 1, and for int8
            1/127, so that ``round(127 * x)`` stands for x in [-1, 1].

    Returns:
        Scores in float32 and indices in int64, both (q, min(k, n)), the best first; (min(k, n),) for one query. Of
        equal scores that of the lower index comes first. A score that is NaN comes behind all others. The bits of a
        score depend on its query and its vector alone, whatever stands beside them and however many threads there are
        (they may differ between processors).

    Raises:
        ShapeError: for arrays of other shapes.
        DTypeError: for vectors or queries of another type.
        ArgumentError: for a k below 1, or a file that is no ``.npy`` file.

    Examples:
        >>> vectors = tl.asarray([[0.0, 1.0], [0.6, 0.8], [1.0, 0.0]])
        >>> scores, indices = tl.search.top_k(tl.asarray([1.0, 0.0]), vectors, k=2)
        >>> indices.tolist()
        [2, 1]
    """
    count = _count(k)
    asked = _floats(queries, "queries")
    stored = _vectors(vectors)
    if asked.ndim not in (1, 2) or stored.ndim != 2 or asked.shape[-1] != stored.shape[1]:
        raise ShapeError(
            f"top_k: expected queries (q, dim) or (dim,) and vectors (n, dim) of the same dim, found queries of shape "
            f"{asked.shape} and vectors of shape {stored.shape}"
        )
    factors = _factors(scales, stored)
    scores, indices = _search(np.atleast_2d(asked), stored, factors, count)
    single = asked.ndim == 1
    return Tensor(scores[0] if single else scores), Tensor(indices[0] if single else indices)


def _search(queries: Array, vectors: Array, factors: Array, k: int) -> tuple[Array, Array]:
    import tallow.backends.cpu  # noqa: F401
    from tallow import _cpu

    if _cpu.recording():
        raise CaptureError("top_k: a search cannot be recorded for replay")
    search = _cpu.Search(np.require(queries, requirements=["C", "A"]), k)
    for begin, chunk in _chunks(vectors):
        search.add(chunk, factors[begin : begin + len(chunk)], begin)
    shape = len(queries), min(k, len(vectors))
    scores, indices = np.empty(shape, np.float32), np.empty(shape, np.int64)
    search.results(scores, indices)
    return scores, indices


def _chunks(vectors: Array) -> Iterator[tuple[int, Array]]:
    """The rows in pieces that the kernel can read, and where each begins."""
    size = vectors.itemsize
    rows = max(1, _CHUNK // max(1, vectors.shape[1] * size))
    pages = _Pages(vectors)
    for begin in range(0, len(vectors), rows):
        piece, following = vectors[begin : begin + rows], vectors[begin + rows : begin + 2 * rows]
        pages.expect(following)
        if not piece.flags.aligned or piece.strides[0] % size or (piece.shape[1] > 1 and piece.strides[1] != size):
            piece = piece.astype(piece.dtype, order="C")
        yield begin, piece
        pages.release(vectors[begin : begin + rows])


class _Pages:
    """The pages under an array, where it lies in a mapped file; nothing is done for any other array.

    A copy-on-write mapping is left alone: to drop its pages would undo what was written to them.
    """

    def __init__(self, array: Array) -> None:
        shared = (
            getattr(array, "mode", None) in ("r", "r+", "w+") and array.strides[0] >= array.shape[1] * array.itemsize
        )
        self._map = getattr(array, "_mmap", None) if shared and hasattr(mmap.mmap, "madvise") else None
        if self._map is not None:
            self._start = np.frombuffer(self._map, np.uint8).__array_interface__["data"][0]

    def expect(self, rows: Array) -> None:
        """Begin to read these rows."""
        self._advise("MADV_WILLNEED", rows)

    def release(self, rows: Array) -> None:
        """Give the pages of these rows back to the system, which reads them again should they be wanted."""
        self._advise("MADV_DONTNEED", rows)

    def _advise(self, advice: str, rows: Array) -> None:
        if self._map is None or not rows.size or not hasattr(mmap, advice):
            return
        offset = rows.__array_interface__["data"][0] - self._start
        start = offset // mmap.PAGESIZE * mmap.PAGESIZE
        length = offset + (len(rows) - 1) * rows.strides[0] + rows.shape[1] * rows.itemsize - start
        self._map.madvise(getattr(mmap, advice), start, length)


def _count(k: int) -> int:
    try:
        count = operator.index(k)
    except TypeError:
        raise ArgumentError(f"top_k: k is {k!r}; expected a whole number") from None
    if count < 1:
        raise ArgumentError(f"top_k: k is {count}; expected at least 1")
    return min(count, 1 << 62)


def _array(value: Any, what: str) -> Array:
    if isinstance(value, Tensor):
        if not isinstance(value.storage, np.ndarray):
            raise DeviceError(f"top_k: {what} lie on {value.device}; the search runs on the CPU, so move them there")
        return value.storage
    return np.asanyarray(value)


def _floats(value: Any, what: str) -> Array:
    array = _array(value, what)
    if array.dtype.kind != "f" and array.dtype.name != "bfloat16":
        raise DTypeError(f"top_k: expected {what} in floating point, found {array.dtype}")
    return array.astype(np.float32, copy=False)


def _vectors(value: Any) -> Array:
    array = _opened(value) if isinstance(value, str | os.PathLike) else _array(value, "vectors")
    if array.dtype not in _STORED or not array.dtype.isnative:
        raise DTypeError(
            f"top_k: expected vectors in float32, float16 or int8, found {array.dtype}; convert them first"
        )
    return array


def _opened(path: str | os.PathLike[str]) -> Array:
    try:
        try:
            return np.lib.format.open_memmap(path, mode="r")
        except ValueError:  # NumPy maps no array without elements, which is as well read
            array: Array = np.load(path, allow_pickle=False)
            if not isinstance(array, np.ndarray) or array.size:
                raise
            return array
    except (OSError, ValueError, EOFError, SyntaxError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ArgumentError(f"top_k: {os.fspath(path)} cannot be mapped as a .npy file: {reason}") from None


def _factors(scales: Any, vectors: Array) -> Array:
    """A number for each vector, (n,) float32, perhaps the same one again and again."""
    n = len(vectors)
    if scales is None:
        scales = np.float32(1 / 127 if vectors.dtype == np.int8 else 1)
    factors = np.asarray(_floats(np.float32(scales) if isinstance(scales, int | float) else scales, "scales"))
    if factors.shape not in ((), (n,)):
        raise ShapeError(f"top_k: expected one scale, or one for each of {n:,} vectors, found shape {factors.shape}")
    return np.broadcast_to(np.require(factors, requirements=["A"]), (n,))
