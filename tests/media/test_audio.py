import contextlib
import gc
import io
import logging
import multiprocessing
import os
import sys
import threading
import time
import wave

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallow.errors import MediaError
from tallow.media import AudioReader, load_audio
from tallow.media.prefetch import Prefetch


def samples_of(source, rate=None, **options):
    with AudioReader(source, rate, **options) as reader:
        return np.concatenate([*reader, np.zeros(0, np.float32)])


def expected_mean(tone, rate):
    """What the mean of the two sines is at another rate."""
    time = np.arange(round(tone.shape[1] / 44_100 * rate)) / rate
    return 0.25 * (np.sin(2 * np.pi * 440 * time) + np.sin(2 * np.pi * 1000 * time))


@pytest.mark.parametrize("rate", [None, 8_000, 16_000, 44_100, 48_000])
def test_resampled_mean_of_the_channels(encode, tone, rate):
    samples = samples_of(encode(tone, 44_100), rate)
    expected = expected_mean(tone, rate or 44_100)
    assert samples.dtype == np.float32
    assert abs(len(samples) - len(expected)) <= 1
    inner = slice(200, len(expected) - 200)  # the filter sees the silence around the recording
    assert np.abs(samples[inner] - expected[inner]).max() < 2e-4


@pytest.mark.parametrize(
    ("format", "codec", "error"),
    [
        ("wav", "pcm_u8", 0.01),
        ("wav", "pcm_s24le", 1e-6),
        ("wav", "pcm_f32le", 1e-6),
        ("wav", "pcm_f64le", 1e-6),
        ("wav", "adpcm_ima_wav", 0.05),
        ("flac", "flac", 1e-4),
        ("aiff", "pcm_s16be", 1e-4),
        ("caf", "alac", 1e-4),
        ("mp3", "libmp3lame", 0.05),
        ("ogg", "libvorbis", 0.05),
        ("mp4", "aac", 0.05),
        ("matroska", "flac", 1e-4),
    ],
)
def test_formats(encode, tone, format, codec, error):
    samples = samples_of(encode(tone, 44_100, format, codec))
    expected = tone.mean(axis=0)
    assert 0 <= len(samples) - len(expected) < 4096  # lossy codecs fill their last packet
    middle = slice(10_000, 200_000)
    assert np.abs(samples[middle] - expected[middle]).max() < error


def test_opus_in_webm(encode, tone):
    sound = encode(tone, 48_000, "webm", "libopus")
    assert AudioReader(sound).rate == 48_000
    assert np.abs(samples_of(sound)[10_000:90_000] - tone.mean(axis=0)[10_000:90_000]).max() < 0.05


@pytest.mark.parametrize("format", ["mp4", "matroska", "mpegts"])
def test_sound_of_a_video(encode, tone, format):
    film = encode(tone, 44_100, format, "aac", video=True)
    assert abs(len(samples_of(film, 16_000)) / 16_000 - 5) < 0.1


def test_six_channels_count_alike(encode):
    sixth = np.zeros((6, 48_000), np.float32)
    sixth[3] = 0.6  # the low-frequency channel, which FFmpeg's own mix drops
    assert samples_of(encode(sixth, 48_000, "flac", "flac")) == pytest.approx(0.1, abs=1e-3)


def test_channels_without_a_layout(encode):
    sound = encode(
        np.full((3, 1000), 0.3, np.float32) * [[1], [2], [3]], 16_000, codec="pcm_f32le", layout="3 channels"
    )
    assert samples_of(sound) == pytest.approx(0.6, abs=1e-6)


def test_path_bytes_and_file_give_the_same(encode, tone, tmp_path):
    sound = encode(tone, 44_100)
    path = tmp_path / "a:b ü.wav"  # neither a protocol nor ASCII
    path.write_bytes(sound)
    expected = samples_of(sound, 16_000)
    assert np.array_equal(samples_of(path, 16_000), expected)
    assert np.array_equal(samples_of(str(path), 16_000), expected)
    with open(path, "rb") as file:
        assert np.array_equal(samples_of(file, 16_000), expected)
        assert not file.closed
    assert np.array_equal(load_audio(path, 16_000).numpy(), expected)


