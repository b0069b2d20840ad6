from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallow.errors import ArgumentError
from tallow.media import AudioReader, LogMelWindows, load_audio, mel_filters
from tallow.media.mel import HOP, N_FFT, RATE, WINDOW

EXAMPLE = Path(__file__).parents[2] / "examples" / "harbour.flac"
GOLDEN = Path(__file__).parent / "golden" / "whisper_mel.npz"


def windows(samples, bands=80):
    return LogMelWindows(AudioReader(np.asarray(samples, np.float32), RATE), bands)


def noise(seconds, seed=1):
    return np.random.default_rng(seed).standard_normal(int(seconds * RATE)).astype(np.float32) * 0.05


def whole_spectrogram(samples, bands=80):
    """log10 mel power of every frame of a recording that silence follows, by the definition, in float64."""
    padded = np.concatenate([samples[N_FFT // 2 : 0 : -1], samples, np.zeros(39 * RATE)]).astype(np.float64)
    frames = np.lib.stride_tricks.sliding_window_view(padded, N_FFT)[::HOP]
    power = np.abs(np.fft.rfft(frames * np.hanning(N_FFT + 1)[:-1])) ** 2
    return np.log10(np.maximum(mel_filters(RATE, N_FFT, bands).numpy().astype(np.float64) @ power.T, 1e-10))


def scaled(window):
    return (np.maximum(window, window.max() - 8) + 4) / 4


@pytest.mark.parametrize("bands", [80, 128])
def test_golden_windows(bands):
    """Every 50th frame of two windows, as Transformers computes them (tools/make_whisper_mel_golden.py)."""
    golden = np.load(GOLDEN)
    samples = load_audio(EXAMPLE, RATE).numpy()
    alone, frames = windows(samples, bands).window(0)
    assert frames == len(samples) // HOP
    assert np.abs(alone[:, ::50] - golden[f"alone{bands}"]).max() < 2e-5
    several = windows(np.tile(samples, 4), bands)
    assert np.abs(several.window(1234)[0][:, ::50] - golden[f"within{bands}"]).max() < 2e-5


@pytest.mark.parametrize("seconds", [0.02, 0.1, 12.345, 29.99, 30.0, 30.02, 61.0])
def test_windows_are_cut_from_the_whole(seconds):
    samples = noise(seconds)
    whole, several, start = whole_spectrogram(samples), windows(samples), 0
    while True:
        features, frames = several.window(start)
        assert features.shape == (80, WINDOW)
        assert features.dtype == np.float32
        assert frames == min(WINDOW, max(0, len(samples) // HOP - start))
        if frames == 0:
            break
        assert np.abs(features - scaled(whole[:, start : start + WINDOW])).max() < 1e-4
        start += min(frames, 2777)
    assert several.duration == len(samples) / RATE


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 50_000), st.lists(st.integers(0, 200), max_size=4))
def test_any_length_and_any_start(length, steps):
    samples = noise(4)[:length]
    if length < 201:
        samples = np.concatenate([samples, np.zeros(201 - length, np.float32)])
    whole, several, start = whole_spectrogram(samples), windows(samples), 0
    for step in steps:
        start += step
        features, frames = several.window(start)
        assert frames == max(0, len(samples) // HOP - start)
        assert np.abs(features - scaled(whole[:, start : start + WINDOW])).max() < 1e-4


def test_the_floor_is_the_windows_own():
    samples = np.concatenate([noise(30), noise(30) * 1e-3])
    several = windows(samples)
    earlier, later = several.window(0)[0], several.window(3010)[0]
    assert later.max() == pytest.approx(earlier.max() - 1.5, abs=0.2)
    assert later.min() < earlier.max() - 2.1


def test_silence_and_nothing():
    for samples in (np.zeros(5 * RATE), np.zeros(0), np.zeros(100)):
        features, frames = windows(samples).window(0)
        assert frames == len(samples) // HOP
        assert features == pytest.approx(-1.5, abs=1e-6)


def test_the_window_is_the_callers_own():
    several = windows(noise(5))
    first, _ = several.window(0)
    kept = first.copy()
    first[:] = 0
    assert np.array_equal(several.window(0)[0], kept)


def test_only_forwards():
    several = windows(noise(70))
    several.window(3500)
    several.window(3500)
    with pytest.raises(ArgumentError, match="frame 1000 lies before"):
        several.window(1000)
    with pytest.raises(ArgumentError):
        several.window(-1)


def test_holds_no_more_than_a_window_needs():
    several = windows(noise(200))
    for start in (0, 2900, 11_000, 15_000):
        several.window(start)
        assert sum(len(block) for _, block in several._blocks) <= 33 * RATE


def test_duration_is_declared_then_exact():
    several = LogMelWindows(AudioReader(EXAMPLE, RATE))
    assert several.duration == pytest.approx(14.35)
    several.window(0)
    assert several.duration == pytest.approx(14.35)
    several.close()


def test_only_at_its_own_rate():
    with pytest.raises(ArgumentError, match="rate=16000"):
        LogMelWindows(AudioReader(np.zeros(5), 8_000))


# Filters


@pytest.mark.parametrize("scale", ["slaney", "htk"])
def test_triangles(scale):
    filters = mel_filters(16_000, 4096, 20, low=100, high=7000, scale=scale, norm=None).numpy()
    frequencies = np.linspace(0, 8000, 2049)
    assert filters.shape == (20, 2049)
    assert filters[:, (frequencies <= 100) | (frequencies >= 7000)].max() < 1e-6
    assert filters.max(axis=1) == pytest.approx(1, abs=0.1)
    inside = (frequencies > frequencies[filters[0].argmax()]) & (frequencies < frequencies[filters[-1].argmax()])
    assert filters[:, inside].sum(axis=0) == pytest.approx(1, abs=1e-5)  # neighbours share each frequency


def test_equal_areas():
    filters = mel_filters(16_000, 4096, 20).numpy()
    assert filters.sum(axis=1) * (8000 / 2048) == pytest.approx(1, rel=0.02)


@pytest.mark.parametrize(
    "arguments", [{"scale": "bark"}, {"norm": "l2"}, {"low": 9000.0}, {"low": -1.0}, {"bands": 0}, {"high": 0.0}]
)
def test_filters_that_there_are_not(arguments):
    with pytest.raises(ArgumentError, match="mel_filters"):
        mel_filters(16_000, 400, **{"bands": 80, **arguments})
