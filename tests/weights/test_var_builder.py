import numpy as np
import pytest

from tallow.errors import DTypeError, ShapeError, WeightsError
from tallow.matrix import weight as weight_module
from tallow.matrix.block_matrix import BlockMatrix
from tallow.matrix.blocks import BY_NAME
from tallow.matrix.quantize import quantize_int8
from tallow.tensor import Tensor
from tallow.weights.safetensors import save_safetensors
from tallow.weights.source import TensorInfo
from tallow.weights.var_builder import VarBuilder

ARRAYS = {
    "encoder.q.weight": np.arange(32, dtype=np.float16).reshape(4, 8),
    "encoder.q.bias": np.arange(4, dtype=np.float16),
    "encoder.k.weight": np.arange(16, dtype=np.float16).reshape(2, 8),
    "norm.weight": np.ones(8, np.float32),
    "conv.weight": np.ones((3, 2, 5), np.float16),
}


@pytest.fixture
def folder(tmp_path):
    save_safetensors(ARRAYS, tmp_path / "model.safetensors")
    return tmp_path


def test_tensors_by_path_name_and_shape(folder):
    vb = VarBuilder.from_safetensors(folder)
    bias = vb.pp("encoder").pp("q").get(4, "bias")
    assert isinstance(bias, Tensor)
    assert bias.numpy().dtype == np.float32
    assert bias.numpy().tolist() == [0, 1, 2, 3]
    assert vb.pp("encoder.q").get((4,), "bias", dtype="float16").numpy().dtype == np.float16
    assert vb.get((3, 2, 5), "conv.weight").shape == (3, 2, 5)


def test_scaled_weights_scale_what_a_layer_gives(folder):
    vb, factors = VarBuilder.from_safetensors(folder), np.array([1, 2, 0.5, -1], np.float32)
    scaled = vb.pp("encoder.q").scaled(Tensor(factors))
    assert scaled.weight((4, 8)).storage == "float16"
    assert (scaled.weight((4, 8)).dequantize().numpy() == ARRAYS["encoder.q.weight"] * factors[:, None]).all()
    assert (scaled.get(4, "bias").numpy() == ARRAYS["encoder.q.bias"] * factors).all()
    assert (vb.get(4, "encoder.q.bias").numpy() == ARRAYS["encoder.q.bias"]).all()


def test_float32_tensors_are_used_in_place(folder):
    vb = VarBuilder.from_safetensors(folder)
    assert not vb.get(8, "norm.weight").numpy().flags.owndata


def test_names(folder):
    vb = VarBuilder.from_safetensors(folder)
    assert set(vb.names()) == set(ARRAYS)
    assert set(vb.pp("encoder").names()) == {"q.weight", "q.bias", "k.weight"}
    assert vb.pp("encoder").contains("q.bias")
    assert not vb.pp("encoder").contains("v.bias")
    assert vb.pp("layers").pp(3).full_name("x") == "layers.3.x"


def test_unused_names(folder):
    vb = VarBuilder.from_safetensors(folder)
    vb.pp("encoder").weight((4, 8), "q.weight")
    vb.get(8, "norm.weight")
    assert set(vb.unused()) == {"encoder.q.bias", "encoder.k.weight", "conv.weight"}


def test_missing_names_say_what_is_near(folder):
    vb = VarBuilder.from_safetensors(folder).pp("encoder")
    with pytest.raises(WeightsError, match=r"'encoder\.q\.biass' of shape \(4,\); near names: encoder\.q\.bias"):
        vb.get(4, "q.biass")
    with pytest.raises(WeightsError, match="it has 5 names"):
        vb.weight((4, 4), "zzzzzzzzzzzzzzzzz")


def test_wrong_shapes_say_both(folder):
    vb = VarBuilder.from_safetensors(folder).pp("encoder")
    with pytest.raises(WeightsError, match=r"'encoder\.q\.weight'.* wants shape \(8, 4\), the file has \(4, 8\)"):
        vb.weight((8, 4), "q.weight")


