"""Shapes: reshaping, reordering, joining and splitting. Whatever can be a view is one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tallow import dtypes
from tallow.errors import ArgumentError, DTypeError, ShapeError
from tallow.ops.dispatch import gives_view, operation
from tallow.ops.operands import axes_of, axis_of, module_of, same_device
from tallow.tensor import Tensor


@gives_view
@operation
def reshape(x: Tensor, /, shape: tuple[int, ...] | int, *, copy: bool | None = None) -> Tensor:
    """The same elements, in row-major order, in another shape.

    Args:
        x: the tensor.
        shape: the new sizes; one may be -1, which stands for what is left.
        copy: True always copies, False never (ArgumentError where the layout needs it), None only where needed.

    Raises:
        ShapeError: for a shape of another number of elements.

    Examples:
        >>> x = tl.arange(6)
        >>> tl.reshape(x, (2, -1)).tolist()
        [[0, 1, 2], [3, 4, 5]]
        >>> x.reshape(3, 2).shape
        (3, 2)
    """
    sizes = shape if type(shape) is tuple else tuple(shape) if isinstance(shape, list) else (shape,)
    array = x.storage
    try:
        result = array.reshape(sizes)
    except (ValueError, TypeError):
        raise ShapeError(f"reshape: {x.size} element(s) of shape {x.shape} do not fit the shape {sizes}") from None
    if copy is None:
        return Tensor(result, x.device)
    shares = module_of(array).may_share_memory(result, array) or array.size == 0
    if copy is False and not shares:
        raise ArgumentError(f"reshape: {x.shape} to {sizes} needs a copy of this layout, and copy=False forbids it")
    return Tensor(result.copy() if copy and shares else result, x.device)


@gives_view
@operation
def permute_dims(x: Tensor, /, axes: tuple[int, ...]) -> Tensor:
    """A view with the axes in another order: axis i of the result is axis ``axes[i]`` of x."""
    order = axes_of("permute_dims", axes, x.storage.ndim)
    if len(order) != x.storage.ndim:
        raise ShapeError(f"permute_dims: axes {order} do not order the {x.ndim} axes of shape {x.shape}")
    return Tensor(x.storage.transpose(order), x.device)


@gives_view
@operation
def swap_axes(x: Tensor, a: int, b: int, /) -> Tensor:
    """A view with two axes exchanged."""
    ndim = x.storage.ndim
    return Tensor(x.storage.swapaxes(axis_of("transpose", a, ndim), axis_of("transpose", b, ndim)), x.device)


@gives_view
@operation
def matrix_transpose(x: Tensor, /) -> Tensor:
    """A view (…, n, m) of x (…, m, n): the last two axes exchanged."""
    if x.storage.ndim < 2:
        raise ShapeError(f"matrix_transpose: expected at least 2 dimensions, found shape {x.shape}")
    return Tensor(x.storage.swapaxes(-1, -2), x.device)


@gives_view
@operation
def moveaxis(x: Tensor, source: int | tuple[int, ...], destination: int | tuple[int, ...], /) -> Tensor:
    """A view with some axes moved to other places, the rest in their order."""
    from_axes, to_axes = axes_of("moveaxis", source, x.ndim), axes_of("moveaxis", destination, x.ndim)
    if len(from_axes) != len(to_axes):
        raise ShapeError(f"moveaxis: {len(from_axes)} axes cannot move to {len(to_axes)} places")
    order = [axis for axis in range(x.ndim) if axis not in from_axes]
    for to, axis in sorted(zip(to_axes, from_axes, strict=True)):
        order.insert(to, axis)
    return Tensor(x.storage.transpose(order), x.device)


@gives_view
@operation
def expand_dims(x: Tensor, /, axis: int | tuple[int, ...]) -> Tensor:
    """A view with axes of size 1 put in, at these places in the result."""
    array = x.storage
    if not isinstance(axis, tuple):
        found = axis_of("expand_dims", axis, array.ndim + 1)
        return Tensor(array[(slice(None),) * found + (None, ...)], x.device)
    places = axes_of("expand_dims", axis, array.ndim + len(axis))
    index = tuple(None if place in places else slice(None) for place in range(array.ndim + len(axis)))
    return Tensor(array[index if array.ndim else (*index, ...)], x.device)


@gives_view
@operation
def squeeze(x: Tensor, /, axis: int | tuple[int, ...]) -> Tensor:
    """A view without these axes, which must have size 1."""
    axes = axes_of("squeeze", axis, x.storage.ndim)
    for found in axes:
        if x.storage.shape[found] != 1:
            raise ShapeError(f"squeeze: axis {found} of shape {x.shape} has size {x.shape[found]}, not 1")
    return Tensor(x.storage.squeeze(axes), x.device)


@gives_view
@operation
def broadcast_to(x: Tensor, /, shape: tuple[int, ...]) -> Tensor:
    """A read-only view in a larger shape: axes of size 1 are repeated, and new ones put in front."""
    try:
        return Tensor(module_of(x.storage).broadcast_to(x.storage, shape), x.device)
    except ValueError:
        raise ShapeError(f"broadcast_to: shape {x.shape} does not broadcast to {shape}") from None


@operation
def broadcast_arrays(*arrays: Tensor) -> list[Tensor]:
    """Views of all tensors in the one shape that they broadcast to."""
    try:
        shape = np.broadcast_shapes(*(x.shape for x in arrays))
    except ValueError:
        raise ShapeError(f"broadcast_arrays: shapes {', '.join(str(x.shape) for x in arrays)} do not fit") from None
    return [broadcast_to(x, shape) for x in arrays]


@operation
def broadcast_shapes(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that tensors of these shapes broadcast to. Raises ShapeError."""
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        raise ShapeError(f"broadcast_shapes: shapes {', '.join(map(str, shapes))} do not fit") from None


