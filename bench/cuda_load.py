"""How long do 16 GB of weights take from the page cache to an NVIDIA GPU, beside what the bus and reading take?

    python bench/cuda_load.py [--layers 36] [--folder DIR]

A safetensors file of Qwen3-8B's sizes in bfloat16 is written to DIR and loaded three times by one process. The bus is
measured by copies from pinned memory, reading by copies of the mapped file into memory, by all threads.
"""

import argparse
import json
import os
import tempfile
import time

import cupy
import numpy as np
from cuda_common import report
from qwen3_sizes import SHARED, SIZES

import tallow as tl
from tallow import _cpu
from tallow.backends.cuda.upload import PIECE
from tallow.models.qwen3 import Qwen3, Qwen3Config
from tallow.weights.source import MappedFile


def shapes(config):
    """Names and shapes of all weights."""
    d, f, head = config.hidden_size, config.intermediate_size, config.head_dim
    q, kv = config.num_attention_heads * head, config.num_key_value_heads * head
    found = {"model.embed_tokens.weight": (config.vocab_size, d), "model.norm.weight": (d,)}
    if not config.tie_word_embeddings:
        found["lm_head.weight"] = (config.vocab_size, d)
    for layer in range(config.num_hidden_layers):
        for name, shape in {
            "self_attn.q_proj": (q, d), "self_attn.k_proj": (kv, d), "self_attn.v_proj": (kv, d),
            "self_attn.o_proj": (d, q), "self_attn.q_norm": (head,), "self_attn.k_norm": (head,),
            "mlp.gate_proj": (f, d), "mlp.up_proj": (f, d), "mlp.down_proj": (d, f), "input_layernorm": (d,),
            "post_attention_layernorm": (d,),
        }.items():  # fmt: skip
            found[f"model.layers.{layer}.{name}.weight"] = shape
    return found


def write(path, config):
    """The file, without waiting for the disk; its size."""
    header, position = {}, 0
    for name, shape in shapes(config).items():
        end = position + 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [position, end]}
        position = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    numbers = np.random.default_rng(0).integers(0x3C00, 0x3D00, 1 << 25, np.uint16).view(np.uint8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for begin in range(0, position, numbers.size):
            file.write(numbers[: position - begin])
    return os.path.getsize(path)


def bus(size):
    """Seconds that the bus takes for so many bytes."""
    pinned, array = cupy.cuda.alloc_pinned_memory(4 * PIECE), cupy.empty(4 * PIECE, cupy.uint8)
    stream = cupy.cuda.Stream(non_blocking=True)
    took = []
    for _ in range(4):
        begun = time.perf_counter()
        for piece in range(size // PIECE):
            at = piece % 4 * PIECE
            array[at : at + PIECE].data.copy_from_host_async(pinned.ptr + at, PIECE, stream)
        stream.synchronize()
        took.append(time.perf_counter() - begun)
    return min(took) * size / (size // PIECE * PIECE)


def reading(path, size):
    """Seconds that reading the mapped file takes, by all threads, into memory that is there already."""
    place = np.frombuffer(cupy.cuda.alloc_pinned_memory(4 * PIECE), np.uint8, 4 * PIECE)
    took = []
    for _ in range(3):
        bytes_ = MappedFile(path).view(0, np.dtype(np.uint8), (size,))
        begun = time.perf_counter()
        for begin in range(0, size, PIECE):
            at = begin // PIECE % 4 * PIECE
            part = bytes_[begin : begin + PIECE]
            _cpu.copy_bytes(place[at : at + part.size], part)
        took.append(time.perf_counter() - begun)
    return min(took)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=36, help="(%(default)s)")
    parser.add_argument("--folder", help="where the file is written; default: the system's for temporary files")
    args = parser.parse_args()
    config = Qwen3Config.from_dict(SIZES["8B"] | SHARED | {"num_hidden_layers": args.layers})
    tl.ones(1, device="cuda") + 1
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        path = os.path.join(folder, "model.safetensors")
        size = write(path, config)
        loads = []
        for _ in range(3):
            begun = time.perf_counter()
            model = Qwen3(config, tl.VarBuilder.from_safetensors(path, device="cuda"))
            tl.synchronize()
            loads.append(time.perf_counter() - begun)
            del model
        over, read = bus(size), reading(path, size)
    least = max(over, read)
    verdict = (
        f"{size / 1e9:.1f} GB of weights: {loads[0]:.2f} s, again {min(loads[1:]):.2f} s; the bus takes {over:.2f} s "
        f"({size / 1e9 / over:.0f} GB/s), reading {read:.2f} s ({size / 1e9 / read:.0f} GB/s, "
        f"{tl.get_num_threads()} threads): {loads[0] / least:.2f} x and {min(loads[1:]) / least:.2f} x the slower"
    )
    report("cuda_load", verdict, {"seconds": loads, "bus": over, "reading": read, "bytes": size})


if __name__ == "__main__":
    main()
