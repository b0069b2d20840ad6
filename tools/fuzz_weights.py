"""Feeds the readers of weight files damaged input: nothing may come out but numbers or a WeightsError.

    python tools/fuzz_weights.py                      a million inputs, from a different seed each time
    python tools/fuzz_weights.py --count 1000 --seed 7 --format gguf

Each input is a small valid file with some of its bytes, numbers, words or length changed; every tensor of what is still
accepted is read to its last byte and every matrix packed. An input that brings down a reader is kept, and its name
printed.

The readers are Python; what is native is the packing of every matrix that they let through. So that it runs under the
sanitizers, build the module with them in place, and preload their libraries:

    tools/build -DTALLOW_SANITIZE=address,undefined
    export LD_PRELOAD=$(gcc -print-file-name=libasan.so):$(gcc -print-file-name=libubsan.so)
    export ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1
    python tools/fuzz_weights.py

(Afterwards delete ``build/dev`` and build anew.)
"""

import argparse
import json
import os
import random
import struct
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from tests.weights.ct2 import WHISPER_ALIASES, ct2_bytes, whisper_variables  # noqa: E402
from tests.weights.gguf_bytes import STRING, gguf, pair, tensor  # noqa: E402

from tallow.errors import WeightsError  # noqa: E402
from tallow.weights.adapters import whisper  # noqa: E402
from tallow.weights.ctranslate2 import CTranslate2File  # noqa: E402
from tallow.weights.gguf import GGUFFile  # noqa: E402
from tallow.weights.safetensors import open_safetensors, save_safetensors  # noqa: E402
from tallow.weights.var_builder import VarBuilder  # noqa: E402

SLOWEST = 5.0  # seconds of work that one input may take
NUMBERS = [
    0,
    1,
    2,
    7,
    8,
    127,
    255,
    256,
    2**15,
    2**16 - 1,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**62,
    2**63 - 1,
    2**63,
    2**64 - 1,
]
WORDS = [
    b"-1", b"0", b"1.0", b"1e9", b"18446744073709551616", b"9" * 400, b"true", b"null", b"NaN", b"[]", b"{}", b'""',
    b'"F64"', b'"BOOL"', b'"F4"', b'"data_offsets"', b'"shape"', b'"a"', b"[" * 2000, b'{"a":' * 2000, b"\xff",
    b"\\u0000", b"\x00", b",", b":",
]  # fmt: skip


def safetensors_seeds(folder):
    """Valid files: several dtypes and ranks, an empty tensor, metadata; and one with nothing in it."""
    rng = np.random.default_rng(0)
    tensors = {
        "a": rng.standard_normal((4, 6)).astype(np.float32), "b.weight": rng.standard_normal((3, 5)).astype(np.float16),
        "c": np.arange(7, dtype=np.int8), "d": np.array(True), "e": np.zeros((0, 3), np.int64), "f": np.ones((2, 2, 2)),
    }  # fmt: skip
    save_safetensors(tensors, folder / "seed", {"format": "np"})
    full = (folder / "seed").read_bytes()
    save_safetensors({}, folder / "seed")
    return [full, (folder / "seed").read_bytes()]


def ctranslate2_seeds(_):
    """A small Whisper in float16, and one with int8 and int16 weights and their scales."""
    plain = whisper_variables(encoder=1)
    small = {
        "w": np.ones((3, 4), np.int8), "w_scale": np.ones(3, np.float32), "v": np.ones((2, 4), np.int16),
        "v_scale": np.float32(2), "c": np.ones((2, 3, 3), np.int8), "c_scale": np.ones(2, np.float32),
        "encoder/num_heads": np.int16(1),
    }  # fmt: skip
    return [ct2_bytes(plain, WHISPER_ALIASES), ct2_bytes(small, [("u", "w")])]


def gguf_seeds(_):
    """Plain and blocked tensors, metadata of several types."""
    pairs = [pair("general.architecture", STRING, "llama"), pair("general.alignment", 4, 32), pair("x", 10, 7)]
    tensors = [tensor("f", [4, 2]), tensor("q", [32, 3], kind=8, offset=32), tensor("k", [256, 1], kind=12, offset=160)]
    return [gguf(pairs, tensors, bytes(range(256)) * 2), gguf()]


def read_safetensors(path):
    return open_safetensors(path)


def read_ctranslate2(path):
    source = CTranslate2File(path)
    for name in source.names():
        np.asarray(source.raw(name)).tobytes()
    try:
        whisper.ctranslate2_config(source, {})
    except WeightsError:
        return source  # no Whisper, but its variables can be read all the same
    return whisper.from_ctranslate2(source)


FORMATS = {
    "safetensors": (safetensors_seeds, read_safetensors, "x.safetensors"),
    "ctranslate2": (ctranslate2_seeds, read_ctranslate2, "model.bin"),
    "gguf": (gguf_seeds, GGUFFile, "x.gguf"),
}


def damage(seed, rng):
    """A copy of a file with one to four things wrong."""
    data = bytearray(seed)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        rng.choice(DAMAGES)(data, rng)
    return bytes(data)


