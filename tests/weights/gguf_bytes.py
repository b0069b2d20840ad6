"""GGUF files made by hand, field by field, so that tests can make each field wrong."""

import struct

NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "B", 10: "Q", 11: "q", 12: "d"}
U32, STRING, ARRAY = 4, 8, 9


def text(value):
    data = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(data)) + data


def number(kind, value):
    return struct.pack("<" + NUMBERS[kind], value)


def array(kind, values, count=None):
    """An array's bytes: of numbers or of strings, or of ready-made bytes for anything else."""
    items = [text(v) if kind == STRING else v if kind == ARRAY else number(kind, v) for v in values]
    return struct.pack("<IQ", kind, len(values) if count is None else count) + b"".join(items)


def pair(key, kind, value):
    """One piece of metadata; ``value`` as bytes is taken as it is."""
    if not isinstance(value, bytes):
        value = text(value) if kind == STRING else number(kind, value)
    return text(key) + struct.pack("<I", kind) + value


def tensor(name, dims, kind=0, offset=0, rank=None):
    """One tensor's description; dims innermost first."""
    head = text(name) + struct.pack("<I", len(dims) if rank is None else rank)
    return head + struct.pack(f"<{len(dims)}QIQ", *dims, kind, offset)


def gguf(pairs=(), tensors=(), data=b"", *, version=3, magic=b"GGUF", counts=None, alignment=32):
    """A file's bytes."""
    tensor_count, pair_count = counts or (len(tensors), len(pairs))
    head = magic + struct.pack("<IQQ", version, tensor_count, pair_count) + b"".join(pairs) + b"".join(tensors)
    return head + b"\0" * (-len(head) % alignment) + data