def test_how_weights_are_stored(folder):
    as_is = VarBuilder.from_safetensors(folder).weight((4, 8), "encoder.q.weight")
    assert as_is.storage == "float16"
    np.testing.assert_array_equal(as_is.dequantize().numpy(), ARRAYS["encoder.q.weight"])
    for dtype in ("float32", "bfloat16"):
        assert VarBuilder.from_safetensors(folder, dtype).weight((4, 8), "encoder.q.weight").storage == dtype
    small = VarBuilder.from_safetensors(folder, quantize="int8")
    weight = small.weight((4, 8), "encoder.q.weight")
    assert weight.storage == "int8"
    expected = quantize_int8(ARRAYS["encoder.q.weight"]).dequantize()
    np.testing.assert_array_equal(weight.dequantize().numpy(), expected)
    assert small.get((3, 2, 5), "conv.weight").numpy().dtype == np.float32


def test_options_that_are_not_there(folder):
    with pytest.raises(DTypeError, match="int3"):
        VarBuilder.from_safetensors(folder, quantize="int3")
    with pytest.raises(DTypeError, match="int64"):
        VarBuilder.from_safetensors(folder, "int64")
    with pytest.raises(ShapeError):
        VarBuilder.from_safetensors(folder, rank=2, world=2)


def test_embedding_rows(folder):
    weight = VarBuilder.from_safetensors(folder).weight((4, 8), "encoder.q.weight")
    rows = weight.rows(Tensor(np.array([[3, 0]])))
    assert rows.shape == (1, 2, 8)
    np.testing.assert_array_equal(rows.numpy()[0, 0], ARRAYS["encoder.q.weight"][3])
    assert "(4, 8)" in repr(weight)


@pytest.mark.parametrize("quantize", [None, "int8"])
def test_stacked_names(folder, quantize):
    vb = VarBuilder.from_safetensors(folder, quantize=quantize).pp("encoder")
    both = vb.weight((6, 8), ["q.weight", "k.weight"])
    one_by_one = [vb.weight((4, 8), "q.weight"), vb.weight((2, 8), "k.weight")]
    np.testing.assert_array_equal(
        both.dequantize().numpy(), np.concatenate([w.dequantize().numpy() for w in one_by_one])
    )
    with pytest.raises(WeightsError):
        vb.weight((8, 8), ["q.weight", "k.weight"])


@pytest.mark.parametrize("quantize", [None, "int8"])
def test_slices_put_together_are_the_whole(folder, quantize):
    array = ARRAYS["encoder.q.weight"].astype(np.float32)
    ranks = [VarBuilder.from_safetensors(folder, rank=r, world=2, quantize=quantize).pp("encoder.q") for r in range(2)]
    rows = [vb.weight((4, 8), split="out") for vb in ranks]
    assert [w.shape for w in rows] == [(2, 8)] * 2
    np.testing.assert_allclose(np.concatenate([w.dequantize().numpy() for w in rows]), array, atol=0.2)
    columns = [vb.weight((4, 8), split="in") for vb in ranks]
    assert [w.shape for w in columns] == [(4, 4)] * 2
    np.testing.assert_allclose(np.concatenate([w.dequantize().numpy() for w in columns], 1), array, atol=0.2)
    assert ranks[1].get(4, "bias", split="out").numpy().tolist() == [2, 3]
    assert ranks[1].weight((4, 8)).shape == (4, 8)


def test_slices_that_do_not_come_out_even(folder):
    vb = VarBuilder.from_safetensors(folder, rank=0, world=3).pp("encoder.q")
    with pytest.raises(ShapeError, match="into 3 equal parts"):
        vb.weight((4, 8), split="out")
    with pytest.raises(ShapeError, match="split='rows'"):
        vb.weight((4, 8), split="rows")


