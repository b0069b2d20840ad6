"""What is kept for later, and when it goes back: recordings of encoders, memory that copies use, plans of products."""

import ctypes
import gc
import weakref

import numpy as np
import pytest

import tallow as tl
from tallow.nn import Module
from tallow.runtime import encoding, gpu
from tallow.runtime.encoding import encode, pipelined
from tallow.runtime.gpu import Arriving, BatchUploader
from tallow.tensor import Tensor
from tests.backends.cuda.gpu import needs_gpu, numbers
from tests.models import tiny_dino

pytestmark = needs_gpu


class Doubling(Module):
    """An encoder whose weight is 2."""

    def __init__(self):
        self.weight = tl.ones((1,), device="cuda") * 2

    def __call__(self, x):
        return x * self.weight


@pytest.fixture(autouse=True)
def nothing_recorded():
    encoding.evict()
    yield
    encoding.evict()


@pytest.fixture
def no_collector():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def recorded(encoder, *shapes):
    """Has an encoder record some shapes; weak references to the recordings."""
    for shape in shapes:
        x = Tensor(numbers(*shape)).to("cuda")
        for _ in range(3):
            assert np.array_equal(encode(encoder, x).numpy(), 2 * x.numpy())
    return [weakref.ref(found[1]) for found in encoding._recorded[encoder]._known.values()]


def test_recordings_go_with_their_encoder(no_collector):
    encoder = Doubling()
    first, second = recorded(encoder, (3, 4), (5, 6))
    assert None not in (first(), second())
    del encoder
    assert (first(), second()) == (None, None)


def test_recordings_go_when_the_model_is_unloaded(tmp_path, no_collector):
    model = tl.load(tiny_dino.write(tmp_path / "dino"), device="cuda")
    picture = np.zeros((32, 32, 3), np.uint8)
    for _ in range(3):
        model.embed(picture)
    (recording,) = [weakref.ref(found[1]) for found in encoding._recorded[model]._known.values()]
    assert recording() is not None
    tl.unload(model)
    assert recording() is None
    with pytest.raises(tl.ArgumentError, match="unloaded"):
        model.embed(picture)


def test_recordings_are_given_up_where_memory_lacks(monkeypatch, no_collector):
    import cupy

    from tallow.backends.cuda.memory import allocate

    encoders = [Doubling(), Doubling()]
    recordings = [each for encoder in encoders for each in recorded(encoder, (3, 4), (5, 6))]

    class Full:
        """A pool that has room when nothing is recorded."""

        def malloc(self, size):
            if any(each() is not None for each in recordings):
                raise cupy.cuda.memory.OutOfMemoryError(size, 0)
            return size

        def free_all_blocks(self):
            """Nothing else is left behind."""

    with monkeypatch.context() as patch:
        patch.setattr(cupy, "get_default_memory_pool", Full)
        assert allocate(100) == 100
    assert all(each() is not None for each in recorded(encoders[0], (3, 4)))  # recorded anew


def test_recordings_are_given_up_to_one_of_the_same_encoder(monkeypatch):
    """Memory lacks while the encoder's lock is held."""
    from tallow.backends.cuda.graph import Graph
    from tallow.backends.cuda.memory import make_room

    encoder = Doubling()
    (old,) = recorded(encoder, (3, 4))
    record = Graph.record

    def lacking(self, function):
        make_room()
        return record(self, function)

    monkeypatch.setattr(Graph, "record", lacking)
    assert [each() is not None for each in recorded(encoder, (5, 6))] == [True]
    assert old() is None


def test_streams_take_turns_with_a_recording(monkeypatch):
    """What one stream still reads or copies is not overwritten on another."""
    import cupy

    encoder, x = Doubling(), Tensor(numbers(3, 4)).to("cuda")
    recorded(encoder, (3, 4))
    before, waited = encoding._recorded[encoder]._free, []

    class Other:
        """The current stream, but that it notes what it waits for."""

        def __init__(self, stream):
            self.stream = stream

        def wait_event(self, event):
            waited.append(event)
            self.stream.wait_event(event)

        def __getattr__(self, name):
            return getattr(self.stream, name)

    current = cupy.cuda.get_current_stream
    monkeypatch.setattr(cupy.cuda, "get_current_stream", lambda: Other(current()))
    assert np.array_equal(encode(encoder, x).numpy(), 2 * x.numpy())
    assert before in waited
    assert encoding._recorded[encoder]._free is not before


def test_recordings_count_as_free(monkeypatch):
    from tallow.backends.cuda.graph import Graph

    size = 10**12  # more than a card has
    monkeypatch.setattr(Graph, "nbytes", property(lambda self: size))
    gc.collect()
    encoder = Doubling()
    recorded(encoder, (3, 4), (5, 6))
    assert encoding.nbytes(tl.Device("cuda")) == 2 * size
    assert tl.memory_info().kept >= 2 * size
    encoding.evict()
    assert encoding.nbytes(tl.Device("cuda")) == 0
    assert tl.memory_info().kept < size


