"""Spectrograms on the card against the reference implementation on the CPU."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tallow import ops
from tallow.media import mel_filters
from tallow.ops.dispatch import OPERATIONS
from tallow.runtime.capture import Recording
from tallow.tensor import Tensor
from tests.backends.cuda.gpu import error, needs_gpu, numbers

pytestmark = needs_gpu
SIZES = [1, 2, 3, 5, 16, 25, 27, 35, 60, 64, 120, 250, 256, 400, 441, 480, 512, 768, 800, 1000, 1024, 4096]


@pytest.fixture(autouse=True)
def poisoned():
    """Memory that results will be given holds NaN."""
    import cupy

    cupy.full(16 << 20, np.nan, np.float32)


def sides(samples, filters, *args, **options):
    """The spectrogram by the reference on the CPU, in float64, and by the card."""
    x, f = (each if isinstance(each, Tensor) else Tensor(each) for each in (samples, filters))
    expected = OPERATIONS["mel_spectrogram"].reference(x.astype("float64"), f.astype("float64"), *args, **options)
    return expected, ops.mel_spectrogram(x.to("cuda"), f.to("cuda"), *args, **options)


@pytest.mark.parametrize("n_fft", SIZES)
@given(hop=st.integers(1, 500), extra=st.integers(0, 3000), bands=st.integers(1, 90), clips=st.integers(1, 3),
       center=st.booleans(), seed=st.integers(0, 99))  # fmt: skip
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_size_of_a_frame(n_fft, hop, extra, bands, clips, center, seed):
    samples = numbers(clips, (n_fft // 2 + 1 if center else n_fft) + extra, seed=seed)
    filters = np.abs(numbers(bands, n_fft // 2 + 1, seed=seed + 1))
    filters[:, seed % filters.shape[1] :][filters[:, seed % filters.shape[1] :] < 1] = 0  # bins that no filter has
    expected, found = sides(samples, filters, n_fft, hop, center=center)
    assert found.shape == expected.shape
    assert error(found, expected) <= 2e-6


@pytest.mark.parametrize(("rate", "n_fft", "hop", "bands"), [(16_000, 400, 160, 128), (48_000, 1024, 480, 64)])
@pytest.mark.parametrize(("log", "reach"), [("log10", 8.0), ("db", None), ("ln", 3.0), (None, 100.0)])
def test_as_whisper_and_clap_hear(rate, n_fft, hop, bands, log, reach):
    at = np.arange(3 * rate) / rate
    sound = np.sin(2 * np.pi * 440 * at * (1 + at)) * np.exp(-at) + 1e-3 * numbers(3 * rate)
    samples = np.stack([sound, 100 * sound[::-1], 0 * sound]).astype(np.float32)
    expected, found = sides(samples, mel_filters(rate, n_fft, bands), n_fft, hop, log=log, dynamic_range=reach)
    if log is None:
        assert error(found, expected) <= 2e-6
    else:  # noise of float32 in bands that hold a millionth of a frame's power
        np.testing.assert_allclose(found.numpy(), expected.numpy(), atol={"log10": 3e-3, "ln": 7e-3, "db": 3e-2}[log])
        assert error(found, expected) <= 1e-5


def test_silence_and_its_floor():
    for clips in (np.zeros((2, 1000), np.float32), np.full((2, 1000), 1e-30, np.float32)):
        found = ops.mel_spectrogram(
            Tensor(clips).to("cuda"), mel_filters(16_000, 400, 80).to("cuda"), 400, 160, log="log10", dynamic_range=8.0
        )
        assert np.allclose(found.numpy(), -10, rtol=1e-6)


def test_faults_stay_in_their_frames_and_clips():
    samples, filters = numbers(3, 3200), mel_filters(16_000, 400, 40)
    samples[1, 1000], samples[1, 3000] = np.nan, np.inf
    options = {"center": False, "log": "log10"}
    expected, found = sides(samples, filters, 400, 160, **options)
    assert np.isnan(found.numpy()[1, :, 4]).all()
    np.testing.assert_array_equal(np.isnan(found.numpy()), np.isnan(expected.numpy()))
    raised = ops.mel_spectrogram(Tensor(samples).to("cuda"), filters.to("cuda"), 400, 160, dynamic_range=8.0, **options)
    assert np.isnan(raised.numpy()[1]).all()  # its maximum is no number
    assert not np.isnan(raised.numpy()[::2]).any()


def test_the_loudest_that_float32_holds():
    samples, filters = numbers(1, 4000) * np.float32(1e15), np.abs(numbers(20, 201))
    expected, found = sides(samples, filters, 400, 160, log="db")
    assert error(found, expected) <= 1e-5
    beyond = ops.mel_spectrogram(Tensor(samples * np.float32(1e5)).to("cuda"), Tensor(filters).to("cuda"), 400, 160)
    assert not np.isfinite(beyond.numpy()).any()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_other_types_are_rounded_once(dtype):
    samples, filters = Tensor(numbers(2, 2000)).to(dtype), Tensor(np.abs(numbers(10, 33)))
    expected, found = sides(samples, filters, 64, 16, log="ln")
    assert found.dtype.name == dtype
    assert error(found.float(), expected) <= {"float16": 5e-4, "bfloat16": 4e-3}[dtype]


def test_what_is_left_to_the_cpu():
    samples = numbers(6000)
    for n_fft in (5000, 11, 551):  # too long, or of large factors
        filters = np.abs(numbers(4, n_fft // 2 + 1))
        expected, found = sides(samples, filters, n_fft, 100)
        assert error(found, expected) <= 2e-6
    filters = np.abs(numbers(4, 2501))
    assert ops.mel_spectrogram(Tensor(samples[None][:0]).to("cuda"), Tensor(filters).to("cuda"), 5000, 9).shape[0] == 0


def test_it_can_be_recorded():
    samples, filters = Tensor(numbers(2, 4000)).to("cuda"), mel_filters(16_000, 400, 80).to("cuda")
    options = {"log": "log10", "dynamic_range": 8.0}
    recording = Recording(lambda: ops.mel_spectrogram(samples, filters, 400, 160, **options), samples.device)
    for seed in (0, 5):
        samples.storage.set(numbers(2, 4000, seed=seed) * (1 + seed))
        recording.replay()
        assert error(recording.result, ops.mel_spectrogram(samples, filters, 400, 160, **options)) == 0