def test_file_object_that_cannot_seek(encode, tone):
    class Pipe(io.RawIOBase):
        def __init__(self, data):
            self.data = io.BytesIO(data)

        def readable(self):
            return True

        def read(self, size=-1):
            return self.data.read(min(size, 1000))

    sound = encode(tone, 44_100)
    assert np.array_equal(samples_of(Pipe(sound)), samples_of(sound))


def test_duration_and_rate(encode, tone):
    reader = AudioReader(encode(tone, 44_100, "flac", "flac"))
    assert reader.rate == 44_100
    assert reader.duration == 5.0
    assert AudioReader(np.zeros(8000), 16_000).duration == 0.5
    assert AudioReader(np.zeros(8000), 16_000, sampling_rate=8_000).duration == 1.0


def test_blocks_are_seconds(encode, tone):
    assert [len(block) for block in AudioReader(encode(tone[:, :100_000], 44_100), 16_000)] == [16_000, 16_000, 4281]


# Arrays


@pytest.mark.parametrize(
    ("dtype", "scale", "offset"), [("int16", 2**15, 0), ("int32", 2**31, 0), ("uint8", 2**7, 128), ("float64", 1, 0)]
)
def test_dtypes_of_arrays(dtype, scale, offset):
    ramp = np.linspace(-0.99, 0.99, 1000)
    samples = samples_of((ramp * scale + offset).astype(dtype), 16_000)
    assert samples.dtype == np.float32
    assert np.abs(samples - ramp).max() < 1.01 / min(scale, 2**24) + 1e-6


def test_channels_of_arrays(encode, tone):
    assert samples_of(tone, 44_100) == pytest.approx(tone.mean(axis=0), abs=1e-7)
    resampled = samples_of(tone, 16_000, sampling_rate=44_100)
    assert np.abs(resampled - samples_of(encode(tone, 44_100, codec="pcm_f32le"), 16_000)).max() < 1e-6


def test_strided_and_whole_arrays_give_the_same(tone):
    assert np.array_equal(samples_of(np.repeat(tone[0], 2)[::2], 44_100), tone[0])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 40_000), st.sampled_from([8_000, 11_025, 16_000, 44_100, 48_000]))
def test_length_after_resampling(length, native):
    samples = samples_of(np.zeros(length, np.float32), 16_000, sampling_rate=native)
    exact = length * 16_000 / native
    assert len(samples) <= exact + 1
    assert len(samples) >= exact - 2 or length < 0.005 * native  # the filter swallows a click


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((16_000, 2)), r"\(16000, 2\).*transpose"),
        (np.zeros((2, 2, 2)), r"\(2, 2, 2\); expected \(n,\)"),
        (np.zeros((0, 5)), r"\(0, 5\)"),
        (np.float32(1.0), r"shape \(\)"),
        (np.zeros(5, complex), "complex128.*expected floating, int16"),
        (np.zeros(5, np.int64), "int64"),
        (np.array(["a"]), "dtype"),
        (None, "NoneType"),
        (np.array([0, np.nan]), "not finite"),
        (np.array([0, -np.inf]), "not finite"),
        (np.array([0.0, 20_000.0]), "20000.*scale"),
    ],
)
def test_arrays_that_are_no_sound(array, message):
    with pytest.raises(MediaError, match=message):
        AudioReader(array, 16_000)


def test_a_fault_far_behind_is_told_at_once():
    long = np.zeros(100_000, np.float32)
    long[-1] = np.nan
    with pytest.raises(MediaError, match="near second 6"):
        AudioReader(long, 16_000)


def test_array_without_a_rate():
    with pytest.raises(MediaError, match="sampling_rate="):
        AudioReader(np.zeros(5))


