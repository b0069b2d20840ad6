"""What the array API's namespace can do: ``tl.__array_namespace_info__()``."""

from __future__ import annotations

from typing import Any

from tallow import dtypes
from tallow.device import CPU, Device, as_device, cuda_device_count, cuda_trouble
from tallow.dtypes import DType


class NamespaceInfo:
    """Answers to the questions that the array API asks about a library."""

    def capabilities(self) -> dict[str, Any]:
        """Boolean indexing and shapes that depend on data: both; and the most axes that a tensor may have."""
        return {"boolean indexing": True, "data-dependent shapes": True, "max dimensions": 64}

    def default_device(self) -> Device:
        """Where tensors are made unless ``device=`` says otherwise: the CPU."""
        return CPU

    def devices(self) -> list[Device]:
        """The CPU, and the GPUs that can be used."""
        cards = (f"cuda:{index}" for index in range(cuda_device_count()) if cuda_trouble(index) is None)
        return [CPU, *map(as_device, cards)]

    def default_dtypes(self, *, device: Device | str | None = None) -> dict[str, DType]:
        """The types of results whose type nothing else fixes, the same on every device."""
        return {
            "real floating": dtypes.float32,
            "complex floating": dtypes.complex64,
            "integral": dtypes.int64,
            "indexing": dtypes.int64,
        }

    def dtypes(
        self, *, device: Device | str | None = None, kind: str | tuple[str, ...] | None = None
    ) -> dict[str, DType]:
        """The standard's types by name, of one kind or several if given; float16 and bfloat16 are not among them."""
        beyond = (dtypes.float16, dtypes.bfloat16)
        standard = {dtype.name: dtype for dtype in dtypes.ALL if dtype not in beyond}
        return {name: dtype for name, dtype in standard.items() if kind is None or dtypes.isdtype(dtype, kind)}


def __array_namespace_info__() -> NamespaceInfo:  # noqa: N807  # the array API's name
    """What this namespace can do, for programs written against the array API."""
    return NamespaceInfo()
