"""How much memory a model needs, before it is loaded.

An architecture says what it is made of in one small function (``Spec.sizes``), from the sizes in its ``config.json``
alone; everything else here is arithmetic on that.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

from tallow.device import CPU, Device
from tallow.dtypes import DType, as_dtype
from tallow.errors import WeightsError
from tallow.matrix.fp8 import E4M3
from tallow.matrix.weight import BLOCK_STORAGES, multiplies_fp8
from tallow.models.registry import every_spec, find_spec
from tallow.runtime.memory import CHUNK
from tallow.runtime.sizes import Sizes
from tallow.weights.checkpoint import Checkpoint
from tallow.weights.source import TensorInfo

_FLOAT16, _FLOAT32 = 2, 4
_SCALE = 4  # bytes of a scale in int8
_FP8 = 33 / 32  # bytes of a number in fp8, with its share of the scale of a row, which has 128 numbers at least
_KEPT = 64 << 20  # bytes of past results that the CPU backend keeps for the next of their size (csrc/core/buffers.cpp)
_CUDA_FIXED = 100_000_000  # on a card: kernels, the workspace of cuBLASLt, pieces of weights on their way


class MemoryEstimate(NamedTuple):
    """Bytes that a model needs.

    Attributes:
        weights: as they are stored.
        cache: keys and values.
        activations: intermediate results, at the busiest moment.
        fixed: tokenizer, media libraries and the like.
    """

    weights: int
    cache: int
    activations: int
    fixed: int

    @property
    def total(self) -> int:
        """All of it."""
        return sum(self)


LOAD_CONTEXT = 2048
"""Tokens of context for which ``tl.load`` wants room; models that can take more use memory for them as they come."""


def estimate_memory(
    config: Any,
    dtype: DType | str = "float32",
    *,
    quantize: str | None = None,
    batch: int = 1,
    context: int | None = None,
) -> MemoryEstimate:
    """How much memory a model needs, from its sizes alone: nothing is downloaded or read.

    Args:
        config: the model's config: one of Tallow's dataclasses, such as ``WhisperConfig``, or what a ``config.json``
            says, as a dictionary.
        dtype: how its matrices are stored.
        quantize: ``"int8"``, ``"fp8"``, ``"int4"``, or None.
        batch: sequences at once.
        context: tokens of each; None means as many as the model can take.

    Returns:
        Bytes for weights, cache, activations and the rest, and their ``total``.

    Raises:
        WeightsError: if the config is of a family without a table of sizes, or lacks one of its sizes.
    """
    return _estimate(_sizes(config), as_dtype(dtype).itemsize, quantize, batch, context)


def estimate_checkpoint(
    checkpoint: Checkpoint,
    dtype: DType | str | None = None,
    *,
    quantize: str | None = None,
    batch: int = 1,
    context: int | None = None,
    device: Device = CPU,
) -> MemoryEstimate:
    """The same for a checkpoint whose headers have been read, which say how its matrices are stored.

    Args:
        checkpoint: from ``open_checkpoint``.
        dtype: how its matrices are to be stored; None means as they are.
        quantize: as in ``estimate_memory``.
        batch: as in ``estimate_memory``.
        context: as in ``estimate_memory``.
        device: where the model computes: a GPU in the type that weights are stored in, the CPU in float32. It says too
            whether matrices in fp8 stay so.
    """
    sizes = _sizes(checkpoint.config | {"model_type": checkpoint.architecture})
    itemsize = _stored_itemsize(checkpoint, None if dtype is None else as_dtype(dtype), device)
    if device.kind == "cpu":
        return _estimate(sizes, itemsize, quantize, batch, context)
    computed = _FLOAT16 if itemsize == _FLOAT16 or _has_fp8(checkpoint) else _FLOAT32
    sizes = sizes._replace(fixed=_CUDA_FIXED)
    return _estimate(sizes, itemsize, quantize, batch, context, computed, CHUNK[device.kind])


def _estimate(
    sizes: Sizes,
    itemsize: float,
    quantize: str | None,
    batch: int,
    context: int | None,
    computed: int = _FLOAT32,
    chunk: int = CHUNK["cpu"],
) -> MemoryEstimate:
    """What sizes come to; everything but matrices is in numbers of so many bytes: see ``computed``."""
    matrices = int(sizes.matrices * itemsize)
    if quantize == "int8":
        matrices = min(matrices, sizes.matrices + _SCALE * sizes.scales)
    elif quantize == "fp8":
        matrices = min(matrices, int(sizes.matrices * _FP8))
    elif quantize == "int4":
        matrices = min(matrices, (sizes.matrices - sizes.tables) * 5 // 8 + sizes.tables * 17 // 16)
    tokens = sizes.context if context is None else min(context, sizes.context)
    read = sizes.results_per_token * chunk
    return MemoryEstimate(
        weights=matrices + computed * sizes.tensors,
        cache=computed * batch * (sizes.cache_per_row + tokens * sizes.cache_per_token),
        activations=min(computed * batch * (sizes.results + read), computed * batch * (sizes.live + read) + _KEPT),
        fixed=sizes.fixed,
    )


def _sizes(config: Any) -> Sizes:
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        values: Mapping[str, Any] = dataclasses.asdict(config)
        spec = next((spec for spec in every_spec() if isinstance(config, spec.model.Config)), None)
        if spec is None:
            raise WeightsError(f"{type(config).__name__} is the config of no architecture that Tallow has")
    else:
        values, spec = config, find_spec(config.get("model_type"), "config.json: ")
    try:
        return spec.sizes(values)
    except KeyError as error:
        raise WeightsError(f"config.json of a {spec.model_types[0]} lacks {error}") from None
    except (TypeError, AttributeError) as error:
        raise WeightsError(f"config.json of a {spec.model_types[0]}: a size is no number: {error}") from None


def _stored_itemsize(checkpoint: Checkpoint, dtype: DType | None, device: Device) -> float:
    """Bytes for each element of the matrices in a file once they are loaded, on average."""
    infos = [info for name in checkpoint.source.names() if (info := checkpoint.source.info(name)) is not None]
    matrices = [info for info in infos if len(info.shape) == 2]
    elements = sum(info.shape[0] * info.shape[1] for info in matrices)
    return sum(_stored_bytes(info, dtype, device) for info in matrices) / elements if elements else _FLOAT32


def _has_fp8(checkpoint: Checkpoint) -> bool:
    """Whether a file has matrices in fp8, beside which everything is in two bytes a number."""
    source = checkpoint.source
    return any(info is not None and info.dtype == E4M3 for info in map(source.info, source.names()))


def _stored_bytes(info: TensorInfo, dtype: DType | None = None, device: Device = CPU) -> int:
    """Bytes that a matrix takes once it is loaded. What no kernel of the device knows is widened to float16."""
    if info.dtype == E4M3 and multiplies_fp8(device):
        return int(info.nbytes * _FP8)
    if dtype is not None:
        return int(dtype.itemsize * info.shape[0] * info.shape[1])
    if info.dtype != E4M3 and (info.blocks is None or info.blocks in BLOCK_STORAGES["cpu"]):
        return info.nbytes
    return _FLOAT16 * info.shape[0] * info.shape[1]
