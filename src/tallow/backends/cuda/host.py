"""Operations that are computed on the CPU and brought back to the card.

CuPy does Fourier transforms and decompositions with libraries of NVIDIA's (cuFFT, cuSOLVER, cuSPARSE) that take more
room than all else together and that no model here needs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tallow.device import CPU, Device
from tallow.ops import fft, linalg  # noqa: F401  # the operations are there
from tallow.ops.dispatch import OPERATIONS, kernel
from tallow.tensor import Tensor

_TRANSFORMS = "fft ifft fftn ifftn rfft irfft rfftn irfftn hfft ihfft"
_DECOMPOSITIONS = """cholesky det slogdet eigh eigvalsh inv solve matrix_power qr svd svdvals matrix_rank pinv
    matrix_norm"""


def on_the_cpu(name: str) -> Callable[..., Any]:
    """An operation's reference implementation, on operands that are brought to the CPU and results that come back."""
    reference = OPERATIONS[name].reference

    def run(*args: Any, **kwargs: Any) -> Any:
        device = next(value.device for value in (*args, *kwargs.values()) if type(value) is Tensor)
        result = reference(*(_moved(arg, CPU) for arg in args), **{k: _moved(v, CPU) for k, v in kwargs.items()})
        return _moved(result, device)

    return run


def _moved(value: Any, device: Device) -> Any:
    """A tensor, or the tensors of a (named) tuple, on a device; other values as they are."""
    if type(value) is Tensor:
        return value.to(device)
    if isinstance(value, tuple) and any(type(part) is Tensor for part in value):
        parts = [_moved(part, device) for part in value]
        return type(value)._make(parts) if hasattr(value, "_make") else tuple(parts)
    return value


for _name in f"{_TRANSFORMS} {_DECOMPOSITIONS}".split():
    kernel(_name, "cuda")(on_the_cpu(_name))