def test_random_weights_depend_on_seed_and_name_alone():
    one, two = VarBuilder.random(1), VarBuilder.random(1)
    a = one.pp("a").weight((8, 16)).dequantize().numpy()
    one.get(3, "z")
    two.get(3, "z")
    two.pp("b").weight((8, 16))
    np.testing.assert_array_equal(two.pp("a").weight((8, 16)).dequantize().numpy(), a)
    assert not np.array_equal(two.pp("b").weight((8, 16)).dequantize().numpy(), a)
    assert not np.array_equal(VarBuilder.random(2).pp("a").weight((8, 16)).dequantize().numpy(), a)
    assert one.contains("anything")
    assert one.names() == one.unused() == []


def test_random_weights_have_useful_sizes():
    vb = VarBuilder.random(0, "float16", quantize=None)
    assert vb.weight((64, 64)).storage == "float16"
    assert vb.weight((64, 400)).dequantize().numpy().std() == pytest.approx(1 / 20, rel=0.05)
    assert vb.get(1000, "norm.weight").numpy().mean() == pytest.approx(1, abs=0.05)
    assert abs(vb.get(1000, "norm.bias").numpy()).max() < 0.2
    assert vb.weight((9, 4), ["q", "k", "v"]).shape == (9, 4)
    assert vb.get((), "scale").shape == ()


class Recording:
    """A source that keeps what is asked of it."""

    where = "here"

    def __init__(self, arrays):
        self.arrays, self.released = arrays, []

    def names(self):
        return self.arrays

    def info(self, name):
        array = self.arrays.get(name)
        return None if array is None else TensorInfo(array.shape, array.dtype, array.nbytes)

    def read(self, name):
        return self.arrays[name]

    def release(self, name):
        self.released.append(name)


def test_pages_are_released_once_a_weight_is_packed_or_copied():
    source = Recording({"w": np.ones((2, 2), np.float16), "b": np.ones(2, np.float16), "f": np.ones(2, np.float32)})
    vb = VarBuilder(source)
    vb.weight((2, 2), "w")
    vb.get(2, "b")
    vb.get(2, "f")
    assert source.released == ["w", "b"]  # "f" is used where it lies


def test_unaligned_data(tmp_path):
    raw = np.zeros(17, np.uint8)
    source = Recording({"w": raw[1:17].view(np.float32).reshape(2, 2), "b": raw[1:9].view(np.float32)})
    vb = VarBuilder(source)
    assert vb.weight((2, 2), "w").dequantize().numpy().flags.aligned
    assert vb.get(2, "b").numpy().flags.aligned


class Blocks:
    """A source with three matrices in GGUF's blocks."""

    where = "blocks"

    def __init__(self):
        rng = np.random.default_rng(0)
        self.matrices = {}
        for name, kind in (("a", "q8_0"), ("b", "q8_0"), ("c", "q4_0")):
            raw = rng.integers(0, 50, (6, 2 * BY_NAME[kind].nbytes), np.uint8)  # small scales
            self.matrices[name] = BlockMatrix(raw, BY_NAME[kind])

    def names(self):
        return self.matrices

    def info(self, name):
        matrix = self.matrices.get(name)
        return matrix and TensorInfo(matrix.shape, matrix.raw.dtype, matrix.nbytes)

    def read(self, name):
        return self.matrices[name]

    def release(self, name):
        pass


def test_blocks_are_widened_with_a_word_about_it(caplog, monkeypatch):
    monkeypatch.setitem(weight_module.BLOCK_STORAGES, "cpu", ())
    source = Blocks()
    vb = VarBuilder(source)
    with caplog.at_level("INFO", "tallow.weights"):
        for name, matrix in source.matrices.items():
            weight = vb.weight((6, 64), name)
            assert weight.storage == "float16"
            np.testing.assert_array_equal(weight.dequantize().numpy(), matrix.dequantize().astype(np.float16))
    assert [record.message for record in caplog.records] == [
        "blocks: matrices in q8_0 are widened to float16", "blocks: matrices in q4_0 are widened to float16"
    ]  # fmt: skip
    exact = VarBuilder(source, dtype="float32").weight((6, 64), "c").dequantize().numpy()
    np.testing.assert_array_equal(exact, source.matrices["c"].dequantize())
    assert VarBuilder(source, quantize="int8").weight((6, 64), "a").storage == "int8"
    np.testing.assert_array_equal(vb.get((6, 64), "a").numpy(), source.matrices["a"].dequantize())


