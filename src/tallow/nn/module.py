"""The base of layers and models."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from tallow.device import Device, as_device
from tallow.dtypes import DType, as_dtype
from tallow.matrix.weight import Weight
from tallow.runtime.resident import missing
from tallow.tensor import Tensor

Self = TypeVar("Self", bound="Module")


class Module:
    """A part of a model: its attributes that are Tensors, Weights or Modules (also in lists and dicts) are its own.

    Subclasses take what they need from a ``VarBuilder`` in ``__init__`` and compute in ``__call__``. A module is not
    changed after it has been built, so threads may share it.

    Examples:
        >>> class Gate(tl.nn.Module):
        ...     def __init__(self, dim, vb):
        ...         self.norm = tl.nn.RMSNorm(dim, vb.pp("norm"))
        ...         self.proj = tl.nn.Linear(dim, dim, vb.pp("proj"), bias=False)
        ...
        ...     def __call__(self, x):
        ...         return x * tl.ops.sigmoid(self.proj(self.norm(x)))
        >>> gate = Gate(8, tl.VarBuilder.random())
        >>> gate(tl.ones((1, 8))).shape
        (1, 8)
        >>> [name for name, _ in gate.named_parameters()]
        ['norm.weight', 'proj.weight']
        >>> gate.parameter_count()
        72
    """

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The modules directly inside this one, with their names: ``"norm"``, ``"layers.0"``, …"""
        for name, value in _leaves(vars(self)):
            if isinstance(value, Module):
                yield name, value

    def named_parameters(self, prefix: str = "") -> Iterator[tuple[str, Tensor | Weight]]:
        """Every Tensor and Weight of this module and those inside it, with its dotted name."""
        for name, value in _leaves(vars(self)):
            if isinstance(value, (Tensor, Weight)):
                yield prefix + name, value
            elif isinstance(value, Module):
                yield from value.named_parameters(f"{prefix}{name}.")

    def state_dict(self) -> dict[str, Tensor]:
        """The parameters by name as plain Tensors (a Weight is dequantised to float32)."""
        return {n: p if isinstance(p, Tensor) else p.dequantize() for n, p in self.named_parameters()}

    def parameter_count(self) -> int:
        """Numbers in all parameters; one that two names share counts once."""
        unique = {id(p): p for _, p in self.named_parameters()}
        return sum(math.prod(p.shape) for p in unique.values())

    @property
    def nbytes(self) -> int:
        """Bytes that all parameters take as they are stored; one that two names share counts once."""
        unique = {id(p): p for _, p in self.named_parameters()}
        return sum(
            p.nbytes if isinstance(p, Weight) else math.prod(p.shape) * p.dtype.itemsize for p in unique.values()
        )

    def to(self: Self, device: str | Device | None = None, dtype: str | DType | None = None) -> Self:
        """A copy on another device or with its weights in another dtype; this module stays as it is.

        Args:
            device: where the copy's parameters lie; None leaves them.
            dtype: how its floating-point weights are stored; None leaves them. As in ``VarBuilder``, tensors (biases,
                norms) follow on a GPU and stay float32 on the CPU, whose activations are float32.
        """
        target = None if device is None else as_device(device)
        storage = None if dtype is None else as_dtype(dtype)
        moved: dict[int, Any] = {}
        return _moved(self, target, storage, moved)  # type: ignore[no-any-return]

    def extra_repr(self) -> str:
        """What a module says of itself in the tree: its sizes. Overridden by layers."""
        return ""

    if not TYPE_CHECKING:  # to which every attribute would then seem to be there

        def __getattr__(self, name: str) -> Any:
            """What an unloaded model lacks is the caller's mistake, whichever method asks for it."""
            if (error := missing(self, name)) is not None:
                raise error
            return object.__getattribute__(self, name)  # raises what was raised before

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Compute; defined by each module."""
        raise TypeError(f"{type(self).__name__} defines no __call__")

    def __repr__(self) -> str:
        lines = []
        children = ((name, repr(child)) for name, child in self.named_children())
        # Equal neighbours in a list, such as the layers of a stack, are shown once.
        for (_, text), run in itertools.groupby(
            children, lambda child: (child[0].rpartition(".")[0] or child[0], child[1])
        ):
            names = [name for name, _ in run]
            label = names[0] if len(names) == 1 else f"{names[0]} … {names[-1]}"
            lines.append(f"  ({label}): " + text.replace("\n", "\n  "))
        head = f"{type(self).__name__}({self.extra_repr()}"
        return head + ("\n" + "\n".join(lines) + "\n)" if lines else ")")


def _leaves(container: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The values of nested dicts, lists and tuples, with their dotted names."""
    pairs = container.items() if isinstance(container, dict) else enumerate(container)
    for key, value in pairs:
        name = f"{prefix}{key}"
        if isinstance(value, (dict, list, tuple)):
            yield from _leaves(value, name + ".")
        else:
            yield name, value


def _moved(value: Any, device: Device | None, dtype: DType | None, done: dict[int, Any]) -> Any:
    """value with every parameter inside it moved; what two names share stays shared."""
    if id(value) in done:
        return done[id(value)]
    result = value
    if isinstance(value, Tensor):
        on_cpu = (device or value.device).kind == "cpu"
        result = value.to(device, dtype if value.dtype.is_floating and not on_cpu else None)
    elif isinstance(value, Weight):
        result = value.to(device, dtype)
    elif isinstance(value, Device):
        result = device or value
    elif isinstance(value, Module):
        result = copy.copy(value)
        vars(result).update({k: _moved(v, device, dtype, done) for k, v in vars(value).items()})
    elif isinstance(value, dict):
        result = {k: _moved(v, device, dtype, done) for k, v in value.items()}
    elif type(value) in (list, tuple):
        result = type(value)(_moved(v, device, dtype, done) for v in value)
    done[id(value)] = result
    return result
