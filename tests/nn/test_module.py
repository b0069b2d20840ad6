import threading

import numpy as np
import pytest

import tallow as tl
from tallow import nn
from tallow.matrix.weight import Weight
from tallow.nn.module import Module
from tallow.weights.var_builder import VarBuilder
from tests.ops.both import tensor


class Block(Module):
    """Two layers and a norm; ``tie`` makes the second projection the first one's."""

    def __init__(self, dim, vb, tie=False):
        self.norm = nn.LayerNorm(dim, vb.pp("norm"))
        self.up = nn.Linear(dim, dim, vb.pp("up"))
        self.down = self.up if tie else nn.Linear(dim, dim, vb.pp("down"), bias=False)
        self.size = dim

    def __call__(self, x):
        return self.down(self.up(self.norm(x), activation="gelu"), residual=x)


class Stack(Module):
    def __init__(self, layers, dim, vb):
        self.embed = nn.Embedding(10, dim, vb.pp("embed"))
        self.layers = [Block(dim, vb.pp("layers").pp(i)) for i in range(layers)]
        self.heads = {"left": nn.RMSNorm(dim, vb.pp("left")), "right": nn.RMSNorm(dim, vb.pp("right"))}
        self.scale = vb.get((dim,), "scale")
        self.name = "a string is no parameter"

    def __call__(self, ids):
        x = self.embed(ids)
        for layer in self.layers:
            x = layer(x)
        return self.heads["left"](x) * self.scale


@pytest.fixture
def stack():
    return Stack(3, 4, VarBuilder.random(seed=1))


def test_named_parameters_go_into_modules_lists_and_dicts(stack):
    names = [name for name, _ in stack.named_parameters()]
    block = ["norm.weight", "norm.bias", "up.weight", "up.bias", "down.weight"]
    layers = [f"layers.{i}.{name}" for i in range(3) for name in block]
    assert names == ["embed.weight", *layers, "heads.left.weight", "heads.right.weight", "scale"]
    assert [name for name, _ in stack.named_children()] == [
        "embed", "layers.0", "layers.1", "layers.2", "heads.left", "heads.right",
    ]  # fmt: skip


def test_state_dict_holds_plain_tensors_that_rebuild_the_module(stack, tmp_path):
    state = stack.state_dict()
    assert {name: t.shape for name, t in state.items()}["layers.1.up.weight"] == (4, 4)
    renamed = {name.replace("heads.", ""): t for name, t in state.items()}
    tl.save_safetensors(renamed, tmp_path / "model.safetensors")
    again = Stack(3, 4, VarBuilder.from_safetensors(tmp_path / "model.safetensors"))
    ids = tensor([[1, 9]], np.int64)
    assert np.array_equal(again(ids).numpy(), stack(ids).numpy())


def test_parameters_are_counted_once_however_many_names_they_have():
    vb = VarBuilder.random(seed=1)
    apart, tied = Block(8, vb), Block(8, vb, tie=True)
    assert apart.parameter_count() == 2 * 8 + (64 + 8) + 64
    assert tied.parameter_count() == 2 * 8 + (64 + 8)
    assert sum(1 for _ in tied.named_parameters()) == 6
    assert apart.nbytes >= 4 * apart.parameter_count()
    assert tied.nbytes < apart.nbytes


def test_repr_is_a_tree_with_equal_neighbours_of_a_list_shown_once(stack):
    assert (
        repr(stack)
        == """\
Stack(
  (embed): Embedding(10, 4, float32)
  (layers.0 … layers.2): Block(
    (norm): LayerNorm(4, eps=1e-05)
    (up): Linear(4, 4, bias=True, float32)
    (down): Linear(4, 4, bias=False, float32)
  )
  (heads.left … heads.right): RMSNorm(4, eps=1e-06)
)"""
    )


def test_repr_keeps_equal_attributes_apart():
    class Pair(Module):
        def __init__(self, vb):
            self.first = nn.RMSNorm(3, vb.pp("first"))
            self.second = nn.RMSNorm(3, vb.pp("second"))

    assert repr(Pair(VarBuilder.random(seed=0))) == (
        "Pair(\n  (first): RMSNorm(3, eps=1e-06)\n  (second): RMSNorm(3, eps=1e-06)\n)"
    )


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_to_gives_a_copy_with_weights_in_another_dtype_and_leaves_the_module_alone(stack, dtype):
    before = {name: t.numpy().copy() for name, t in stack.state_dict().items()}
    moved = stack.to(dtype=dtype)
    assert moved.layers is not stack.layers
    assert moved.scale.dtype.name == "float32"  # tensors stay float32 on the CPU
    for (name, old), (_, new) in zip(stack.named_parameters(), moved.named_parameters(), strict=True):
        if isinstance(old, Weight):
            assert (old.storage, new.storage) == ("float32", dtype)
            rounded = tensor(before[name]).astype(dtype).astype("float32")
            assert np.array_equal(new.dequantize().numpy(), rounded.numpy())
        else:
            assert new is old
    for name, value in stack.state_dict().items():
        assert np.array_equal(value.numpy(), before[name])


def test_to_leaves_quantised_weights_quantised():
    block = Block(32, VarBuilder.random(seed=1, quantize="int8"))
    moved = block.to(dtype="float16")
    assert moved.up.weight is block.up.weight
    assert moved.up.weight.storage == "int8"


def test_to_keeps_shared_parameters_shared():
    tied = Block(8, VarBuilder.random(seed=1), tie=True).to(dtype="float16")
    assert tied.down is tied.up
    assert tied.parameter_count() == 2 * 8 + 64 + 8


def test_to_the_same_device_changes_nothing(stack):
    moved = stack.to("cpu")
    assert moved is not stack
    assert [v is w for (_, v), (_, w) in zip(moved.named_parameters(), stack.named_parameters(), strict=True)] == [
        True
    ] * 19


def test_a_module_without_call_says_so():
    with pytest.raises(TypeError, match="Module defines no __call__"):
        Module()()


def test_threads_share_a_module(stack):
    inputs = [tensor(np.arange(i, i + 5) % 10, np.int64) for i in range(6)]
    expected = [stack(ids).numpy() for ids in inputs]
    wrong = []

    def work(i):
        wrong.extend(i for _ in range(20) if not np.array_equal(stack(inputs[i]).numpy(), expected[i]))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(inputs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
