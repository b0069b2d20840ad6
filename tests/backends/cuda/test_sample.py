"""Tokens drawn on the card: those that a sampler on the CPU draws."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tallow as tl
from tallow import ops
from tallow.engine.sampling import Sampling, candidates
from tallow.engine.step import CapturedStep
from tallow.ops.dispatch import OPERATIONS
from tallow.runtime.capture import Recording
from tallow.tensor import Tensor
from tests.backends.cuda.gpu import needs_gpu, numbers
from tests.backends.cuda.test_models import qwen

pytestmark = needs_gpu
OPTIONS = [
    {}, {"top_k": 20}, {"top_p": 0.8}, {"min_p": 0.05}, {"top_k": 50, "top_p": 0.95, "min_p": 0.02}, {"top_k": 1},
    {"top_p": 1e-9}, {"top_k": 10**9, "top_p": 0.999999}, {"min_p": 1.0},
]  # fmt: skip


def sides(logits, dtype="float32", seed=3, start=2, **options):
    """Tokens by the reference on the CPU, and by the card."""
    rows = len(logits)
    draws = np.stack([np.full(rows, seed), np.arange(rows), np.full(rows, start)], axis=1).astype(np.uint64)
    lengths = start + np.arange(rows) % 7
    x, *fixed = Tensor(logits).to(dtype), Tensor(draws), Tensor(lengths)
    found = ops.sample(x.to("cuda"), *(each.to("cuda") for each in fixed), **options)
    assert found.dtype is tl.int64
    return OPERATIONS["sample"].reference(x.float(), *fixed, **options).tolist(), found.tolist()


@pytest.fixture(autouse=True)
def poisoned():
    """Memory that results will be given holds NaN."""
    import cupy

    cupy.full(1 << 20, np.nan, np.float32)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@given(
    rows=st.integers(1, 9), vocab=st.integers(1, 6000), spread=st.sampled_from([0.0, 0.1, 3.0, 30.0]),
    temperature=st.floats(0.05, 5), top_k=st.sampled_from([0, 1, 2, 20, 1000]),
    top_p=st.sampled_from([1.0, 0.95, 0.5, 1e-6]), min_p=st.sampled_from([0.0, 0.01, 0.5, 1.0]),
    seed=st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_draws_what_the_reference_draws(dtype, rows, vocab, spread, temperature, top_k, top_p, min_p, seed):
    options = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
    expected, found = sides(numbers(rows, vocab, seed=seed) * np.float32(spread), dtype, seed, **options)
    assert found == expected


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize(("rows", "vocab"), [(1, 151936), (3, 151937), (40, 32003), (300, 50)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_usual_vocabularies(dtype, rows, vocab, options):
    expected, found = sides(numbers(rows, vocab) * 3, dtype, temperature=0.9, **options)
    assert found == expected


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_ties_infinities_and_what_is_no_number(options):
    whole = np.round(numbers(50, 3001))  # at most ten values: an edge is always among equals
    expected, found = sides(whole, temperature=2.0, **options)
    assert found == expected
    hidden = np.where(numbers(50, 3001, seed=1) > 1.5, whole, np.where(whole > 0, np.nan, -np.inf)).astype(np.float32)
    expected, found = sides(hidden, temperature=1.0, **options)
    assert found == expected
    assert all(np.isfinite(row[id]) for row, id in zip(hidden, found, strict=True))
    hidden[:, 77] = np.inf
    assert set(sides(hidden, temperature=1.0, **options)[1]) == {77}
    for value in (np.nan, -np.inf):
        expected, found = sides(np.full((9, 2000), value, np.float32), temperature=1.0, **options)
        assert found == expected


@pytest.mark.parametrize(("rows", "vocab"), [(5, 151936), (9, 3001)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_rows_may_have_settings_of_their_own(dtype, rows, vocab):
    logits, generator = numbers(rows, vocab) * 3, np.random.default_rng(1)
    columns = {
        "temperature": generator.choice([0.0, 0.7, 1.5], rows), "top_k": generator.choice([0, 1, 40], rows),
        "top_p": generator.choice([1.0, 0.9, 1e-6], rows), "min_p": generator.choice([0.0, 0.05], rows),
    }  # fmt: skip
    columns["temperature"][:2] = 0.0, 0.7
    draws = np.stack([np.full(rows, 3), np.arange(rows), np.zeros(rows)], axis=1).astype(np.uint64)
    given = [Tensor(logits).to(dtype), Tensor(draws), Tensor(np.arange(rows))]
    settings = {name: Tensor(column) for name, column in columns.items()}
    found = ops.sample(*(x.to("cuda") for x in given), **{name: x.to("cuda") for name, x in settings.items()})
    given[0] = given[0].float()
    assert found.tolist() == OPERATIONS["sample"].reference(*given, **settings).tolist()
    assert found.tolist()[0] == given[0].numpy()[0].argmax()


def test_what_comes_are_the_candidates():
    logits = numbers(1, 60) * 2
    for options in OPTIONS[:5]:
        allowed, probabilities = candidates(logits[0], Sampling(temperature=1.5, **options))
        count = 20_000
        found = np.bincount(sides(np.repeat(logits, count, 0), temperature=1.5, **options)[1], minlength=60)
        expected = np.zeros(60)
        expected[allowed] = probabilities / probabilities.sum() * count
        assert not found[expected == 0].any()
        kept = expected > 0
        chi_square = ((found[kept] - expected[kept]) ** 2 / expected[kept]).sum()
        freedom = max(kept.sum() - 1, 1)
        assert chi_square < freedom + 4.5 * (2 * freedom) ** 0.5 + 5


def test_a_recording_draws_anew_as_rows_grow():
    logits = Tensor(numbers(2, 5000)).to("cuda", "bfloat16")
    draws, lengths = (
        tl.asarray([[5, 0, 9], [5, 1, 9]], dtype="uint64", device="cuda"),
        tl.asarray([9, 9], device="cuda"),
    )
    options = {"temperature": 1.3, "top_k": 400, "top_p": 0.9}
    recording = Recording(lambda: ops.sample(logits, draws, lengths, **options), logits.device)
    written = [recording.result.tolist()]
    for length in range(10, 30):
        lengths.storage.fill(length)
        written.append(recording.replay().tolist())
        assert written[-1] == ops.sample(logits, draws, lengths, **options).tolist()
    assert len({tuple(pair) for pair in written}) > 15


@pytest.mark.parametrize("options", [{}, {"top_k": 20, "top_p": 0.9}, {"min_p": 0.3, "temperature": 3.0}], ids=str)
def test_qwen3_writes_the_same(options):
    prompts, options = [[5, 9, 400], [1] * 90, [7], [8, 8]], {"temperature": 0.9, "seed": 4, "max_tokens": 40} | options
    cpu, card = (qwen(device) for device in ("cpu", "cuda"))
    written = [[answer.ids for answer in model.generate(prompts, ignore_eos=True, **options)] for model in (cpu, card)]
    assert written[0] == written[1]
    assert len({tuple(ids) for ids in written[1]}) == 4
    alone = card.generate(prompts[0], ignore_eos=True, **options).ids
    assert alone == written[1][0]
    ends = [written[0][1][5], written[0][3][11]]  # rows leave the batch while others go on
    stopped = [[answer.ids for answer in model.generate(prompts, stop=ends, **options)] for model in (cpu, card)]
    assert stopped[0] == stopped[1]
    assert min(map(len, stopped[0])) < 12
    other = card.generate(prompts[0], ignore_eos=True, **options | {"seed": 5}).ids
    assert other != alone


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_rows_leave_while_the_card_is_behind(monkeypatch, temperature):
    busy, again = tl.ones((4096, 4096), device="cuda"), CapturedStep.again

    def late(self):
        for _ in range(4):
            ops.linear(busy, busy)
        return again(self)

    monkeypatch.setattr(CapturedStep, "again", late)
    prompts, options = [[5, 9, 400], [1] * 90, [7], [8, 8]], {"temperature": temperature, "seed": 4, "max_tokens": 25}
    whole = [answer.ids for answer in qwen("cpu").generate(prompts, ignore_eos=True, **options)]
    stop = [whole[1][5], whole[3][11]]
    written = [
        [answer.ids for answer in qwen(device).generate(prompts, stop=stop, **options)] for device in ("cpu", "cuda")
    ]
    assert written[0] == written[1]


def test_penalties_and_probabilities_are_seen_to_on_the_host():
    options = {"temperature": 0.9, "seed": 4, "max_tokens": 20, "ignore_eos": True}
    for more in ({"repetition_penalty": 1.3}, {"logprobs": 2}, {"logit_bias": {3: 5.0}}, {"prompt_lookup_tokens": 3}):
        written = [qwen(device).generate([5, 9, 400], **options, **more).ids for device in ("cpu", "cuda")]
        assert written[0] == written[1]
