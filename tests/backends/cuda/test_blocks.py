"""Quantised weights on a card: products and rows against the numbers that they stand for."""

import numpy as np
import pytest

import tallow as tl
from tallow import ops
from tallow.matrix.block_matrix import BlockMatrix
from tallow.matrix.blocks import BY_NAME
from tallow.matrix.quantize import quantize_int8
from tallow.matrix.weight import BLOCK_STORAGES, Weight, make_weight
from tallow.tensor import Tensor
from tests.backends.cuda.gpu import TOLERANCE, error, needs_gpu, numbers

pytestmark = needs_gpu


def stored(storage, rows, columns, group=None):
    """A quantised matrix of that storage, and the numbers that it stands for."""
    matrix = numbers(rows, columns) / columns**0.5
    if storage == "int8":
        kept = quantize_int8(matrix, group)
        return kept, kept.dequantize()
    kind = BY_NAME[storage]
    raw = np.random.default_rng(1).integers(0, 256, (rows, columns // kind.elements * kind.nbytes), np.uint8)
    blocks = raw.reshape(-1, kind.nbytes)
    for name, (dtype, begin, *_) in kind.layout.fields.items():
        if dtype.base == np.float16:  # scales that are numbers
            scale = (numbers(len(blocks), 1) * 0.01).astype(np.float16)
            blocks[:, begin : begin + 2] = scale.view(np.uint8)
            assert name in ("d", "m", "dmin")
    kept = BlockMatrix([raw], kind)
    return kept, kept.dequantize()


CASES = [("int8", None), ("int8", 16), ("int8", 64), *((storage, None) for storage in BLOCK_STORAGES["cuda"])]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("storage", "group"), CASES)
@pytest.mark.parametrize(("out", "inputs"), [(16, 256), (7, 256), (1000, 512), (17000, 256), (40, 4096)])
def test_products(dtype, storage, group, out, inputs):
    matrix, plain = stored(storage, out, inputs, group)
    weight = make_weight(matrix, storage, tl.Device("cuda"), group, tl.asarray([0.0], dtype=dtype).dtype)
    assert weight.storage == storage
    bias, scale = numbers(out, seed=2), numbers(out, seed=3)
    for rows in (1, 3, 8, 16, 17):
        x, residual = (Tensor(array).to(dtype) for array in (numbers(rows, inputs, seed=4), numbers(rows, out, seed=5)))
        given = [Tensor(part).to(dtype) for part in (bias, scale)]
        expected = ops.linear(x.float(), Tensor(plain), given[0].float(), activation="silu", scale=given[1].float(),
                              residual=residual.float())  # fmt: skip
        found = ops.linear(x.to("cuda"), weight, given[0].to("cuda"), activation="silu", scale=given[1].to("cuda"),
                           residual=residual.to("cuda"))  # fmt: skip
        assert found.dtype.name == dtype
        assert error(found.float(), expected) <= 4 * TOLERANCE[dtype]
        only = ops.linear(x.to("cuda"), weight)
        assert error(only.float(), ops.linear(x.float(), Tensor(plain))) <= 4 * TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("storage", "group"), CASES)
@pytest.mark.parametrize(("out", "inputs"), [(32, 256), (96, 512), (1000, 512), (17024, 256)])
def test_gated_products(dtype, storage, group, out, inputs):
    matrix, plain = stored(storage, out, inputs, group)
    weight = make_weight(matrix, storage, tl.Device("cuda"), group, tl.asarray([0.0], dtype=dtype).dtype)
    for rows in (1, 3, 16, 17):
        x = Tensor(numbers(rows, inputs, seed=4) * 0.1).to(dtype)  # products that float16 holds
        for activation in ("silu", "gelu_tanh"):
            expected = ops.linear_glu(x.float(), Tensor(plain), activation)
            assert error(ops.linear_glu(x.to("cuda"), weight, activation).float(), expected) <= 8 * TOLERANCE[dtype]


@pytest.mark.parametrize("storage", ["q4_1", "q6_k", "int8"])
def test_more_stacks_than_blocks(storage):
    matrix, plain = stored(storage, 8608, 4096)
    weight = make_weight(matrix, storage, tl.Device("cuda"), None, tl.bfloat16)
    for rows in (1, 5, 16):
        x = Tensor(numbers(rows, 4096, seed=4) * 0.1).to("bfloat16")
        for operation in (ops.linear, ops.linear_glu):
            found = operation(x.to("cuda"), weight)
            assert error(found.float(), operation(x.float(), Tensor(plain))) <= 8 * TOLERANCE["bfloat16"]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("storage", "group"), CASES)
def test_rows_and_the_whole(dtype, storage, group):
    matrix, plain = stored(storage, 70, 512, group)
    weight = make_weight(matrix, storage, tl.Device("cuda"), group, tl.asarray([0.0], dtype=dtype).dtype)
    assert error(weight.dequantize(), Tensor(plain)) <= 1e-6
    ids = tl.asarray([[3, 0, 69], [17, 17, 40]])
    found = ops.embedding(ids.to("cuda"), weight)
    assert found.dtype.name == dtype
    assert error(found.float(), ops.embedding(ids, Tensor(plain))) <= TOLERANCE[dtype]
    assert np.isnan(ops.embedding(tl.asarray([70, -1], device="cuda"), weight).float().numpy()).all()
    assert weight.nbytes >= matrix.nbytes


@pytest.mark.parametrize(("storage", "group"), CASES)
def test_moved_to_a_card_and_back(storage, group):
    matrix, plain = stored(storage, 40, 256, group)
    here = make_weight(matrix, storage, group=group)
    there = here.to("cuda")
    again = there.to("cpu")
    kept = "float16" if storage.endswith("_k") else storage
    assert [each.storage for each in (here, there, again)] == [storage, kept, kept]
    tolerance = 1e-6 if storage == "int8" else 1e-3 if kept == "float16" else 4e-2  # blocks are made once more
    for weight in (there, again):
        assert error(weight.dequantize(), Tensor(plain)) <= tolerance
    if storage == "int8":
        assert there.packed.group == again.packed.group == group
        assert again.nbytes == here.nbytes


def test_blocks_as_their_file_has_them_move_as_they_are():
    matrix, plain = stored("q4_k", 40, 256)
    there = Weight(matrix).to("cuda")
    assert there.storage == "q4_k"
    assert error(there.dequantize(), Tensor(plain)) <= 1e-6


def test_groups_that_a_card_has_not_are_widened():
    matrix, plain = stored("int8", 40, 256, 8)
    there = make_weight(matrix, "int8", group=8).to("cuda")
    assert there.storage == "float16"
    assert error(there.dequantize(), Tensor(plain)) <= 1e-3


@pytest.mark.parametrize("shape", [(5, 32), (33, 96), (100, 160)])
def test_matrices_that_are_no_whole_number_of_tiles(shape):
    for storage in ("int8", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1"):
        matrix, plain = stored(storage, *shape)
        weight = make_weight(matrix, storage, tl.Device("cuda"))
        x = Tensor(numbers(2, shape[1]))
        assert error(ops.linear(x.to("cuda"), weight), ops.linear(x, Tensor(plain))) <= 1e-5
        assert error(weight.dequantize(), Tensor(plain)) <= 1e-6
