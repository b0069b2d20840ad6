import threading

import numpy as np
import pytest

from tallow import ops
from tallow.device import Device
from tallow.errors import DeviceError
from tallow.ops import dispatch
from tallow.tensor import Tensor
from tests.ops.both import tensor


@pytest.fixture
def doubled():
    """An operation of the test's own, taken away afterwards."""

    @dispatch.operation
    def doubled_for_a_test(x: Tensor, times: int = 2) -> Tensor:
        return x * times

    yield doubled_for_a_test
    del dispatch.OPERATIONS["doubled_for_a_test"]


def test_a_kernel_stands_in_for_the_reference_and_may_leave_a_case_to_it(doubled):
    calls = []

    @dispatch.kernel("doubled_for_a_test", "cpu")
    def fast(x, times=2):
        calls.append(x.shape)
        return x + x if times == 2 else NotImplemented

    assert doubled(tensor([1.0, 2.0])).tolist() == [2.0, 4.0]
    assert doubled(tensor([1.0]), times=3).tolist() == [3.0]
    assert calls == [(2,), (1,)]


def test_an_observer_sees_every_operation_and_runs_it(doubled):
    seen = []

    def observer(op, args, kwargs, run):
        result = run()
        seen.append((op.name, kwargs, result.shape))
        return result

    dispatch.add_observer(observer)
    try:
        result = doubled(tensor([1.0, 2.0]), times=5)
    finally:
        dispatch.remove_observer(observer)
    assert result.tolist() == [5.0, 10.0]
    assert [name for name, _, _ in seen] == ["multiply", "doubled_for_a_test"]
    assert seen[-1] == ("doubled_for_a_test", {"times": 5}, (2,))


def test_an_observer_may_answer_itself(doubled):
    def instead(op, args, kwargs, run):
        return "instead"

    dispatch.add_observer(instead)
    try:
        assert doubled(tensor([1.0])) == "instead"
    finally:
        dispatch.remove_observer(instead)


def test_removing_an_observer_skips_no_other(doubled):
    """While one call walks the observers, another takes one away: all others still see the call."""
    seen = []

    def observer(name):
        return lambda op, args, kwargs, run: seen.append(name) or run()

    first, second, third = (observer(name) for name in ("first", "second", "third"))
    for each in (first, second, third):
        dispatch.add_observer(each)
    walk = iter(dispatch.observers)  # as a call does
    try:
        assert next(walk) is first
        dispatch.remove_observer(first)
        assert list(walk) == [second, third]
        doubled(tensor([1.0]))
        assert set(seen) == {"second", "third"}
        with pytest.raises(ValueError, match="not in tuple"):
            dispatch.remove_observer(first)
    finally:
        dispatch.remove_observer(second)
        dispatch.remove_observer(third)
    assert dispatch.observers == ()


@pytest.mark.parametrize("name", ["linear", "layer_norm", "softmax", "attention", "rope", "add", "getitem"])
def test_neural_and_array_operations_all_pass_through_dispatch(name):
    assert name in dispatch.OPERATIONS
    assert getattr(ops, name).__wrapped__ is dispatch.OPERATIONS[name].reference


def test_operands_on_different_devices_are_refused_by_name():
    here, there = tensor([1.0]), Tensor(np.ones(1, np.float32), Device("cuda", 0))
    for call in (
        lambda: ops.linear(here, there),
        lambda: ops.linear(here, here, residual=there),
        lambda: ops.concat([here, there]),
    ):
        with pytest.raises(DeviceError, match=r"cpu and cuda:0.*\.to\(device\)"):
            call()


def test_one_name_is_one_operation():
    with pytest.raises(RuntimeError, match="softmax is defined twice"):

        @dispatch.operation
        def softmax(x: Tensor) -> Tensor:
            return x


def test_threads_may_run_operations_at_once():
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal((50, 64)).astype(np.float32) for _ in range(4)]
    weight, bias = tensor(rng.standard_normal((96, 64))), tensor(rng.standard_normal(96))
    expected = [ops.linear(tensor(x), weight, bias, activation="gelu").numpy() for x in inputs]
    results: list[list[np.ndarray]] = [[] for _ in inputs]

    def work(i: int) -> None:
        for _ in range(20):
            results[i].append(ops.linear(tensor(inputs[i]), weight, bias, activation="gelu").numpy())

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(inputs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for mine, wanted in zip(results, expected, strict=True):
        assert len(mine) == 20
        assert all(np.array_equal(each, wanted) for each in mine)