@pytest.fixture
def waits(monkeypatch):
    """Copies that have begun, in the order in which they were, and whether they have been waited for since."""
    found = []
    copy, wait = gpu._Pinned.copy, gpu._Pinned.wait

    def begin(self, start, nbytes, stream):
        found.append([self.bytes.ptr, False])
        copy(self, start, nbytes, stream)

    def waited(self):
        wait(self)
        for each in found:
            each[1] |= each[0] == self.bytes.ptr

    monkeypatch.setattr(gpu._Pinned, "copy", begin)
    monkeypatch.setattr(gpu._Pinned, "wait", waited)
    return found


@pytest.mark.parametrize("leave", ["close", "collect", "error", "interrupt"])
def test_memory_is_not_lent_while_a_copy_uses_it(waits, no_collector, leave):
    """A page-locked buffer goes back to its pool when nobody holds it: every copy must then be done."""
    reader = pipelined(work_on(BatchUploader(tl.Device("cuda"))), batches_until(leave))
    assert np.array_equal(next(reader)[1][0], 2 * numbers(4, 5))
    if leave == "close":
        reader.close()
    elif leave in ("error", "interrupt"):
        with pytest.raises((ValueError, KeyboardInterrupt)):
            list(reader)
    del reader
    assert len(waits) >= 4
    assert all(done for _, done in waits)


def batches_until(leave):
    yield from [[numbers(4, 5)]] * 3
    if leave in ("error", "interrupt"):
        raise ValueError if leave == "error" else KeyboardInterrupt


def work_on(feed):
    return lambda batch: feed(batch) * 2


def test_a_copy_that_is_interrupted_is_waited_for(monkeypatch):
    memory, done = gpu._Pinned(64), []

    class Event:
        def synchronize(self):
            done.append(True)

    class Stream:
        def record(self):
            return Event()

    def interrupted(address, nbytes, stream):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        memory.copy(interrupted, 64, Stream())
    del memory
    assert done == [True]


def test_values_outlast_what_brought_them():
    x = Tensor(numbers(6, 7)).to("cuda")
    values = Arriving(x).wait()
    others = [Arriving(x * 0).wait() for _ in range(4)]
    assert np.array_equal(values, numbers(6, 7))
    assert not any(other.any() for other in others)


@pytest.fixture
def library(monkeypatch):
    """A cuBLASLt that makes handles and counts what is made of them; holds those that are not freed."""
    from tallow.backends.cuda import cublaslt

    alive, numbered = {}, iter(range(1, 10**6))
    algorithms = [1]

    def function(name):
        def create(handle, *_):
            handle._obj.value = next(numbered)
            alive[handle._obj.value] = name
            return 0

        def destroy(handle):
            del alive[handle._as_parameter_.value if hasattr(handle, "_as_parameter_") else handle.value]
            return 0

        def heuristic(*arguments):
            arguments[-1]._obj.value = algorithms[0]
            return 0

        if name.endswith("Create"):
            return create
        if name.endswith("Destroy"):
            return destroy
        return heuristic if name.endswith("Heuristic") else lambda *_: 0

    monkeypatch.setattr(cublaslt, "_function", function)
    monkeypatch.setattr(cublaslt, "_plans", type(cublaslt._plans)())
    yield cublaslt, alive, algorithms
    cublaslt._plans.clear()


def plan(cublaslt, rows):
    return cublaslt._Plan(ctypes.c_void_p(1), tl.float32.numpy, (8, rows, 16, 16, 0), 1, 256, None)


def test_plans_are_bounded_and_freed(library, monkeypatch):
    cublaslt, alive, _ = library
    monkeypatch.setattr(cublaslt, "MOST_PLANS", 3)
    for rows in (1, 2, 3, 1, 4, 5, 1):
        assert cublaslt._planned(rows, lambda rows=rows: plan(cublaslt, rows)) is cublaslt._plans[rows]
    assert list(cublaslt._plans) == [4, 5, 1]  # those used last
    assert len(alive) == 3 * 5  # a product and four matrices each, and no preferences
    held = cublaslt._plans[4]
    for rows in (6, 7, 8):
        cublaslt._planned(rows, lambda rows=rows: plan(cublaslt, rows))
    assert len(alive) == 4 * 5
    del held
    assert len(alive) == 3 * 5


def test_a_plan_that_cannot_be_made_leaves_nothing(library):
    cublaslt, alive, algorithms = library
    algorithms[0] = 0
    with pytest.raises(tl.DeviceError, match="no algorithm"):
        plan(cublaslt, 3)
    gc.collect()
    assert alive == {}
