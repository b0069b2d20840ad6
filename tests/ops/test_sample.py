import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallow.engine.sampling import Sampler, Sampling
from tallow.errors import ShapeError
from tallow.ops.sample import uniform
from tests.ops.both import both, tensor

OPTIONS = [
    {}, {"top_k": 3}, {"top_p": 0.7}, {"min_p": 0.2}, {"top_k": 5, "top_p": 0.9, "min_p": 0.1}, {"top_k": 1},
    {"top_p": 1e-9}, {"top_k": 999}, {"min_p": 1.0},
]  # fmt: skip


def draw(op, logits, seed, places, lengths, starts=0, **options):
    """Tokens for rows of logits, by an operation."""
    rows = np.empty((len(logits), 3), np.uint64)
    rows[:, 0], rows[:, 1], rows[:, 2] = seed, places, starts
    return op(tensor(logits), tensor(rows, np.uint64), tensor(lengths, np.int64), **options).tolist()


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**64 - 1), st.integers(0, 2**63), st.integers(0, 99), st.integers(0, 50))
def test_numbers_are_those_of_numpy(seed, place, start, count):
    generator = np.random.Generator(np.random.Philox(key=np.array([seed, place], np.uint64)))
    expected = [generator.random() for _ in range(count + 1)]
    rows = np.array([[seed, place, start]] * (count + 1), np.uint64)
    assert uniform(rows, start + np.arange(count + 1)).tolist() == expected


@both("sample")
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_draws_what_a_sampler_draws(op, options):
    logits = np.random.default_rng(0).standard_normal((3, 40, 50)).astype(np.float32) * 3
    logits[:, :, 7:20:3] = logits[:, :, :1]  # ties
    samplers = [Sampler(Sampling(temperature=0.8, seed=11, **options), [], place) for place in (0, 4, 2)]
    for step in range(40):
        expected = [sampler.choose(row) for sampler, row in zip(samplers, logits[:, step], strict=True)]
        found = draw(op, logits[:, step], 11, [0, 4, 2], [step + 5] * 3, 5, temperature=0.8, **options)
        assert found == expected


@both("sample")
def test_rows_may_have_settings_of_their_own(op):
    """Each is drawn as if all had its settings; one without a temperature is the likeliest, the first of equals."""
    logits = np.round(np.random.default_rng(1).standard_normal((12, 50)) * 3).astype(np.float32)
    settings = [{"temperature": t, **more} for t in (0.0, 0.7, 2.0) for more in ({}, *OPTIONS[1:4])]
    columns = {
        name: tensor(np.array([each.get(name, default) for each in settings]), kind)
        for name, default, kind in (
            ("temperature", 0, "float64"), ("top_k", 0, "int64"), ("top_p", 1.0, "float64"), ("min_p", 0.0, "float64"),
        )
    }  # fmt: skip
    found = draw(op, logits, 5, np.arange(12), np.arange(12), **columns)
    for row, (id, own) in enumerate(zip(found, settings, strict=True)):
        assert id == draw(op, logits, 5, np.arange(12), np.arange(12), **own)[row]
        assert own["temperature"] or id == logits[row].argmax()


@both("sample")
def test_what_cannot_come_never_comes(op):
    logits = np.full((200, 50), -np.inf, np.float32)
    logits[:, [7, 30]] = [1.0, 0.0]
    logits[:, 40] = np.nan
    for options in OPTIONS[:4]:
        found = draw(op, logits, 0, np.arange(200), [0] * 200, temperature=5.0, **options)
        assert set(found) == {7, 30}
    logits[:, 12] = np.inf
    for options in OPTIONS:
        assert set(draw(op, logits, 0, np.arange(200), [0] * 200, temperature=5.0, **options)) == {12}


@both("sample")
def test_where_nothing_can_come_some_token_does(op):
    for value in (-np.inf, np.nan):
        for options in OPTIONS:
            found = draw(op, np.full((50, 6), value), 0, np.arange(50), [0] * 50, temperature=1.0, **options)
            assert all(0 <= id < 6 for id in found)


@both("sample")
def test_draws_follow_the_probabilities(op):
    count, logits = 20_000, np.float32([0.5, 3.0, -1.0, 2.0, 3.0, 0.0])
    found = draw(op, np.tile(logits, (count, 1)), 3, np.arange(count), np.arange(count), temperature=0.7)
    expected = np.exp(logits / 0.7) / np.exp(logits / 0.7).sum() * count
    chi_square = ((np.bincount(found, minlength=6) - expected) ** 2 / expected).sum()
    assert chi_square < 20.5  # one in a thousand, of 5 degrees of freedom


@both("sample")
def test_shapes_that_do_not_fit(op):
    logits, draws = tensor(np.zeros((2, 5))), tensor(np.zeros((2, 3)), np.uint64)
    for operands in ((logits, draws, [0]), (logits, draws[:1], [0, 0]), (logits[0], draws, [0, 0])):
        with pytest.raises(ShapeError, match="sample: logits"):
            op(*operands[:2], tensor(operands[2], np.int64), temperature=1.0)
    with pytest.raises(ShapeError, match="sample: logits"):
        op(logits, draws, tensor([0, 0], np.int64), temperature=tensor([1.0], np.float64))