def test_int4(folder):
    vb = VarBuilder.from_safetensors(folder, quantize="int4").pp("encoder")
    assert vb.weight((4, 8), "q.weight").storage == "int8"  # rows of no whole blocks
    vb = VarBuilder.random(3, quantize="int4")
    plain, table = vb.weight((6, 64), "a"), vb.weight((6, 64), "b", table=True)
    assert (plain.storage, table.storage) == ("q4_1", "q8_0")
    wide = VarBuilder.random(3).weight((6, 64), "a").dequantize().numpy()
    np.testing.assert_allclose(plain.dequantize().numpy(), wide, atol=np.ptp(wide) / 29)


def test_what_is_in_few_bits_already_stays(monkeypatch):
    monkeypatch.setitem(weight_module.BLOCK_STORAGES, "cpu", ("q8_0", "q4_1"))
    source = Blocks()  # a and b in Q8_0
    assert VarBuilder(source, quantize="int8").weight((6, 64), "a").storage == "q8_0"
    assert VarBuilder(source, quantize="int4").weight((6, 64), "a").storage == "q4_1"
    assert VarBuilder(source, quantize="int4").weight((6, 64), "a", table=True).storage == "q8_0"


def test_int8_with_a_group_size():
    vb = VarBuilder.random(3, quantize="int8").with_quant_group_size(16)
    for columns, groups in ((64, 4), (40, 1)):
        weight = vb.pp("layer").weight((6, columns), "a")
        wide = VarBuilder.random(3).pp("layer").weight((6, columns), "a").dequantize().numpy()
        np.testing.assert_array_equal(weight.dequantize().numpy(), quantize_int8(wide, columns // groups).dequantize())


def test_blocks_stay_where_a_kernel_works_on_them(monkeypatch):
    monkeypatch.setitem(weight_module.BLOCK_STORAGES, "cpu", ("q8_0",))
    source = Blocks()
    vb = VarBuilder(source)
    assert [vb.weight((6, 64), name).storage for name in "abc"] == ["q8_0", "q8_0", "float16"]
    both = vb.weight((12, 64), ["a", "b"])
    assert both.storage == "q8_0"
    expected = np.concatenate([source.matrices[name].dequantize() for name in "ab"])
    np.testing.assert_array_equal(both.dequantize().numpy(), expected)
    assert vb.weight((12, 64), ["a", "c"]).storage == "float32"
    ids = Tensor(np.array([[3], [0]]))
    np.testing.assert_array_equal(vb.weight((6, 64), "a").rows(ids).numpy()[:, 0], expected[[3, 0]])


def test_slices_of_blocks():
    source = Blocks()
    whole = source.matrices["a"].dequantize()
    for world, storage in ((2, "q8_0"), (4, "float32")):
        vb = VarBuilder(source, rank=1, world=world)
        part = vb.weight((6, 64), "a", split="in")
        assert part.storage == storage
        np.testing.assert_array_equal(part.dequantize().numpy(), whole[:, 64 // world : 128 // world])
    part = VarBuilder(source, rank=2, world=3).weight((6, 64), "a", split="out")
    np.testing.assert_array_equal(part.dequantize().numpy(), whole[4:])


@pytest.mark.parametrize("dtype", [np.int32, np.uint8, np.bool_, np.complex64])
def test_numbers_that_are_no_weights(tmp_path, dtype):
    save_safetensors({"a": np.ones((2, 3), dtype)}, tmp_path / "x.safetensors")
    vb = VarBuilder.from_safetensors(tmp_path / "x.safetensors")
    for ask in (vb.get, vb.weight):
        with pytest.raises(
            WeightsError, match=f"'a': the model wants floating-point numbers, the file has {np.dtype(dtype)}"
        ):
            ask((2, 3), "a")
