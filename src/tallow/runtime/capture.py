"""Record what a function does once, and do it again without Python.

The decode step of a language model is a few hundred kernel calls on a single token: finding each of them through
Python takes longer than some of them run. On the CPU a recording is a tape of native calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import numpy as np

from tallow import _cpu
from tallow.device import CPU, Device
from tallow.errors import CaptureError
from tallow.ops import dispatch
from tallow.tensor import Tensor

R = TypeVar("R")


class Recording(Generic[R]):
    """What ``function`` did when it was called, to be done again.

    What changes from run to run is read from memory: the caller writes new values into the tensors that the function
    reads, and finds the results in ``result``, always the same tensors. Shapes stay as they were.

    Args:
        function: calls operations; whatever it does besides happens this once only. It runs as it is recorded.
        device: where they compute: on the CPU the recording is a tape of kernel calls, on a card a CUDA graph.

    Attributes:
        result: what the function returned.

    Raises:
        CaptureError: for an operation without a native kernel for its operands, or one that reads a tensor's value
            into Python. The message names it.
    """

    def __init__(self, function: Callable[[], R], device: Device = CPU) -> None:
        self._function = function  # keeps what the tape reads, where the function does
        if device.kind == "cuda":
            from tallow.backends.cuda.graph import Graph

            self._tape: Any = Graph(device)
            self.result = self._tape.record(function)
            return
        self._tape = _cpu.Tape()
        with _checking(self._tape):
            self._tape.start()
            try:
                self.result = function()
            finally:
                self._tape.stop()

    def __len__(self) -> int:
        """Kernel calls that it makes."""
        return len(self._tape)

    @property
    def nbytes(self) -> int:
        """Bytes on a GPU that nothing else gets as long as there is the recording; 0 on the CPU."""
        return int(getattr(self._tape, "nbytes", 0))

    def replay(self) -> R:
        """Do it again, with what the tensors hold now. Returns ``result``."""
        self._tape.replay()
        return self.result


@contextmanager
def _checking(tape: Any) -> Iterator[None]:
    """Raise CaptureError for operations of this thread that would not be done again.

    A reference implementation may compute with NumPy and hand the result to an operation that is recorded: so
    operations within it may only read its own operands and what others within it gave.
    """
    frames: list[list[Tensor]] = []  # of the operations that are running: what those within them may read

    def check(op: dispatch.Operation, args: tuple[Any, ...], kwargs: dict[str, Any], run: Callable[[], Any]) -> Any:
        if not _cpu.recording():  # another thread
            return run()
        operands = _tensors((*args, *kwargs.values()))
        if frames:
            for operand in operands:
                if not any(np.may_share_memory(operand.storage, known.storage) for known in frames[-1]):
                    raise CaptureError(
                        f"{op.name} cannot be recorded: it reads what was computed without a native kernel "
                        f"({operand.shape})"
                    )
        before = len(tape)
        frames.append(operands)
        try:
            result = run()
        finally:
            frames.pop()
        if frames:
            frames[-1] += _tensors(result)
        if len(tape) == before and not _is_view(result, (*args, *kwargs.values())):
            what = (
                "gives a tensor's value to Python" if not _tensors(result) else "has no native kernel for its operands"
            )
            shapes = ", ".join(str(value.shape) for value in operands)
            raise CaptureError(f"{op.name} cannot be recorded: it {what} ({shapes})")
        return result

    dispatch.add_observer(check)
    try:
        yield
    finally:
        dispatch.remove_observer(check)


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [tensor for part in value for tensor in _tensors(part)] if isinstance(value, tuple | list) else []


def _is_view(result: Any, operands: tuple[Any, ...]) -> bool:
    """Whether a result is tensors over the operands' memory."""
    made, given = _tensors(result), _tensors(operands)
    return bool(made) and all(
        any(np.may_share_memory(new.storage, old.storage) for old in given) or not new.size for new in made
    )
