import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallow.errors import ArgumentError
from tallow.models.clap import FeatureConfig
from tallow.models.clap.features import ClapFeatures
from tests.models import tiny_clap
from tests.models.tiny_clap import CLIP, sound


def make(truncation="rand_trunc", **changes):
    return ClapFeatures(FeatureConfig.from_dict(tiny_clap.FEATURES | {"truncation": truncation} | changes))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 3 * CLIP), max_size=5))
def test_windows_cover_every_sample_once_and_all_but_a_short_one_are_full(lengths):
    total = sum(lengths)
    whole = np.arange(total, dtype=np.float32)  # exact: below 2**24
    blocks = np.split(whole, np.cumsum(lengths)[:-1]) if lengths else []
    windows = list(make().windows(iter(blocks)))
    assert len(windows) == -(-total // CLIP)
    assert sum(window.fresh for window in windows) == total
    for i, window in enumerate(windows):
        assert np.array_equal(window.samples, whole[window.start : window.start + CLIP])
        assert len(window.samples) == min(total, CLIP)
        assert window.fresh == min(CLIP, total - i * CLIP)
        assert window.start == min(i * CLIP, max(0, total - CLIP))


@pytest.mark.parametrize("truncation", ["rand_trunc", "fusion"])
@pytest.mark.parametrize("n", [CLIP + 1, CLIP + 480, CLIP + 960, 2 * CLIP, 7 * CLIP + 13])
def test_offsets_can_be_heard_and_the_seed_draws_them(truncation, n):
    features = make(truncation)
    drawn = [features.offsets(n, np.random.default_rng(seed)) for seed in range(30)]
    samples = sound(n / 48_000)
    for offsets in [features.offsets(n), *drawn[:3]]:
        clip = features(samples, offsets)
        assert clip.mel.shape == ((4 if truncation == "fusion" else 1), 201, 64)
    if n >= 2 * CLIP:
        assert len({tuple(offsets) for offsets in drawn}) > 20
    if truncation == "fusion" and n >= 2 * CLIP:
        assert all(a < b < c for a, b, c in drawn)
        assert features.offsets(7 * CLIP)[1] * 480 == pytest.approx(3 * CLIP, abs=960)


def test_only_a_longer_recording_is_longer():
    assert [make("fusion")(sound(s)).is_longer for s in (0.1, 2, 2.005, 2.02)] == [False, False, False, True]
    assert [make()(sound(s)).is_longer for s in (0.1, 2, 2.005)] == [False, False, True]


def test_padding():
    short = np.array([1.0, 2.0, 3.0], np.float32)
    for padding, expected in {
        "repeat": 3 * [1, 2, 3] + [1],
        "repeatpad": 3 * [1, 2, 3] + [0],
        "pad": [1, 2, 3, 0],
    }.items():
        padded = make(padding=padding).padded(np.repeat(short, 1))
        assert len(padded) == CLIP
        head = padded[: CLIP // 3 * 3]
        assert np.array_equal(head[: len(expected)] if padding == "pad" else head[:9], expected[:9])
        assert padded[-1] == {"repeat": 3, "repeatpad": 3, "pad": 0}[padding]
    odd = make(padding="repeatpad").padded(np.ones(CLIP // 2 + 1, np.float32))
    assert odd.sum() == CLIP // 2 + 1


def test_silence_is_at_the_floor():
    assert (make()(np.zeros(99, np.float32)).mel == -100).all()


def test_what_cannot_be_heard():
    with pytest.raises(ArgumentError, match="without samples"):
        make()(np.zeros(0, np.float32))
    with pytest.raises(ArgumentError, match="crops"):
        make()(sound(3), [CLIP])
    with pytest.raises(ArgumentError, match="crops"):
        make("fusion")(sound(3), [0, 1])
    with pytest.raises(ArgumentError, match="crops"):
        make("fusion")(sound(3), [0, 1, -1])
