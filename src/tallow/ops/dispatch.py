"""The one place that every operation passes through.

An operation is a *reference implementation*: a few lines of array-API code that run on any backend, say what the
operation means and serve as the oracle in tests. A backend replaces it with a kernel where that pays:

    @operation
    def rms_norm(x, weight, eps=1e-6): ...            # ops/norm.py: the meaning

    @kernel("rms_norm", "cpu")
    def rms_norm(x, weight, eps=1e-6): ...            # backends/cpu: the speed; may return NotImplemented

Nothing else in the code knows which of the two ran.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NoReturn, ParamSpec, TypeVar

from tallow.device import CPU, Device
from tallow.errors import ArgumentError, DeviceError, DTypeError, OutOfMemoryError, TallowError
from tallow.tensor import Tensor

P = ParamSpec("P")
R = TypeVar("R")
Kernel = Callable[..., Any]


class Operation:
    """A named operation: its reference implementation and the kernels that stand in for it.

    Attributes:
        name: of it.
        reference: what it means.
        kernels: by kind of device.
        gives_view: whether its result is a view of an operand, where that is possible: nothing is computed.
        gives_value: whether it gives a tensor's numbers to Python, which a recording cannot.
        defers: the kinds of devices whose kernel does what waits for it in a recording, or launches that first.
    """

    __slots__ = ("defers", "gives_value", "gives_view", "kernels", "name", "reference")

    def __init__(self, name: str, reference: Kernel) -> None:
        self.name = name
        self.reference = reference
        self.kernels: dict[str, Kernel] = {}
        self.gives_view = self.gives_value = False
        self.defers: set[str] = set()


OPERATIONS: dict[str, Operation] = {}
# By kind of device, once its kernels are loaded: the context in which operations on such a device are to run.
_loaded_backends: dict[str, Callable[[Device], AbstractContextManager[Any]]] = {}

# Called as observer(operation, args, kwargs, run) instead of run(); recording, spans and gradients attach here.
Observer = Callable[[Operation, tuple[Any, ...], dict[str, Any], Callable[[], Any]], Any]
# A tuple that is replaced, never changed, so that a thread that walks it is not disturbed by another's.
observers: tuple[Observer, ...] = ()
_observers_lock = threading.Lock()


def add_observer(observer: Observer) -> None:
    """Let an observer see every operation from now on, in every thread."""
    global observers
    with _observers_lock:
        observers = (*observers, observer)


def remove_observer(observer: Observer) -> None:
    """Take an observer away; an operation that has begun finishes with it. Raises ValueError if it is not there."""
    global observers
    with _observers_lock:
        at = observers.index(observer)
        observers = observers[:at] + observers[at + 1 :]


def operation(reference: Callable[P, R]) -> Callable[P, R]:
    """Make a reference implementation into an operation that dispatches to backends.

    Calls run the kernel of the device that the operands lie on, else the reference. They happen thousands of times a
    second while a model decodes: what they cost beyond the work itself is about 0.4 µs.
    """
    op = OPERATIONS.setdefault(reference.__name__, Operation(reference.__name__, reference))
    if op.reference is not reference:
        raise RuntimeError(f"operation {op.name} is defined twice")
    kernels = op.kernels

    @functools.wraps(reference)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        device = None
        for value in args:
            if type(value) is Tensor:
                if device is None:
                    device = value.device
                elif value.device is not device:
                    _different_devices(op.name, device, value.device)
        if kwargs:
            for value in kwargs.values():
                if type(value) is Tensor and value.device is not device:
                    device = value.device if device is None else _different_devices(op.name, device, value.device)
        if device is None:
            device = _listed(args)
        if device.kind not in _loaded_backends:
            _load_backend(device.kind)
        try:
            if observers:
                return _observed(op, args, kwargs, device)  # type: ignore[no-any-return]
            if device is not CPU:
                return _run(op, args, kwargs, device)  # type: ignore[no-any-return]
            found = kernels.get("cpu")
            if found is not None:
                result = found(*args, **kwargs)
                if result is not NotImplemented:
                    return result  # type: ignore[no-any-return]
            return reference(*args, **kwargs)
        except (AttributeError, TypeError, ValueError, ArithmeticError, MemoryError, RuntimeError) as error:
            _explain(op.name, error, args, kwargs)
            raise

    return call


def gives_view(operation: Callable[P, R]) -> Callable[P, R]:
    """Declare that an operation's result is a view of its first operand, where that is possible."""
    OPERATIONS[operation.__name__].gives_view = True
    return operation