@pytest.mark.parametrize("rate", [0, -1, 10**9])
def test_rates_that_are_none(rate):
    with pytest.raises(MediaError, match="expected 1,000 to 768,000"):
        load_audio(np.zeros(5), rate)


# Bad files


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(MediaError, match=r"nothing\.wav: no such file"):
        load_audio(tmp_path / "nothing.wav")
    with pytest.raises(MediaError, match="is a folder"):
        load_audio(tmp_path)
    with pytest.raises(MediaError, match="null"):
        load_audio("a\0b.wav")


def test_no_bytes():
    with pytest.raises(MediaError, match="audio of 0 bytes; an array of samples may be empty"):
        load_audio(b"")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello, this is a text\n",
        b"\0" * 5000,
        bytes(range(256)) * 50,
        b"RIFF\xff\xff\xff\xffWAVE",
        b"fLaC",
        b"OggS",
    ],
)
@pytest.mark.parametrize("suffix", ["wav", "mp3", "txt"])
def test_files_that_are_no_sound(tmp_path, content, suffix):
    path = tmp_path / f"talk.{suffix}"
    path.write_bytes(content)
    with pytest.raises(MediaError, match=rf"talk\.{suffix}"):
        load_audio(path)


def test_video_without_sound(encode, tone):
    with pytest.raises(MediaError, match=r"no audio track.*video"):
        load_audio(encode(tone, 44_100, "matroska", codec=None, video=True))