@gives_view
@operation
def narrow(x: Tensor, axis: int, start: int, length: int, /) -> Tensor:
    """A view of ``length`` elements along an axis, from ``start`` on (from the end for a negative one)."""
    found = axis_of("narrow", axis, x.storage.ndim)
    size = x.storage.shape[found]
    first = start + size if start < 0 else start
    if length < 0 or not 0 <= first <= size - length:
        raise ShapeError(f"narrow: {length} element(s) from {start} do not lie in axis {axis} of shape {x.shape}")
    return Tensor(x.storage[(slice(None),) * found + (slice(first, first + length),)], x.device)


@operation
def concat(arrays: Sequence[Tensor], /, *, axis: int | None = 0) -> Tensor:
    """Tensors of one common type joined along an existing axis; flattened first for ``axis=None``.

    Examples:
        >>> x = tl.asarray([[1, 2], [3, 4]])
        >>> tl.concat([x, x], axis=1).tolist()
        [[1, 2, 1, 2], [3, 4, 3, 4]]
        >>> tl.concat([x, tl.asarray([5.0])], axis=None).tolist()
        [1.0, 2.0, 3.0, 4.0, 5.0]
    """
    device, joined = _common("concat", arrays)
    if axis is not None:
        if joined[0].ndim == 0:
            raise ShapeError("concat: tensors of no dimension have no axis to join along; see stack, or axis=None")
        axis_of("concat", axis, joined[0].ndim)
    try:
        return Tensor(module_of(joined[0]).concatenate(joined, axis=axis), device)
    except ValueError:
        shapes = ", ".join(str(x.shape) for x in arrays)
        raise ShapeError(f"concat: shapes {shapes} differ elsewhere than in axis {axis}") from None


@operation
def stack(arrays: Sequence[Tensor], /, *, axis: int = 0) -> Tensor:
    """Tensors of one shape and common type joined along a new axis.

    Examples:
        >>> tl.stack([tl.asarray([1, 2]), tl.asarray([3, 4])], axis=1).tolist()
        [[1, 3], [2, 4]]
    """
    device, joined = _common("stack", arrays)
    axis_of("stack", axis, joined[0].ndim + 1)
    try:
        return Tensor(module_of(joined[0]).stack(joined, axis=axis), device)
    except ValueError:
        shapes = ", ".join(str(x.shape) for x in arrays)
        raise ShapeError(f"stack: expected equal shapes, found {shapes}") from None


def _common(name: str, tensors: Sequence[Tensor]) -> tuple[Any, list[Any]]:
    """The arrays of a list of tensors, all in their common type, and the device that they lie on."""
    device = same_device(name, tensors)
    found = [x.storage for x in tensors]
    if len({array.dtype for array in found}) > 1:
        try:
            dtype = dtypes.result_type(*tensors).numpy
        except DTypeError as error:
            raise DTypeError(f"{name}: {error}") from None
        found = [array.astype(dtype, copy=False) for array in found]
    return device, found