def place(data, rng):
    """A position, more often in the header than in the data."""
    end = len(data) if rng.random() < 0.3 else min(len(data), 700)
    return rng.randrange(max(end, 1))


def change_bytes(data, rng):
    for _ in range(rng.choice((1, 1, 2, 8))):
        if data:
            data[place(data, rng)] = rng.randrange(256)


def flip_bit(data, rng):
    if data:
        data[place(data, rng)] ^= 1 << rng.randrange(8)


def change_number(data, rng):
    width = rng.choice("BHIQ")
    at, value = place(data, rng), rng.choice(NUMBERS) + rng.choice((0, 0, 1, -1))
    size = struct.calcsize("<" + width)
    if at + size <= len(data):
        struct.pack_into("<" + width, data, at, value % (1 << 8 * size))


def change_digit(data, rng):
    digits = [i for i in range(min(len(data), 700)) if 48 <= data[i] <= 57]
    if digits:
        at = rng.choice(digits)
        data[at : at + rng.choice((1, 1, 0))] = b"%d" % rng.choice((0, 1, 2, 3, 5, 9, 12, 2**31, 2**62))


def insert_word(data, rng):
    at = place(data, rng)
    data[at : at + rng.choice((0, 0, 1, 2, 5))] = rng.choice(WORDS)


def copy_stretch(data, rng):
    begin, to = place(data, rng), place(data, rng)
    stretch = data[begin : begin + rng.choice((1, 4, 16, 60))]
    data[to : to + rng.choice((0, len(stretch)))] = stretch


def cut(data, rng):
    del data[place(data, rng) :]


def cut_out(data, rng):
    at = place(data, rng)
    del data[at : at + rng.choice((1, 2, 4, 8, 40))]


def append(data, rng):
    data += rng.randbytes(rng.choice((1, 4, 8, 100)))


def mend_length(data, rng):
    """Make the header's length right again after a change, so that the change itself is seen (safetensors)."""
    end = data.rfind(b"}") + 1
    if end > 8:
        struct.pack_into("<Q", data, 0, end - 8)


DAMAGES = [
    change_bytes,
    flip_bit,
    change_number,
    change_digit,
    change_digit,
    insert_word,
    copy_stretch,
    cut,
    cut_out,
    append,
    mend_length,
]


def try_reader(read, path, rng=random):
    """Whether the reader refuses a file. Anything it raises but a WeightsError comes through."""
    try:
        source = read(path)
        vb = VarBuilder(source, quantize=rng.choice((None, "int8")))
        for name in source.names():
            info, stored = source.info(name), source.read(name)
            if isinstance(stored, np.ndarray) and stored.dtype.kind in "iubc":  # no weights
                assert stored.shape == info.shape
                stored.tobytes()
                continue
            tensor = vb.get(info.shape, name)
            assert tensor.shape == info.shape
            tensor.numpy().tobytes()
            if len(info.shape) == 2:
                vb.weight(info.shape, name).dequantize()
            source.release(name)
    except WeightsError:
        return True
    return False


def fuzz(formats, count, seed, folder, report=None):
    """Try ``count`` inputs, format by format in turn; how many were refused. Raises what a reader must not raise."""
    refused = 0
    seeds = {name: FORMATS[name][0](folder) for name in formats}
    for number in range(count):
        rng = random.Random(f"{seed}/{number}")
        name = formats[number % len(formats)]
        _, read, file = FORMATS[name]
        data = damage(rng.choice(seeds[name]), rng)
        if name == "safetensors" and rng.random() < 0.6:
            mended = bytearray(data)
            mend_length(mended, rng)
            data = bytes(mended)
        path = folder / file
        path.unlink(missing_ok=True)  # a new file each time: one that is mapped must not change
        path.write_bytes(data)
        begun = time.process_time()
        try:
            with np.errstate(all="ignore"):
                refused += try_reader(read, path, rng)
        except BaseException as error:
            if not isinstance(error, KeyboardInterrupt):
                error.add_note(f"{name}, seed {seed}, input {number}: {data[:2000]!r}")
            raise
        if time.process_time() - begun > SLOWEST:
            raise TimeoutError(f"{name}, seed {seed}, input {number} took over {SLOWEST} s")
        if report and number % 50_000 == 49_999:
            report(number + 1, refused)
    return refused


def print_progress(done, refused):
    print(f"{done:,} inputs, {refused:,} refused", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=1_000_000, help="inputs to try (default: a million)")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**32, help="what fixes the inputs")
    parser.add_argument("--format", choices=FORMATS, action="append", help="only this one; may be given several times")
    options = parser.parse_args()
    formats = options.format or list(FORMATS)
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        begun = time.perf_counter()
        refused = fuzz(formats, options.count, options.seed, Path(folder), report=print_progress)
    summary = {"inputs": options.count, "refused": refused, "formats": formats, "seed": options.seed}
    print(json.dumps(summary | {"seconds": round(time.perf_counter() - begun, 1)}))


if __name__ == "__main__":
    main()
