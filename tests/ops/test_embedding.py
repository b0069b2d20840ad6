import numpy as np
import pytest

from tallow import ops
from tallow.errors import BoundsError, DTypeError
from tallow.matrix.weight import make_weight
from tests.ops.both import both, tensor

TABLE = np.random.default_rng(0).standard_normal((11, 6)).astype(np.float32)


@both("embedding")
@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint8])
@pytest.mark.parametrize("shape", [(), (1,), (7,), (2, 3), (0,), (2, 0, 3)])
def test_embedding_gives_the_rows(op, dtype, shape):
    ids = np.random.default_rng(1).integers(0, 11, shape).astype(dtype)
    assert np.array_equal(op(tensor(ids, dtype), tensor(TABLE)).numpy(), TABLE[ids])


@both("embedding")
@pytest.mark.parametrize("storage", ["float32", "float16", "bfloat16", "int8"])
def test_embedding_from_a_weight_of_each_storage(op, storage):
    weight = make_weight(TABLE, storage)
    out = op(tensor([[3, 0], [10, 3]], np.int64), weight)
    assert out.dtype.name == "float32"
    assert np.array_equal(out.numpy(), weight.dequantize().numpy()[[[3, 0], [10, 3]]])


@both("embedding")
@pytest.mark.parametrize("wrong", [-1, 11, 2**40])
def test_embedding_refuses_ids_outside_the_table(op, wrong):
    for table in (tensor(TABLE), make_weight(TABLE, "float32")):
        with pytest.raises(BoundsError, match="embedding"):
            op(tensor([0, wrong], np.int64), table)


@both("embedding")
def test_embedding_refuses_floats(op):
    with pytest.raises(DTypeError, match="embedding"):
        op(tensor([0.0]), tensor(TABLE))


def test_embedding_keeps_a_tensors_dtype():
    assert ops.embedding(tensor([1], np.int64), tensor(TABLE, np.float16)).dtype.name == "float16"