def gives_value(operation: Callable[P, R]) -> Callable[P, R]:
    """Declare that an operation gives a tensor's numbers to Python."""
    OPERATIONS[operation.__name__].gives_value = True
    return operation


def kernel(name: str, device_kind: str, *, defers: bool = False) -> Callable[[Kernel], Kernel]:
    """Register a backend's implementation of an operation for one kind of device.

    It takes what the operation takes and returns what it returns, or ``NotImplemented`` for a case (a dtype, a rank)
    that it leaves to the reference.

    Args:
        name: of the operation.
        device_kind: ``"cpu"`` or ``"cuda"``.
        defers: whether it does on its way what waits for it in a recording, or launches that first.
    """

    def register(function: Kernel) -> Kernel:
        OPERATIONS[name].kernels[device_kind] = function
        if defers:
            OPERATIONS[name].defers.add(device_kind)
        return function

    return register


def _listed(args: tuple[Any, ...]) -> Device:
    """The device that tensors in lists lie on, the CPU if there are none."""
    lists = (values for values in args if type(values) is list or type(values) is tuple)
    return next((value.device for values in lists for value in values if type(value) is Tensor), CPU)


def _different_devices(name: str, one: Device, other: Device) -> NoReturn:
    raise DeviceError(f"{name}: operands lie on different devices, {one} and {other}; move one with .to(device)")


def _explain(name: str, error: Exception, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Raise what the caller of an operation should see of an error of NumPy's or Python's own.

    So no operation has to check beforehand that its operands are tensors, or that NumPy takes its other arguments.
    """
    if isinstance(error, TallowError):
        return
    if isinstance(error, AttributeError):
        attributes = ("storage", "device", "dtype", "shape", "ndim", "size")
        if error.name in attributes and any(error.obj is value for value in (*args, *kwargs.values())):
            found = type(error.obj).__name__
            raise DTypeError(f"{name}: expected a Tensor, found {found}; make one with tallow.asarray") from None
        return
    if isinstance(error, MemoryError | RuntimeError) and "cupy" in sys.modules:
        from tallow.backends.cuda.memory import explained

        if (told := explained(name, error)) is not None:
            raise told from error
    if isinstance(error, RuntimeError):
        return
    kind = DTypeError if isinstance(error, TypeError) else ArgumentError
    if isinstance(error, MemoryError):
        raise OutOfMemoryError(f"{name}: {error}") from error
    told = kind(f"{name}: {error}")
    told.foreign = True
    raise told from error


_BACKENDS = {"cpu": "tallow.backends.cpu", "cuda": "tallow.backends.cuda.operations"}


def _load_backend(kind: str) -> None:
    backend = importlib.import_module(_BACKENDS[kind])  # other threads wait; operations run by the import itself don't
    _loaded_backends[kind] = backend.on_card if kind != "cpu" else contextlib.nullcontext


def _run(op: Operation, args: tuple[Any, ...], kwargs: dict[str, Any], device: Device) -> Any:
    with _loaded_backends[device.kind](device):
        found = op.kernels.get(device.kind)
        if found is not None:
            result = found(*args, **kwargs)
            if result is not NotImplemented:
                return result
        return op.reference(*args, **kwargs)


def _observed(op: Operation, args: tuple[Any, ...], kwargs: dict[str, Any], device: Device) -> Any:
    run: Callable[[], Any] = functools.partial(_run, op, args, kwargs, device)
    for observer in reversed(observers):
        run = functools.partial(observer, op, args, kwargs, run)
    return run()