@gives_view
@operation
def unstack(x: Tensor, /, *, axis: int = 0) -> tuple[Tensor, ...]:
    """Views of x without an axis, one for each index in it."""
    found = axis_of("unstack", axis, x.storage.ndim)
    leading = (slice(None),) * found
    return tuple(Tensor(x.storage[(*leading, i, ...)], x.device) for i in range(x.storage.shape[found]))


@gives_view
@operation
def split(x: Tensor, sizes: int | Sequence[int], /, *, axis: int = 0) -> tuple[Tensor, ...]:
    """Views of consecutive parts of an axis.

    Args:
        x: the tensor.
        sizes: the size of each part (they add up to the axis), or one size for all, where the last may be smaller.
        axis: the axis to cut.
    """
    found = axis_of("split", axis, x.storage.ndim)
    size = x.storage.shape[found]
    if isinstance(sizes, int):
        if sizes < 1:
            raise ArgumentError(f"split: expected a size of at least 1, found {sizes}")
        sizes = [min(sizes, size - start) for start in range(0, size, sizes)] or [0]
    if sum(sizes) != size or min(sizes, default=0) < 0:
        raise ShapeError(f"split: sizes {tuple(sizes)} do not add up to axis {axis} of shape {x.shape}")
    parts, start, leading = [], 0, (slice(None),) * found
    for part in sizes:
        parts.append(Tensor(x.storage[(*leading, slice(start, start + part))], x.device))
        start += part
    return tuple(parts)


@operation
def flip(x: Tensor, /, *, axis: int | tuple[int, ...] | None = None) -> Tensor:
    """A view with the order of the elements reversed along these axes, or all."""
    axes = range(x.ndim) if axis is None else axes_of("flip", axis, x.ndim)
    return Tensor(x.storage[(..., *(slice(None, None, -1 if i in axes else None) for i in range(x.ndim)))], x.device)


@operation
def roll(x: Tensor, /, shift: int | tuple[int, ...], *, axis: int | tuple[int, ...] | None = None) -> Tensor:
    """Elements moved on by ``shift`` places; those pushed out at the end come in at the start.

    Args:
        x: the tensor.
        shift: how far, for all axes or one for each.
        axis: the axes; None rolls the flattened tensor and restores the shape.
    """
    given = axis if axis is None or isinstance(axis, (tuple, list)) else (axis,)
    axes = None if given is None else tuple(axis_of("roll", i, x.ndim) for i in given)
    if isinstance(shift, tuple) and (axes is None or len(shift) != len(axes)):
        raise ShapeError(f"roll: shifts {shift} need as many axes, found {axis}")
    if axes == ():
        return Tensor(x.storage.copy(), x.device)
    return Tensor(module_of(x.storage).roll(x.storage, shift, axes), x.device)


@operation
def repeat(x: Tensor, repeats: int | Tensor, /, *, axis: int | None = None) -> Tensor:
    """Each element repeated in place.

    Args:
        x: the tensor.
        repeats: how often, for all or for each index along the axis.
        axis: the axis; None flattens x first.

    Raises:
        ShapeError: where ``repeats`` does not fit the axis.
    """
    found = None if axis is None else axis_of("repeat", axis, x.ndim)
    size = x.size if found is None else x.shape[found]
    counts = repeats.numpy() if type(repeats) is Tensor else np.asarray(repeats)
    if counts.dtype.kind not in "iu":
        raise DTypeError(f"repeat: expected integers as repeats, found {counts.dtype}")
    if counts.ndim > 1 or counts.size not in (1, size) or (counts < 0).any():
        raise ShapeError(f"repeat: expected one count or {size} counts of at least 0, found shape {counts.shape}")
    xp = module_of(x.storage)
    return Tensor(xp.repeat(x.storage, counts.astype(np.int64) if xp is np else counts.tolist(), found), x.device)


@operation
def tile(x: Tensor, repetitions: tuple[int, ...], /) -> Tensor:
    """x repeated as a whole, ``repetitions[i]`` times along axis i; the shorter of shape and repetitions gets 1s."""
    return Tensor(module_of(x.storage).tile(x.storage, repetitions), x.device)
