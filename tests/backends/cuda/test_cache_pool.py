"""What a call on a model keeps for the next one, and what a session keeps."""

import gc
import weakref

import pytest

import tallow as tl
from tallow.engine import cache_pool
from tallow.engine.step import CapturedStep
from tallow.runtime.capture import Recording
from tests.backends.cuda.gpu import needs_gpu
from tests.backends.cuda.test_models import QWEN, SHORTLY, qwen
from tests.engine.small_model import small_model, vocabulary

pytestmark = needs_gpu


@pytest.fixture
def recordings(monkeypatch):
    """Grows with each recording of a step of decoding."""
    made = []

    def record(function, device):
        made.append(device)
        return Recording(function, device)

    monkeypatch.setattr("tallow.engine.step.Recording", record)
    return made


def write(model, *prompts, **options):
    return [answer.ids for answer in model.generate(list(prompts), **SHORTLY | options)]


def kept_of(model):
    return cache_pool._pool.get(model.norm)


def test_what_a_call_keeps_serves_the_next(recordings):
    short, other, long = [3, 1, 4], [5, 9, 400, 2], [1] * 90
    alone = [write(qwen("cuda"), prompt) for prompt in (short, other, long)]
    assert len(recordings) == 3
    model = qwen("cuda")
    assert [write(model, prompt) for prompt in (short, other, long)] == alone
    assert len(recordings) == 4
    cache = kept_of(model).cache
    assert write(model, short, max_tokens=1)[0] == alone[0][0][:1]
    session = model.session()
    assert session.generate(other, **SHORTLY).ids == alone[1][0]
    assert write(model, long) == alone[2]
    assert len(recordings) == 5  # the session's
    assert kept_of(model).cache is cache
    assert write(model, short, other) == [*alone[0], *alone[1]]  # more rows than the cache has
    assert kept_of(model).cache is not cache
    assert [write(model, prompt) for prompt in (long, short)] == [alone[2], alone[0]]
    assert len(recordings) == 7
    assert write(model, short, other) == [*alone[0], *alone[1]]
    assert len(recordings) == 7


def test_what_a_call_keeps_draws_for_the_next(recordings):
    options = {"temperature": 0.9, "top_k": 50, "seed": 4}
    prompts, batch = ([3, 1, 4], [5, 9, 400, 2]), ([7], [8, 8])
    fresh = [write(qwen("cuda"), prompt, **options) for prompt in prompts]
    other = write(qwen("cuda"), prompts[0], **options | {"seed": 5})
    together = write(qwen("cuda"), *batch, **options)
    greedy = write(qwen("cuda"), prompts[0])
    recordings.clear()
    model = qwen("cuda")
    assert write(model, *batch, **options) == together
    for _ in range(2):
        assert [write(model, prompt, **options) for prompt in prompts] == fresh
        assert write(model, prompts[0], **options | {"seed": 5}) == other != fresh[0]
        assert write(model, *batch, **options) == together
    assert len(recordings) == 2  # for two rows and for one
    assert write(model, prompts[0]) == greedy
    assert write(model, prompts[0], **options) == fresh[0]  # what was drawn from before is there no more
    recordings.clear()
    narrow = options | {"top_k": 2, "temperature": 0.3}
    assert write(model, prompts[0], **narrow) == write(qwen("cuda"), prompts[0], **narrow)
    assert len(recordings) == 1  # that of the second model: settings are no part of a recording
    assert write(model, prompts[0], logprobs=1) == greedy


def test_rows_that_end_early_are_there_for_the_call_that_keeps_them(recordings):
    prompts, longer = ([5, 9, 400], [1] * 70, [7]), {"max_tokens": 8}
    whole = write(qwen("cpu"), *prompts, **longer)
    stop = [whole[0][5], whole[2][2]]
    expected = write(qwen("cpu"), *prompts, stop=stop, **longer)
    assert sorted(map(len, expected)) == [2, 5, 8]
    model = qwen("cuda")
    assert write(model, *prompts, stop=stop, **longer) == expected
    recordings.clear()  # of three rows, of two and of one
    assert write(model, *reversed(prompts), **longer) == whole[::-1]
    assert write(model, *prompts, stop=stop, **longer) == expected
    assert write(model, prompts[1], **longer) == whole[1:2]
    assert not recordings


def speaking():
    """The same model, but that it writes text."""
    return small_model(context=512, **QWEN | {"vocab_size": len(vocabulary())}).to("cuda")


