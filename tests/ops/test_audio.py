import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallow import ops
from tallow.errors import ArgumentError, ShapeError
from tallow.media import mel_filters
from tests.ops.both import both, relative_error, tensor

RNG = np.random.default_rng(5)


def formula(samples, filters, n_fft, hop, center=True):
    """The definition, in float64: (n,) -> (bands, frames) of power."""
    x = np.asarray(samples, np.float64)
    if center:
        x = np.pad(x, n_fft // 2, mode="reflect")
    window = 0.5 * (1 - np.cos(2 * np.pi * np.arange(n_fft) / n_fft))
    turns = np.exp(-2j * np.pi * np.outer(np.arange(n_fft // 2 + 1), np.arange(n_fft)) / n_fft)
    starts = range(0, len(x) - n_fft + 1, hop)
    power = np.stack([np.abs(turns @ (window * x[start : start + n_fft])) ** 2 for start in starts], axis=1)
    return np.asarray(filters, np.float64) @ power


def noise(*shape):
    return RNG.standard_normal(shape).astype(np.float32) * 0.1


@both("mel_spectrogram")
@settings(max_examples=30, deadline=None)
@given(
    n_fft=st.integers(1, 70),
    hop=st.integers(1, 80),
    extra=st.integers(0, 200),
    bands=st.integers(1, 9),
    center=st.booleans(),
)
def test_is_its_formula(op, n_fft, hop, extra, bands, center):
    samples, filters = noise(n_fft + extra), np.abs(noise(bands, n_fft // 2 + 1))
    out = op(tensor(samples), tensor(filters), n_fft, hop, center=center)
    assert relative_error(out, formula(samples, filters, n_fft, hop, center)) < 2e-6


@both("mel_spectrogram")
@pytest.mark.parametrize(("rate", "n_fft", "hop", "bands"), [(16_000, 400, 160, 80), (48_000, 1024, 480, 64)])
def test_the_sizes_of_whisper_and_clap(op, rate, n_fft, hop, bands):
    samples, filters = noise(rate // 4), mel_filters(rate, n_fft, bands)
    out = op(tensor(samples), filters, n_fft, hop)
    assert out.shape == (bands, 1 + len(samples) // hop)
    assert relative_error(out, formula(samples, filters.numpy(), n_fft, hop)) < 1e-6


@both("mel_spectrogram")
@pytest.mark.parametrize(("log", "function"), [("ln", np.log), ("log10", np.log10), ("db", lambda y: 10 * np.log10(y))])
def test_logarithms_and_their_floor(op, log, function):
    filters = np.abs(noise(5, 17))
    samples = np.concatenate([noise(500), np.zeros(500)])
    out = op(tensor(samples), tensor(filters), 32, 16, log=log, floor=1e-4)
    expected = function(np.maximum(formula(samples, filters, 32, 16), 1e-4))
    assert np.abs(out.numpy() - expected).max() < 1e-4
    assert out.numpy().min() == pytest.approx(function(1e-4), rel=1e-6)


@both("mel_spectrogram")
def test_dynamic_range_is_that_of_each_clip(op):
    filters = tensor(np.abs(noise(5, 17)))
    samples = noise(2, 1000) * np.array([[1.0], [100.0]], np.float32)
    samples[:, 500:] *= 1e-3
    whole = op(tensor(samples), filters, 32, 16, log="log10")
    out = op(tensor(samples), filters, 32, 16, log="log10", dynamic_range=2.0).numpy()
    for clip, wide in zip(out, whole.numpy(), strict=True):
        assert np.array_equal(clip, np.maximum(wide, wide.max() - np.float32(2)))
        assert (clip > wide).any()


@both("mel_spectrogram")
def test_silence(op):
    out = op(tensor(np.zeros(100)), tensor(np.ones((2, 17))), 32, 16, log="ln", dynamic_range=8.0)
    assert np.array_equal(out.numpy(), np.full((2, 7), np.log(np.float32(1e-10))))


@both("mel_spectrogram")
def test_clips_side_by_side_are_clips_alone(op):
    filters, clips = tensor(np.abs(noise(3, 9))), noise(2, 3, 100)
    out = op(tensor(clips), filters, 16, 10)
    assert out.shape == (2, 3, 3, 11)
    for i in range(2):
        for j in range(3):
            assert np.allclose(out.numpy()[i, j], op(tensor(clips[i, j]), filters, 16, 10).numpy(), rtol=1e-6)


@both("mel_spectrogram")
@pytest.mark.parametrize(("dtype", "error"), [(np.float64, 1e-7), (np.float16, 1e-3)])
def test_other_floats(op, dtype, error):
    samples, filters = noise(300).astype(dtype), np.abs(noise(3, 17))
    out = op(tensor(samples, dtype), tensor(filters), 32, 16)
    assert out.numpy().dtype == dtype
    assert relative_error(out, formula(samples, filters, 32, 16)) < error


@both("mel_spectrogram")
def test_strided_operands(op):
    samples, filters = noise(600), np.abs(noise(17, 3))
    out = op(tensor(samples)[::2], tensor(filters).mT, 32, 16)
    assert relative_error(out, formula(samples[::2], filters.T, 32, 16)) < 1e-6


@both("mel_spectrogram")
def test_a_fault_stays_in_its_frames(op):
    samples = noise(320)
    samples[160] = np.nan
    bad = np.isnan(op(tensor(samples), tensor(np.ones((2, 9))), 16, 16, center=False).numpy()).all(axis=0)
    assert bad.tolist() == [i == 10 for i in range(20)]


@both("mel_spectrogram")
@pytest.mark.parametrize(("count", "center"), [(16, False), (17, False), (9, True)])
def test_the_fewest_samples(op, count, center):
    samples, filters = noise(count), np.abs(noise(2, 9))
    out = op(tensor(samples), tensor(filters), 16, 16, center=center)
    assert relative_error(out, formula(samples, filters, 16, 16, center)) < 2e-6


@both("mel_spectrogram")
def test_what_does_not_fit(op):
    filters = tensor(np.ones((2, 9)))
    with pytest.raises(ShapeError, match=r"\(15,\).*at least 16"):
        op(tensor(noise(15)), filters, 16, 4, center=False)
    with pytest.raises(ShapeError, match=r"\(8,\).*at least 9"):
        op(tensor(noise(8)), filters, 16, 4)
    with pytest.raises(ShapeError, match=r"\(2, 9\); expected \(bands, 17\)"):
        op(tensor(noise(99)), filters, 32, 4)
    with pytest.raises(ArgumentError, match=r"'bel'.*'log10'"):
        op(tensor(noise(99)), filters, 16, 4, log="bel")
    with pytest.raises(ArgumentError, match="hop 0"):
        op(tensor(noise(99)), filters, 16, 0)


def test_candles_spectrogram():
    """`pcm_to_mel` of the Candle guide: no padding, natural logarithm, floor 1e-10."""
    samples, filters = noise(4000), np.abs(noise(128, 201))
    out = ops.mel_spectrogram(tensor(samples), tensor(filters), 400, 160, center=False, log="ln")
    assert out.shape == (128, (4000 - 400) // 160 + 1)
    assert np.abs(out.numpy() - np.log(np.maximum(formula(samples, filters, 400, 160, False), 1e-10))).max() < 1e-4
