"""What a call leaves for the next; what comes of it on a card is in tests/backends/cuda/test_models.py."""

import numpy as np
import pytest

from tallow.engine import cache_pool
from tallow.engine.sampling import Sampling
from tallow.engine.step import CapturedStep, Decoder
from tallow.tensor import Tensor

from .small_model import small_model


def test_nothing_is_kept_on_the_cpu():
    model = small_model()
    model.generate("the cat", max_tokens=4)
    assert model.norm not in cache_pool._pool


def test_what_was_lent_comes_back_unless_something_fails():
    back = []

    def pieces(error):
        yield 1
        if error:
            raise error
        yield 2

    assert list(cache_pool.releasing(pieces(None), lambda: back.append("end"))) == [1, 2]
    left = cache_pool.releasing(pieces(None), lambda: back.append("left"))
    next(left)
    left.close()
    assert back == ["end", "left"]
    for error in (ValueError(), KeyboardInterrupt()):
        with pytest.raises(type(error)):
            list(cache_pool.releasing(pieces(error), lambda: back.append("failed")))
    assert back == ["end", "left"]


def test_a_cache_that_starts_again_is_as_good_as_new():
    model = small_model()
    cache, fresh = model.new_cache(3, 40), model.new_cache(2, 40)
    ids = np.random.default_rng(0).integers(0, 300, (3, 7))
    lengths = cache.layers[0].lengths
    model.forward(Tensor(ids), cache)
    cache.select([2, 0])
    model.forward(Tensor(ids[:2]), cache)
    two = cache.layers[0].lengths
    cache.select([1])
    cache.restart(2)
    assert cache.lengths.tolist() == [0, 0]
    assert cache.layers[0].lengths is two  # that recordings for two rows read
    expected = model.forward(Tensor(ids[1:]), fresh).numpy()
    np.testing.assert_array_equal(model.forward(Tensor(ids[1:]), cache).numpy(), expected)
    cache.restart(3)
    assert cache.layers[0].lengths is lengths
    assert cache.lengths.tolist() == [0, 0, 0]
    np.testing.assert_array_equal(model.forward(Tensor(ids), cache).numpy()[1:], expected)
    cache.select([2, 1, 0])
    assert cache.layers[0].lengths is lengths
    assert cache.batch == cache.max_rows == 3


def test_a_step_serves_for_other_prompts_and_ways_to_choose():
    model = small_model()
    step = Decoder(model, model.new_cache(2, 40))
    for sampling in (None, Sampling(), Sampling(top_k=3), None):
        step.begin(None if sampling is None else [sampling])
        for first in (3, 5):
            step.cache.restart(1)
            given = step([first], [[]])[0]
            logits = model.logits(model.forward(Tensor(np.array([[first]])), model.new_cache(1, 4))).numpy()[0]
            if sampling is None:
                np.testing.assert_array_equal(given, logits)
            else:
                assert given == [logits.argmax()]


def test_a_step_forgets_the_oldest_recording():
    model = small_model()
    cache = model.new_cache(3, 40)
    step = CapturedStep(lambda ids: model.forward(ids, cache), cache.layers)
    step._most = 2  # as on a card there are several
    for rows in (1, 2, 3, 2):
        cache.restart(rows)
        step([4] * rows)
    assert [recorded.ids.shape[0] for recorded in step._known.values()] == [2, 3]
    kept_one = step._known[id(cache.layers[0].lengths)].recording
    cache.restart(2)
    assert step([7, 7]) is kept_one.result
    assert step.recordable
