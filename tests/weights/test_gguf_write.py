import numpy as np
import pytest

from tallow.errors import DTypeError, WeightsError
from tallow.matrix.blocks import BY_NAME
from tallow.matrix.blocks.encode import quantize
from tallow.weights.gguf import open_gguf
from tallow.weights.gguf_write import PLAIN, NewTensor, save_gguf


def test_what_is_written_is_read(tmp_path):
    matrix = np.random.default_rng(0).standard_normal((3, 64)).astype(np.float32)
    blocks = quantize(matrix, "q4_1")
    words = np.arange(5, dtype=np.float32)
    metadata = {"s": "ü", "yes": True, "n": 7, "x": 0.5, "strings": ["a", "ü"], "ids": np.int32([-1, 2]), "none": [],
                "flags": [True, False], "reals": [0.5, 1.0]}  # fmt: skip
    tensors = {
        "words": NewTensor((5,), PLAIN["float32"], lambda: words),
        "blocks": NewTensor((3, 64), BY_NAME["q4_1"], lambda: blocks),
        "half": NewTensor((3, 64), PLAIN["float16"], lambda: matrix),
        "brain": NewTensor((64, 3), PLAIN["bfloat16"], lambda: matrix.T),
    }
    save_gguf(tmp_path / "x.gguf", metadata, tensors)
    source = open_gguf(tmp_path / "x.gguf")
    assert list(source.names()) == list(tensors)
    assert {k: v.tolist() if hasattr(v, "tolist") else v for k, v in source.metadata.items()} == metadata | {
        "ids": [-1, 2]
    }
    np.testing.assert_array_equal(source.read("words"), words)
    np.testing.assert_array_equal(source.read("blocks").raw, blocks.raw)
    np.testing.assert_array_equal(source.read("half"), matrix.astype(np.float16))
    np.testing.assert_array_equal(source.read("brain"), matrix.T.astype(PLAIN["bfloat16"].layout))


def test_nothing_is_left_behind_when_it_fails(tmp_path):
    def fail():
        raise WeightsError("no")

    with pytest.raises(WeightsError, match="no"):
        save_gguf(tmp_path / "x.gguf", {}, {"a": NewTensor((5,), PLAIN["float32"], fail)})
    with pytest.raises(DTypeError, match="metadata 'k' is a complex"):
        save_gguf(tmp_path / "x.gguf", {"k": 1j}, {})
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(WeightsError, match="cannot be written"):
        save_gguf(tmp_path / "no" / "x.gguf", {}, {})
