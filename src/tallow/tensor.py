"""The Tensor: a thin value around an array that NumPy or CuPy owns.

It defines no operation: its operators and methods call those of ``tallow.ops``, under the names that users of the array
API, of PyTorch and of Candle know.
"""

from __future__ import annotations

import builtins
from typing import TYPE_CHECKING, Any

import numpy as np

from tallow import dtypes
from tallow.device import CPU, Device, as_device
from tallow.dtypes import DType, DTypeLike
from tallow.errors import ArgumentError, ShapeError
from tallow.operators import Operators

if TYPE_CHECKING:
    from types import ModuleType

Shape = builtins.tuple[int, ...]
Axes = int | tuple[int, ...] | None


class Tensor(Operators):
    """An n-dimensional array with a dtype and a device. Made by ``tl.asarray``, ``tl.zeros`` and their like.

    Attributes:
        storage: the ``numpy.ndarray`` (CPU) or ``cupy.ndarray`` (CUDA) that holds the elements. Views share it.
        device: where it lies.

    Examples:
        >>> x = tl.asarray([[1.0, 2.0], [3.0, 4.0]])
        >>> x
        Tensor([[1., 2.],
                [3., 4.]], shape=(2, 2), dtype=float32, device='cpu')
        >>> (x @ x.T).sum(axis=1).tolist()
        [16.0, 36.0]
        >>> x[:, 0].numpy()
        array([1., 3.], dtype=float32)
    """

    __slots__ = ("__weakref__", "device", "storage")
    __array_priority__ = 1000  # NumPy's operators leave ``array + tensor`` to us

    def __init__(self, storage: Any, device: Device = CPU) -> None:
        self.storage = storage
        self.device = device

    # --- what it is --------------------------------------------------------------------------------------------------

    @property
    def shape(self) -> Shape:
        """The size of each axis."""
        return self.storage.shape  # type: ignore[no-any-return]

    @property
    def dtype(self) -> DType:
        """The type of the elements."""
        return dtypes.of_numpy(self.storage.dtype)

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return self.storage.ndim  # type: ignore[no-any-return]

    @property
    def size(self) -> int:
        """The number of elements."""
        return self.storage.size  # type: ignore[no-any-return]

    @property
    def nbytes(self) -> int:
        """The bytes that the elements take."""
        return self.storage.nbytes  # type: ignore[no-any-return]

    def dim(self) -> int:
        """The number of axes, as ``ndim``."""
        return self.storage.ndim  # type: ignore[no-any-return]

    def numel(self) -> int:
        """The number of elements, as ``size``."""
        return self.storage.size  # type: ignore[no-any-return]

    def is_contiguous(self) -> bool:
        """Whether the elements lie in row-major order without gaps. No operation needs it."""
        return self.storage.flags.c_contiguous  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        array = self.storage if self.device is CPU else self.storage.get()
        options: dict[str, Any] = {"separator": ", ", "prefix": "Tensor(", "threshold": 200, "edgeitems": 3}
        if array.dtype == dtypes.bfloat16.numpy:  # which NumPy does not know how to print
            options["formatter"] = {"all": lambda value: str(float(f"{float(value):.4g}"))}
        text = np.array2string(array, **options)
        return f"Tensor({text}, shape={self.shape}, dtype={self.dtype.name}, device={str(self.device)!r})"

    # --- the array API's protocol ------------------------------------------------------------------------------------

    def __array_namespace__(self, /, *, api_version: str | None = None) -> ModuleType:
        import tallow

        if api_version not in (None, "2021.12", "2022.12", "2023.12", "2024.12"):
            raise ArgumentError(f"array API version {api_version!r} is not known; this is 2024.12")
        return tallow

    def to_device(self, device: Device | str, /, *, stream: Any = None) -> Tensor:
        """The same values on another device; the tensor itself if it lies there."""
        return ops.to_device(self, device, stream=stream)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0) if self.device.kind == "cpu" else (2, self.device.index)

    def __dlpack__(
        self,
        *,
        stream: Any = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        from tallow.dlpack import exported

        return exported(self, stream, max_version, dl_device, copy)

    # --- into NumPy and Python ---------------------------------------------------------------------------------------

    def numpy(self) -> np.ndarray[Any, Any]:
        """The values as a NumPy array: the very storage on the CPU, a copy from CUDA."""
        return ops.to_numpy(self)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        array = self.numpy()
        wanted = array.dtype if dtype is None else np.dtype(dtype)
        if copy is False and (wanted != array.dtype or self.device.kind != "cpu"):
            raise ArgumentError(f"a copy is needed from {self.dtype.name} on {self.device} to {wanted} on the CPU")
        return array.astype(wanted, copy=bool(copy))

    def item(self) -> Any:
        """The only element as a Python bool, int, float or complex. Raises ShapeError if there are more."""
        if self.storage.size != 1:
            raise ShapeError(f"item: expected one element, found shape {self.shape}")
        return ops.tolist(self if not self.storage.ndim else self.reshape(()))

    def tolist(self) -> Any:
        """The elements as nested lists of Python scalars; a scalar for a tensor of no dimension."""
        return ops.tolist(self)

    def __reduce__(self) -> Any:
        return _restored, (self.numpy(), str(self.device))

    def __copy__(self) -> Tensor:
        return ops.copy(self)

    def __deepcopy__(self, memo: Any) -> Tensor:
        return ops.copy(self)

    # --- parts -------------------------------------------------------------------------------------------------------

    def __getitem__(self, key: Any, /) -> Tensor:
        return ops.getitem(self, key)

    def __setitem__(self, key: Any, value: Any, /) -> None:
        ops.setitem(self, key, value)

    def take(self, indices: Tensor, /, *, axis: int | None = None) -> Tensor:
        """Elements of an axis by their indices; see ``ops.take``."""
        return ops.take(self, indices, axis=axis)

    def narrow(self, axis: int, start: int, length: int) -> Tensor:
        """A view of ``length`` elements along an axis, from ``start`` on."""
        return ops.narrow(self, axis, start, length)

    def unstack(self, *, axis: int = 0) -> tuple[Tensor, ...]:
        """Views without an axis, one for each index in it."""
        return ops.unstack(self, axis=axis)

    def split(self, sizes: int | list[int] | tuple[int, ...], *, axis: int = 0) -> tuple[Tensor, ...]:
        """Views of consecutive parts of an axis, of these sizes (or all of one size but the last)."""
        return ops.split(self, sizes, axis=axis)

    def chunk(self, chunks: int, *, axis: int = 0) -> tuple[Tensor, ...]:
        """Views of ``chunks`` consecutive parts of an axis, as equal as can be (the last may be smaller)."""
        if chunks < 1:
            raise ArgumentError(f"chunk: expected at least 1 part, found {chunks}")
        size = self.shape[axis_of("chunk", axis, self.ndim)]
        return ops.split(self, max(-(-size // chunks), 1), axis=axis)

    # --- shape -------------------------------------------------------------------------------------------------------

    def reshape(self, *shape: Any, copy: bool | None = None) -> Tensor:
        """The same elements in another shape, given as one tuple or size by size; one size may be -1."""
        sizes = shape[0] if len(shape) == 1 else shape
        return ops.reshape(self, sizes) if copy is None else ops.reshape(self, sizes, copy=copy)

    def flatten(self, start: int = 0, end: int = -1) -> Tensor:
        """The axes from ``start`` to ``end`` (included) made one; all of them by default."""
        shape = self.shape or (1,)
        first, last = axis_of("flatten", start, len(shape)), axis_of("flatten", end, len(shape))
        return ops.reshape(self, (*shape[:first], int(np.prod(shape[first : last + 1])), *shape[last + 1 :]))

    def transpose(self, a: int, b: int) -> Tensor:
        """A view with two axes exchanged."""
        return ops.swap_axes(self, a, b)

    def permute(self, *axes: Any) -> Tensor:
        """A view with the axes in another order, given as one tuple or axis by axis."""
        return ops.permute_dims(self, axes[0] if len(axes) == 1 and not isinstance(axes[0], int) else axes)

    @property
    def T(self) -> Tensor:  # noqa: N802
        """A matrix transposed, a view. Raises ShapeError for other than two dimensions (see mT)."""
        if self.storage.ndim != 2:
            raise ShapeError(f"T: expected 2 dimensions, found shape {self.shape}; see mT, transpose(a, b) and permute")
        return ops.matrix_transpose(self)

    @property
    def mT(self) -> Tensor:  # noqa: N802
        """A view with the last two axes exchanged."""
        return ops.matrix_transpose(self)

    def unsqueeze(self, axis: int) -> Tensor:
        """A view with an axis of size 1 put in."""
        return ops.expand_dims(self, axis)

    def squeeze(self, axis: int | tuple[int, ...] | None = None) -> Tensor:
        """A view without these axes of size 1, or all such axes."""
        sizes = self.storage.shape
        return ops.squeeze(self, tuple(i for i, n in enumerate(sizes) if n == 1) if axis is None else axis)

    def broadcast_to(self, *shape: Any) -> Tensor:
        """A read-only view in a larger shape, given as one tuple or size by size."""
        return ops.broadcast_to(self, shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape)

    def expand(self, *shape: Any) -> Tensor:
        """As ``broadcast_to``; -1 keeps an axis' size."""
        sizes = shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape
        new = len(sizes) - self.ndim
        return ops.broadcast_to(
            self, tuple(self.shape[i - new] if n == -1 and i >= new else n for i, n in enumerate(sizes))
        )

    def flip(self, axis: Axes = None) -> Tensor:
        """A view with the order of the elements reversed along these axes, or all."""
        return ops.flip(self, axis=axis)

    def repeat(self, repeats: int | Tensor, *, axis: int | None = None) -> Tensor:
        """Each element repeated in place; see ``ops.repeat``."""
        return ops.repeat(self, repeats, axis=axis)

    # --- type, device, layout ----------------------------------------------------------------------------------------

    def to(self, *targets: Any, device: Any = None, dtype: DTypeLike | None = None, copy: bool = False) -> Tensor:
        """The same values on another device, in another type, or both, in any order; itself if nothing changes.

        Args:
            targets: devices (``"cpu"``, ``"cuda:0"``, a Device), types (``tl.float16``, ``"bfloat16"``), or a tensor
                whose device and type to take.
            device: the device, by name.
            dtype: the type, by name.
            copy: True copies in any case.
        """
        for target in targets:
            if type(target) is Tensor:
                device, dtype = target.device, target.dtype
            elif isinstance(target, Device) or (isinstance(target, str) and not dtypes.is_name(target)):
                device = target
            elif target is not None:
                dtype = target
        place = self.device if device is None else as_device(device)
        return ops.astype(self, self.dtype if dtype is None else dtype, device=place, copy=copy)

    def astype(self, dtype: DTypeLike, *, copy: bool = True) -> Tensor:
        """The same values in another type."""
        return ops.astype(self, dtype, copy=copy)

    def float(self) -> Tensor:
        """In float32; itself if it is."""
        return ops.astype(self, dtypes.float32, copy=False)

    def half(self) -> Tensor:
        """In float16; itself if it is."""
        return ops.astype(self, dtypes.float16, copy=False)

    def bfloat16(self) -> Tensor:
        """In bfloat16; itself if it is."""
        return ops.astype(self, dtypes.bfloat16, copy=False)

    def contiguous(self) -> Tensor:
        """In row-major order; itself if it is. No operation needs it."""
        return ops.contiguous(self)

    def copy(self) -> Tensor:
        """In memory of its own."""
        return ops.copy(self)

    clone = copy

    # --- reductions --------------------------------------------------------------------------------------------------

    def sum(self, axis: Axes = None, keepdims: bool = False, *, dtype: DTypeLike | None = None) -> Tensor:
        """The sum along axes; see ``ops.sum``."""
        return ops.sum(self, axis=axis, keepdims=keepdims, dtype=dtype)

    def prod(self, axis: Axes = None, keepdims: bool = False, *, dtype: DTypeLike | None = None) -> Tensor:
        """The product along axes; see ``ops.prod``."""
        return ops.prod(self, axis=axis, keepdims=keepdims, dtype=dtype)

    def mean(self, axis: Axes = None, keepdims: bool = False) -> Tensor:
        """The arithmetic mean along axes; see ``ops.mean``."""
        return ops.mean(self, axis=axis, keepdims=keepdims)

    def var(self, axis: Axes = None, keepdims: bool = False, *, correction: builtins.float = 0.0) -> Tensor:
        """The variance along axes; see ``ops.var``."""
        return ops.var(self, axis=axis, keepdims=keepdims, correction=correction)

    def std(self, axis: Axes = None, keepdims: bool = False, *, correction: builtins.float = 0.0) -> Tensor:
        """The standard deviation along axes; see ``ops.std``."""
        return ops.std(self, axis=axis, keepdims=keepdims, correction=correction)

    def max(self, axis: Axes = None, keepdims: bool = False) -> Tensor:
        """The largest element along axes; see ``ops.max``."""
        return ops.max(self, axis=axis, keepdims=keepdims)

    def min(self, axis: Axes = None, keepdims: bool = False) -> Tensor:
        """The smallest element along axes; see ``ops.min``."""
        return ops.min(self, axis=axis, keepdims=keepdims)

    def argmax(self, axis: int | None = None, keepdims: bool = False) -> Tensor:
        """The index of the largest element along an axis; see ``ops.argmax``."""
        return ops.argmax(self, axis=axis, keepdims=keepdims)

    def argmin(self, axis: int | None = None, keepdims: bool = False) -> Tensor:
        """The index of the smallest element along an axis; see ``ops.argmin``."""
        return ops.argmin(self, axis=axis, keepdims=keepdims)

    def all(self, axis: Axes = None, keepdims: bool = False) -> Tensor:
        """Whether all elements along axes are true."""
        return ops.all(self, axis=axis, keepdims=keepdims)

    def any(self, axis: Axes = None, keepdims: bool = False) -> Tensor:
        """Whether any element along axes is true."""
        return ops.any(self, axis=axis, keepdims=keepdims)

    # --- element by element ------------------------------------------------------------------------------------------

    def clamp(self, min: Any = None, max: Any = None) -> Tensor:
        """Each element moved into ``[min, max]``."""
        return ops.clip(self, min, max)

    clip = clamp

    def sqr(self) -> Tensor:
        """``x * x``."""
        return ops.square(self)

    def sqrt(self) -> Tensor:
        """The square root."""
        return ops.sqrt(self)

    def exp(self) -> Tensor:
        """``e ** x``."""
        return ops.exp(self)

    def log(self) -> Tensor:
        """The natural logarithm."""
        return ops.log(self)

    def sin(self) -> Tensor:
        """The sine."""
        return ops.sin(self)

    def cos(self) -> Tensor:
        """The cosine."""
        return ops.cos(self)

    def tanh(self) -> Tensor:
        """The hyperbolic tangent."""
        return ops.tanh(self)

    def abs(self) -> Tensor:
        """The absolute value."""
        return ops.abs(self)

    def conj(self) -> Tensor:
        """The complex conjugate."""
        return ops.conj(self)

    @property
    def real(self) -> Tensor:
        """The real part, a view."""
        return ops.real(self)

    @property
    def imag(self) -> Tensor:
        """The imaginary part, a view."""
        return ops.imag(self)

    def matmul(self, other: Tensor) -> Tensor:
        """The matrix product, as ``@``."""
        return ops.matmul(self, other)


def _restored(array: np.ndarray[Any, Any], device: str) -> Tensor:
    return ops.to_device(Tensor(array), device)


# Operations are made of tensors, and a tensor's methods of operations: whichever file is imported first, the other one
# finds what it needs.
from tallow import ops  # noqa: E402
from tallow.ops.operands import axis_of  # noqa: E402
