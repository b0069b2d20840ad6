"""``tl.load``, which makes a model out of a name."""

from __future__ import annotations

import os
from typing import Any

from tallow import dtypes
from tallow.device import Device, as_device
from tallow.dtypes import DType
from tallow.errors import OutOfMemoryError, WeightsError
from tallow.hub.locate import as_name, resolve
from tallow.models.checkpoint import open_checkpoint
from tallow.models.estimate import LOAD_CONTEXT, estimate_checkpoint
from tallow.models.leftovers import check_unused
from tallow.models.registry import find_class
from tallow.runtime import memory
from tallow.runtime.resident import keep
from tallow.trace import span
from tallow.weights.checkpoint import Checkpoint
from tallow.weights.var_builder import VarBuilder

PathLike = str | os.PathLike[str]

_MAX_GROWTH = 32  # times that weights can grow on the way in: from one bit to float32


def load(
    name_or_path: PathLike,
    *,
    device: Device | str = "auto",
    dtype: DType | str | None = None,
    quantize: str | None = None,
    cache_dir: PathLike | None = None,
    revision: str | None = None,
    token: str | None = None,
) -> Any:
    """Load a model, or give the one that is loaded already with the same files, device and options.

    Args:
        name_or_path: a model's name, such as ``"openai/whisper-base"``; a folder; a file of weights; or an installed
            package that holds one; of GGUF files with ``:Q4_K_M`` behind it that of this quantisation. A name is looked
            for among the installed packages, then in the Hugging Face cache, then on the hub.
        device: ``"auto"`` (a GPU if there is one), ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
        dtype: how to store the weights: ``"float32"``, ``"float16"`` or ``"bfloat16"``. None: as the files have them.
        quantize: ``"int8"``, ``"int4"``, or None; on GPUs of compute capability 8.9 and up also ``"fp8"`` (E4M3).
            Checkpoints that are in fp8 stay so there, and become float16 elsewhere.
        cache_dir: the Hugging Face cache to use instead of the user's.
        revision: branch, tag or commit on the hub.
        token: for private and gated models; None means ``HF_TOKEN`` or the one that ``hf auth login`` stored.

    Returns:
        The model: a ``Whisper``, …

    Raises:
        ModelNotFoundError: if it exists in none of these places; the message lists them.
        DownloadError: if it can't be downloaded.
        WeightsError: if its files are damaged, don't fit each other, or hold an architecture that Tallow lacks.
        OutOfMemoryError: if it needs more memory than the device has free.
        DeviceError, DTypeError: for a device or a dtype that isn't there.
    """
    place = as_device(device)
    stored = None if dtype is None else dtypes.as_dtype(dtype)
    name = as_name(name_or_path)
    with span("load", model=name):
        path = resolve(name, cache_dir, revision, token)
        options = (str(place), "stored" if stored is None else stored.name, quantize or "no quantisation")
        key = (os.path.realpath(path), *options)
        return keep(key, name, options, lambda: _load(path, place, stored, quantize))


def preload(name_or_path: PathLike, **options: Any) -> None:
    """Load a model now, so that the first ``load`` of it with the same options costs nothing. Takes what that takes."""
    load(name_or_path, **options)


def _load(path: str, device: Device, dtype: DType | None, quantize: str | None) -> Any:
    checkpoint = open_checkpoint(path)
    model_class = find_class(checkpoint.architecture)
    vb = VarBuilder(checkpoint.source, device=device, dtype=dtype, quantize=quantize)
    try:
        _check_memory(checkpoint, device, dtype, quantize)
        model = model_class.from_checkpoint(checkpoint, vb)
    except WeightsError as error:
        if checkpoint.folder in str(error):
            raise
        raise WeightsError(f"{checkpoint.folder}: {error}") from None  # what a config says is told without its place
    check_unused(checkpoint, vb.unused())
    return model


def _check_memory(checkpoint: Checkpoint, device: Device, dtype: DType | None, quantize: str | None) -> None:
    free = memory.free_bytes(device)
    if free is None:
        return
    need = estimate_checkpoint(checkpoint, dtype, quantize=quantize, context=LOAD_CONTEXT, device=device)
    if need.total > free:
        infos = filter(None, map(checkpoint.source.info, checkpoint.source.names()))
        if need.weights > _MAX_GROWTH * sum(info.nbytes for info in infos):
            raise WeightsError("by its config the model is far larger than its weights; do they belong together?")
        hint = "" if quantize else "; quantize='int8' needs less"
        raise OutOfMemoryError(
            f"{checkpoint.folder}: needs about {need.total / 1e6:,.0f} MB ({need.weights / 1e6:,.0f} MB of weights), "
            f"{device} has {free / 1e6:,.0f} MB free{hint}"
        )