def test_empty_recording(tmp_path):
    with wave.open(str(tmp_path / "empty.wav"), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
    assert load_audio(tmp_path / "empty.wav").shape == (0,)
    assert load_audio(np.zeros(0), 16_000).shape == (0,)


@pytest.mark.parametrize(
    ("format", "codec", "options"),
    [
        ("wav", "pcm_s16le", {}),
        ("flac", "flac", {}),
        ("mp3", "libmp3lame", {}),
        ("matroska", "aac", {}),
        ("mp4", "aac", {"movflags": "faststart"}),
    ],
)
def test_cut_off_in_the_middle(encode, tone, tmp_path, caplog, format, codec, options):
    sound = encode(tone, 44_100, format, codec, **options)
    with caplog.at_level(logging.WARNING, "tallow"):
        whole = samples_of(sound)
    assert not caplog.records
    path = tmp_path / "cut.wav"
    path.write_bytes(sound[: len(sound) * 6 // 10])
    with caplog.at_level(logging.WARNING, "tallow"):
        part = samples_of(path)
    assert 0.4 < len(part) / len(whole) < 0.7
    assert np.array_equal(part[:80_000], whole[:80_000])
    assert "cut.wav: decoded" in caplog.text
    assert "of the 5." in caplog.text


@pytest.mark.parametrize("codec", ["libopus", "flac"])
def test_an_ogg_without_its_end(encode, tone, tmp_path, caplog, codec):
    sound = encode(tone, 48_000, "ogg", codec)
    with caplog.at_level(logging.WARNING, "tallow"):
        whole = samples_of(sound)
        assert not caplog.records
        path = tmp_path / "cut.ogg"
        path.write_bytes(sound[: len(sound) * 6 // 10])
        part = samples_of(path)
    assert 0.4 < len(part) / len(whole) < 0.7
    assert "cut.ogg: decoded" in caplog.text
    assert "the end is missing" in caplog.text


def test_damage_in_the_middle_is_left_out(encode, tone, tmp_path, caplog):
    sound = bytearray(encode(tone, 44_100, "ogg", "flac"))
    middle = len(sound) // 2
    sound[middle : middle + 3000] = bytes(range(250)) * 12
    samples = samples_of(bytes(sound))
    assert 0.5 < len(samples) / tone.shape[1] <= 1


def test_mp4_without_its_index(encode, tone):
    with pytest.raises(MediaError, match="index is missing"):
        load_audio(encode(tone, 44_100, "mp4", "aac")[:50_000])


def test_samples_of_a_file_that_are_not_finite(encode):
    bad = np.zeros((1, 48_000), np.float32)
    bad[0, 40_000] = np.nan
    with pytest.raises(MediaError, match=r"not finite.*near second 2"):
        load_audio(encode(bad, 16_000, codec="pcm_f32le"))


def test_a_playlist_does_not_reach_other_files(encode, tone, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # names without a folder are those that FFmpeg takes for safe
    (tmp_path / "secret.ts").write_bytes(encode(tone, 44_100, "mpegts", "aac"))
    for name, content in {
        "list.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{}\n#EXT-X-ENDLIST\n",
        "list.ffconcat": "ffconcat version 1.0\nfile '{}'\n",
    }.items():
        for other in (tmp_path / "secret.ts", "secret.ts"):
            path = tmp_path / name
            path.write_text(content.format(other))
            with pytest.raises(MediaError):
                load_audio(path)


def test_nothing_of_ffmpeg_reaches_the_terminal(encode, tone, capfd):
    sound = encode(tone, 44_100, "mp3", "libmp3lame")
    samples_of(sound[:1000] + b"\xff" * 500 + sound[2000:])
    with pytest.raises(MediaError):
        load_audio(sound[:10])
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("answer", ["text", b"far too much" * 100_000, None])
def test_file_objects_that_break_the_contract(answer):
    class Odd:
        def read(self, size):
            return answer

    with pytest.raises(MediaError, match="binary"):
        load_audio(Odd())


def test_ctrl_c_while_a_file_object_is_read():
    class Interrupted:
        def read(self, size):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        AudioReader(Interrupted())


# Working ahead


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "tallow-prefetch"]


def test_no_thread_is_left(encode, tone):
    sound = encode(tone, 44_100)
    for block in AudioReader(sound):
        assert len(block)
    with AudioReader(sound) as reader:
        next(reader)
    assert list(reader) == []
    reader.close()
    reader = AudioReader(sound)
    next(reader)
    del reader
    gc.collect()
    assert threads() == []


def test_reads_no_further_ahead_than_told():
    made = []

    def count():
        for number in range(100):
            made.append(number)
            yield number

    with_limit = Prefetch(count(), limit=5)
    assert next(with_limit) == 0
    time.sleep(0.05)
    assert len(made) <= 7  # one taken, five ready, one in hand
    assert list(with_limit) == list(range(1, 100))
    with pytest.raises(StopIteration):
        next(with_limit)


def test_an_error_comes_after_what_came_before_it():
    def two_then_fail():
        yield 1
        yield 2
        raise MediaError("broken")

    items = Prefetch(two_then_fail(), limit=10)
    assert [next(items), next(items)] == [1, 2]
    with pytest.raises(MediaError, match="broken"):
        next(items)


def test_close_runs_what_the_generator_leaves():
    left = threading.Event()

    def endless():
        try:
            while True:
                yield 0
        finally:
            left.set()

    items = Prefetch(endless(), limit=3)
    next(items)
    items.close()
    assert left.is_set()
    assert list(items) == []


def test_an_interruption_before_the_thread_begins(monkeypatch):
    def interrupted(_):
        raise KeyboardInterrupt

    complaints = []
    monkeypatch.setattr(sys, "unraisablehook", complaints.append)
    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with contextlib.suppress(KeyboardInterrupt):
        Prefetch((i for i in range(3)), 1)
    gc.collect()
    assert complaints == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_does_not_wait_for_a_thread_that_it_has_not():
    def items():
        yield from range(3)

    ahead = Prefetch(items(), 1)
    while not ahead._shared.ready:  # and then the thread waits for a reader
        time.sleep(0.001)
    assert next(ahead) == 0
    while not ahead._shared.ready:
        time.sleep(0.001)

    def read():
        assert next(ahead) == 1
        with pytest.raises(MediaError, match="before a fork"):
            next(ahead)
        ahead.close()

    child = multiprocessing.get_context("fork").Process(target=read)
    child.start()
    child.join(10)
    code = child.exitcode
    child.kill()
    assert code == 0
    assert list(ahead) == [1, 2]
