"""How much memory a model needs, before it is loaded, and how much there is.

A family of models says what it is made of in one small function (``FAMILIES``), from the sizes in its ``config.json``
alone; everything else here is arithmetic on that.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from tallow.device import CPU, Device
from tallow.dtypes import DType, as_dtype
from tallow.errors import WeightsError
from tallow.matrix.fp8 import E4M3
from tallow.matrix.weight import BLOCK_STORAGES, multiplies_fp8
from tallow.weights.checkpoint import Checkpoint
from tallow.weights.source import TensorInfo

_FLOAT16, _FLOAT32 = 2, 4
_SCALE = 4  # bytes of a scale in int8
_FP8 = 33 / 32  # bytes of a number in fp8, with its share of the scale of a row, which has 128 numbers at least
_KEPT = 64 << 20  # bytes of past results that the CPU backend keeps for the next of their size (csrc/core/buffers.cpp)
CHUNK = {"cpu": 512, "cuda": 2048}
"""Tokens of each prompt that are read at a time: more only where so many cores have too little to do with fewer."""
_CUDA_FIXED = 100_000_000  # on a card: kernels, the workspace of cuBLASLt, pieces of weights on their way


class Sizes(NamedTuple):
    """What a model of a family is made of, in numbers of elements; on the CPU all but the matrices are float32.

    Attributes:
        matrices: in weights that ``linear`` and ``embedding`` read, which ``dtype`` and ``quantize`` are about.
        tables: of those, in tables of tokens.
        scales: of those matrices in int8.
        tensors: in everything else: biases, norms, convolutions, position tables.
        cache_per_row: kept for each sequence in the batch, whatever its length.
        cache_per_token: kept for each token of each sequence.
        context: tokens of a sequence, at most.
        results: of one pass, each size counted as often as such results live side by side.
        live: of those, what lives at once at the busiest moment.
        fixed: bytes that come with the family whatever its size: tokenizer, media libraries, Tallow's own code.
        results_per_token: of one pass, for each of the ``CHUNK`` tokens that are read at a time.
    """

    matrices: int
    tables: int
    scales: int
    tensors: int
    cache_per_row: int
    cache_per_token: int
    context: int
    results: int
    live: int
    fixed: int
    results_per_token: int = 0


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


def whisper_sizes(config: Mapping[str, Any]) -> Sizes:
    """Whisper: convolutions, an encoder over 1,500 positions, a decoder that attends to itself and to the encoder."""
    d, enc, dec = config["d_model"], config["encoder_layers"], config["decoder_layers"]
    f_enc, f_dec = config["encoder_ffn_dim"], config["decoder_ffn_dim"]
    mels, vocab = config.get("num_mel_bins", 80), config["vocab_size"]
    sound, text = config.get("max_source_positions", 1500), config.get("max_target_positions", 448)
    convolutions = 3 * d * (mels + d) + 2 * d
    encoder_layer = 4 * d + (f_enc + d) + 4 * d  # biases of attention (k's is zero) and MLP, two norms
    decoder_layer = 8 * d + (f_dec + d) + 6 * d
    return Sizes(
        matrices=enc * (4 * d * d + 2 * d * f_enc) + dec * (8 * d * d + 2 * d * f_dec) + vocab * d,
        tables=vocab * d,
        scales=enc * (5 * d + f_enc) + dec * (9 * d + f_dec) + vocab,
        tensors=convolutions + (sound + text) * d + enc * encoder_layer + dec * decoder_layer + 4 * d,
        cache_per_row=2 * dec * sound * d,
        cache_per_token=2 * dec * d,
        context=text,
        results=sound * (f_enc + 3 * d + 9 * d),  # inside the MLP; q, k and v; and nine more, four of them around conv1
        live=sound * f_enc,
        fixed=42_000_000,  # tokenizer 14, PyAV and decoding 22, modules 6
    )


def decoder_sizes(config: Mapping[str, Any]) -> Sizes:
    """Qwen and Llama: attention with grouped heads and a gated MLP; prompts are read in chunks."""
    d, f, layers, vocab = (
        config[key] for key in ("hidden_size", "intermediate_size", "num_hidden_layers", "vocab_size")
    )
    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim") or d // heads
    kv = (config.get("num_key_value_heads") or heads) * head_dim
    q = heads * head_dim
    tables = vocab * d * (1 if config.get("tie_word_embeddings") else 2)
    matrices = layers * (d * (2 * q + 2 * kv) + 3 * d * f) + tables
    return Sizes(
        matrices=matrices,
        tables=tables,
        scales=matrices // 16,  # one for each group of inputs (models/language_model.py)
        tensors=layers * (2 * d + q + 2 * kv) + d,
        cache_per_row=0,
        cache_per_token=2 * layers * kv,
        context=config.get("max_position_embeddings") or 2048,
        results=vocab,
        live=vocab,
        fixed=700 * vocab + 15_000_000,  # the tokenizer, measured; modules
        results_per_token=2 * d + max(2 * q + 3 * kv, 3 * f),
    )


def clap_sizes(config: Mapping[str, Any]) -> Sizes:
    """CLAP: a Swin Transformer whose stages double in width, a RoBERTa, and two projections of two layers each."""
    audio, text = config.get("audio_config") or {}, config.get("text_config") or {}
    width, patch, window = (
        audio.get("patch_embeds_hidden_size", 96),
        audio.get("patch_size", 4),
        audio.get("window_size", 8),
    )
    depths, heads = audio.get("depths", (2, 2, 6, 2)), audio.get("num_attention_heads", (4, 8, 16, 32))
    patches = (audio.get("spec_size", 256) // patch) ** 2
    d, f = text.get("hidden_size", 768), text.get("intermediate_size", 3072)
    layers, vocab = text.get("num_hidden_layers", 12), text.get("vocab_size", 50265)
    projection = config.get("projection_dim", 512)
    matrices = layers * (4 * d * d + 2 * d * f) + vocab * d + d * d
    rows = layers * (5 * d + f) + vocab + d
    tensors = layers * (9 * d + f) + text.get("max_position_embeddings", 514) * d + 4 * d
    for stage, depth in enumerate(depths):
        wide = width << stage
        matrices += depth * 12 * wide * wide + (8 * wide * wide if stage + 1 < len(depths) else 0)
        rows += depth * 9 * wide + 2 * wide
        # Biases, norms, and a mask for each window of the blocks that are shifted, every other one.
        tensors += depth * 13 * wide + (depth + 1) // 2 * heads[stage] * window**4
        tensors += depth // 2 * heads[stage] * window**2 * (patches >> 2 * stage)
    matrices += projection * ((width << len(depths) - 1) + d + 2 * projection)
    return Sizes(
        matrices=matrices,
        tables=vocab * d,
        scales=rows + 4 * projection,
        tensors=tensors + width * (patch * patch + 3),
        cache_per_row=0,
        cache_per_token=0,
        context=text.get("max_position_embeddings", 514),
        results=24 * patches * width,  # 13 in the first stage, in each one after it half of the one before
        live=6 * patches * width,  # inside the first stage's MLP: its input, what lies between, and the stream
        fixed=700 * vocab + 37_000_000,  # the tokenizer; PyAV and decoding 22, modules 15
    )


def vision_transformer_sizes(config: Mapping[str, Any]) -> Sizes:
    """DINOv3's vision transformers, looking at pictures of the size that they were trained on last."""
    d, f, layers = (config[key] for key in ("hidden_size", "intermediate_size", "num_hidden_layers"))
    patch, size = config.get("patch_size", 16), config.get("image_size", 224)
    registers = config.get("num_register_tokens", 0)
    inner = 2 if config.get("use_gated_mlp") else 1
    tokens = 1 + registers + (size // patch) ** 2
    return Sizes(
        matrices=layers * (4 * d * d + (inner + 1) * d * f),
        tables=0,
        scales=layers * (5 * d + inner * f),
        tensors=3 * patch * patch * d + (4 + registers) * d + layers * (11 * d + inner * f),
        cache_per_row=0,
        cache_per_token=0,
        context=tokens,
        results=tokens * (8 * d + (inner + 1) * f),
        live=tokens * (2 * d + (inner + 1) * f),
        fixed=15_000_000,  # Pillow and a picture 9, modules 6
    )


def convnext_sizes(config: Mapping[str, Any]) -> Sizes:
    """DINOv3's ConvNeXts: stages on a grid of a quarter of the pixels' sides, halved from one to the next."""
    widths, depths = config.get("hidden_sizes") or (96, 192, 384, 768), config.get("depths") or (3, 3, 9, 3)
    places = (config.get("image_size", 224) // 4) ** 2
    merging = sum(4 * a * b + 2 * a + b for a, b in itertools.pairwise(widths))
    return Sizes(
        matrices=sum(8 * d * d * n for d, n in zip(widths, depths, strict=True)),
        tables=0,
        scales=sum(5 * d * n for d, n in zip(widths, depths, strict=True)),
        tensors=sum((49 + 9) * d * n for d, n in zip(widths, depths, strict=True)) + 51 * widths[0] + merging,
        cache_per_row=0,
        cache_per_token=0,
        context=places,
        # Inside an MLP: the stream, two more like it, what lies between (four), and the 8-bit form of the last two
        # products' inputs (one and a quarter). No stage can use what the one before has left: its sizes are others.
        results=sum(8 * (places >> 2 * i) * d for i, d in enumerate(widths)),
        live=7 * places * widths[0],
        fixed=15_000_000,  # Pillow and a picture 9, modules 6
    )


FAMILIES: dict[str, Callable[[Mapping[str, Any]], Sizes]] = {
    "whisper": whisper_sizes,
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3"), decoder_sizes),
    "clap": clap_sizes,
    **dict.fromkeys(("dinov3_vit", "dinov3vit"), vision_transformer_sizes),  # model_type, and the dataclass
    **dict.fromkeys(("dinov3_convnext", "dinov3convnext"), convnext_sizes),
}
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
        family = type(config).__name__.removesuffix("Config").lower()
    else:
        values = config
        family = str(values.get("model_type"))
    if family not in FAMILIES:
        raise WeightsError(f"no table of sizes for a model of type {family!r}; there is {', '.join(sorted(FAMILIES))}")
    try:
        return FAMILIES[family](values)
    except KeyError as error:
        raise WeightsError(f"config.json of a {family} lacks {error}") from None
    except (TypeError, AttributeError) as error:
        raise WeightsError(f"config.json of a {family}: a size is no number: {error}") from None


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


def free_bytes(device: Device = CPU) -> int | None:
    """Bytes that a device has free for a model; None if it cannot be told.

    On the CPU: what the kernel says is available, or what the control group (container) of this process leaves, if that
    is less. Pages of cached files, which can be dropped, count as free.
    """
    if device.kind != "cpu":
        from tallow.runtime.cards import memory_info

        return memory_info(device).free
    available = _meminfo("MemAvailable")
    limits = [available] if available is not None else []
    limits += _cgroup_rooms()
    return min(limits, default=None)


def _meminfo(key: str, path: str = "/proc/meminfo") -> int | None:
    for line in _read(path).splitlines():
        name, _, value = line.partition(":")
        if name == key:
            return int(value.split()[0]) * 1024
    return None


def _cgroup_rooms(process: str = "/proc/self/cgroup", root: str = "/sys/fs/cgroup") -> list[int]:
    """What every control group that this process is in leaves it, for those that have a limit."""
    rooms = []
    for line in _read(process).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            base, limit, usage = root, "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            base, limit, usage = os.path.join(root, "memory"), "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for depth in range(len(parts) + 1):
            folder = os.path.join(base, *parts[:depth])
            most, used = _read(os.path.join(folder, limit)).strip(), _read(os.path.join(folder, usage)).strip()
            if most.isdigit() and used.isdigit():
                rooms.append(max(0, int(most) - int(used) + _droppable(folder)))
    return rooms


def _droppable(folder: str) -> int:
    """Bytes of cached files in a control group, which the system gives up before it runs out."""
    fields = dict(line.split() for line in _read(os.path.join(folder, "memory.stat")).splitlines())
    return sum(int(fields.get(name, 0)) for name in ("inactive_file", "active_file"))


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""