def test_a_stream_that_is_not_read_to_its_end_keeps_its_cache_to_itself():
    model, prompts = speaking(), ([3, 1, 4], [5, 9, 40])
    expected = [write(speaking(), prompt)[0] for prompt in prompts]
    write(model, prompts[0])
    step = kept_of(model)
    stream = model.generate(prompts[0], stream=True, **SHORTLY)
    next(stream)
    assert kept_of(model) is None
    assert write(model, prompts[1]) == [expected[1]]
    assert kept_of(model) not in (None, step)
    next(stream)
    assert stream.result().ids == expected[0]
    assert kept_of(model) is step
    for _ in range(2):
        with model.generate(prompts[1], stream=True, **SHORTLY) as left:
            next(left)
        assert kept_of(model) is step
        assert write(model, prompts[0]) == [expected[0]]


@pytest.mark.parametrize("error", [KeyboardInterrupt, tl.OutOfMemoryError])
def test_nothing_is_kept_of_a_call_that_fails(monkeypatch, error):
    model, prompt = qwen("cuda"), [3, 1, 4]
    expected = write(model, prompt)

    def fail(self):
        raise error("amidst a step")

    with monkeypatch.context() as patch:
        patch.setattr(CapturedStep, "again", fail)
        with pytest.raises(error):
            write(model, prompt)
    assert kept_of(model) is None
    assert write(model, prompt) == expected


def test_what_is_kept_goes_with_the_model():
    model = qwen("cuda")
    write(model, [3, 1, 4], temperature=0.5)
    model, moved = model.to("cuda"), weakref.ref(model)
    gc.collect()
    assert moved() is None
    assert kept_of(model) is None  # a copy has nothing of it
    write(model, [3, 1, 4], temperature=0.5)
    step, shell = weakref.ref(kept_of(model)), model
    assert tl.memory_info().kept >= step().cache.nbytes > 0
    gc.disable()
    try:
        vars(model).clear()  # as tl.unload does
        assert step() is None
        model = qwen("cuda")
        write(model, [3, 1, 4])
        step = weakref.ref(kept_of(model))
        del model
        assert step() is None
    finally:
        gc.enable()
    assert vars(shell) == {}
    assert cache_pool.nbytes(tl.Device("cuda")) == 0


def test_what_is_kept_is_given_up_where_memory_lacks(monkeypatch):
    import cupy

    from tallow.backends.cuda.memory import allocate, explaining

    expected, models = write(qwen("cuda"), [3, 1, 4]), [qwen("cuda") for _ in range(2)]

    class Full:
        """A pool that has room when nothing is kept."""

        def malloc(self, size):
            if cache_pool._pool:
                raise cupy.cuda.memory.OutOfMemoryError(size, 0)
            return size

        def free_all_blocks(self):
            """Nothing else is left behind."""

    for model in models:
        assert write(model, [3, 1, 4]) == expected
    assert len(cache_pool._pool) == 2
    with monkeypatch.context() as patch:
        patch.setattr(cupy, "get_default_memory_pool", Full)
        assert allocate(100) == 100
    assert not cache_pool._pool
    assert write(models[0], [3, 1, 4]) == expected

    def lacks(function, device):
        with explaining("recording"):
            if cache_pool._pool:
                raise cupy.cuda.memory.OutOfMemoryError(100, 0)
        return Recording(function, device)

    monkeypatch.setattr("tallow.engine.step.Recording", lacks)
    assert write(models[1], [3, 1, 4]) == expected
    assert kept_of(models[0]) is None
    assert kept_of(models[1]) is not None


def test_only_what_is_small_is_kept(monkeypatch):
    model, prompt = qwen("cuda"), [3, 1, 4]
    write(model, prompt)
    assert kept_of(model).cache.capacity == 512
    monkeypatch.setattr(cache_pool, "_most", lambda device: 200_000)  # positions take 3 KB
    expected = write(model, prompt)
    assert kept_of(model) is None
    model = qwen("cuda")
    assert write(model, prompt) == expected
    assert kept_of(model).cache.capacity == 8


def test_a_session_keeps_its_step_until_its_cache_grows(recordings):
    session, ids = qwen("cuda").session(), [3, 1, 4]
    for turn in range(4):
        ids += session.generate(ids, **SHORTLY).ids
        assert len(recordings) == [1, 2, 3, 3][turn]  # it doubles
    assert ids == [3, 1, 4, *write(qwen("cpu"), [3, 1, 4], max_tokens=20)[0]]
