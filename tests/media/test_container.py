"""Files as they are found: ordinary formats, damage, the container's clock, several tracks."""

import logging
import subprocess
import sys

import av
import numpy as np
import pytest

from tallow.errors import MediaError
from tallow.media import AudioReader, load_audio
from tallow.media.clock import MAX_SILENCE, Clock
from tests.media.films import ORDINARY, tone, write_film

RATE = 16_000


@pytest.fixture
def warned(caplog):
    caplog.set_level(logging.WARNING, "tallow")
    return lambda: [record.getMessage() for record in caplog.records]


def loudness(samples, begin, end, rate=RATE):
    return float(np.abs(samples[round(begin * rate) : round(end * rate)]).max(initial=0.0))


def hertz(samples, rate=RATE):
    return np.abs(np.fft.rfft(samples)).argmax() * rate / len(samples)


@pytest.mark.parametrize("format", ORDINARY)
def test_ordinary_files_are_read(tmp_path, format, warned):
    ending, picture, codec, rate = ORDINARY[format]
    path = write_film(tmp_path / f"film.{ending}", format, picture, (codec,), rate)
    # in a process of its own: a crash must not take the other tests along
    script = f"from tallow.media import load_audio; print(len(load_audio({str(path)!r}, {RATE}).numpy()))"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert 2 * RATE - 1 <= int(found.stdout) < 2.2 * RATE
    assert abs(hertz(load_audio(path, RATE).numpy()) - 440) < 2
    assert warned() == []


# Damage


@pytest.mark.parametrize("codec", ["ac3", "eac3"])
def test_one_damaged_frame_does_not_end_the_recording(tmp_path, codec, warned):
    path = write_film(tmp_path / f"sound.{codec}", codec, None, (codec,), 48_000, seconds=5)
    data = bytearray(path.read_bytes())
    frame = data.find(data[:2], len(data) // 2)  # the next sync word, which stays
    data[frame + 5 : frame + 40] = b"\xff" * 35
    path.write_bytes(data)
    seconds = len(load_audio(path, RATE).numpy()) / RATE
    assert 4.8 < seconds < 5.1
    assert len(warned()) == 1
    assert "1 damaged place left out" in warned()[0]


# The container's clock


def test_sound_that_begins_late_has_silence_before_it(tmp_path, warned):
    path = write_film(tmp_path / "late.mkv", "matroska", rate=48_000, seconds=3, film_seconds=7, times=[4, 5, 6])
    samples = load_audio(path, RATE).numpy()
    assert 6.9 < len(samples) / RATE < 7.2
    assert loudness(samples, 0, 3.9) == 0
    assert loudness(samples, 4.1, 5) > 0.4
    assert len(warned()) == 1
    assert "begins 4.0 seconds late" in warned()[0]


def test_a_start_that_all_tracks_share_is_no_gap(tmp_path, warned):
    path = write_film(tmp_path / "broadcast.ts", "mpegts", None, ("mp2",), 48_000, seconds=3, times=[20, 21, 22])
    with av.open(str(path)) as container:
        assert container.start_time > 19e6
    assert 3 <= len(load_audio(path, RATE).numpy()) / RATE < 3.1
    assert warned() == []


@pytest.mark.parametrize("codec", ["aac", "libopus", "pcm_s16le"])
def test_a_gap_becomes_silence(tmp_path, codec, warned):
    path = write_film(tmp_path / "gap.mkv", "matroska", None, (codec,), 48_000, seconds=6, times=[0, 1, 2, 6, 7, 8])
    blocks = list(AudioReader(path, RATE))
    assert max(map(len, blocks)) <= RATE
    samples = np.concatenate(blocks)
    assert abs(len(samples) / RATE - 9) < 0.1
    assert loudness(samples, 3.15, 5.9) == 0
    assert loudness(samples, 2, 2.9) > 0.4
    assert loudness(samples, 6.1, 7) > 0.4
    assert len(warned()) == 1
    assert "a gap of 3.0 seconds became silence" in warned()[0]


def test_lost_pages_of_an_ogg_keep_the_times_of_the_rest(tmp_path, warned):
    path = write_film(tmp_path / "sound.ogg", "ogg", None, ("libopus",), 48_000, seconds=9)
    pages = [b"OggS" + page for page in path.read_bytes().split(b"OggS")[1:]]
    lost = range(5, 8)  # a second each
    path.write_bytes(b"".join(page for i, page in enumerate(pages) if i not in lost))
    samples = load_audio(path, RATE).numpy()
    assert abs(len(samples) / RATE - 9) < 0.1
    assert len(warned()) == 1
    assert "a gap of 3.0 seconds became silence" in warned()[0]


def test_a_picture_that_outlasts_the_sound_is_no_cut(tmp_path, warned):
    path = write_film(tmp_path / "film.mkv", "matroska", seconds=3, film_seconds=6)
    assert abs(len(load_audio(path, RATE).numpy()) / RATE - 3) < 0.1
    assert warned() == []
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    load_audio(path, RATE)
    assert "cut off" in warned()[0]


def test_a_flash_film_that_is_cut_off(tmp_path, warned):
    path = write_film(tmp_path / "film.flv", "flv", "flv1", ("adpcm_swf",), seconds=6)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    load_audio(path, RATE)
    assert "of the 6.0 that the file declares; it seems to be cut off" in warned()[0]


def test_an_opus_stream_that_was_joined_late_is_no_cut(tmp_path, warned):
    path = write_film(tmp_path / "radio.opus", "ogg", None, ("libopus",), 48_000, seconds=3, times=[20, 21, 22])
    with av.open(str(path)) as container:
        assert container.duration > 22e6
    reader = AudioReader(path, RATE)
    assert abs(reader.duration - 3) < 0.1
    assert abs(sum(map(len, reader)) / RATE - 3) < 0.1
    assert warned() == []


def test_a_file_that_cannot_be_read_on_says_so(tmp_path, warned):
    path = write_film(tmp_path / "sound.wv", "wv", None, ("wavpack",), seconds=6)
    data = bytearray(path.read_bytes())
    block = data.find(b"wvpk", len(data) // 2)
    data[block : block + 4] = b"none"
    path.write_bytes(data)
    assert 2 < len(load_audio(path, RATE).numpy()) / RATE < 5
    assert "the rest cannot be read (Invalid data found" in warned()[0]
    assert "left out" not in warned()[0]


def test_years_of_silence_are_told_instead_of_made(tmp_path, warned):
    path = write_film(tmp_path / "years.mkv", "matroska", None, ("aac",), 48_000, seconds=2, times=[0, 36_000])
    assert abs(len(load_audio(path, RATE).numpy()) / RATE - 2) < 0.1
    assert "jumps 35,999" in " ".join(warned())
    path = write_film(tmp_path / "years.mp4", "mp4", None, ("aac",), 48_000, seconds=2, times=[0, 36_000])
    load_audio(path, RATE)
    assert "jumps 35,999" in warned()[-1]
    assert "cut off" not in warned()[-1]  # what its header states includes the jump


def test_chained_ogg_files_follow_one_another(encode, warned):
    chain = b"".join(encode(tone(3, 48_000), 48_000, "ogg", "libopus", serial_offset=str(n)) for n in (1, 7))
    assert abs(len(load_audio(chain, RATE).numpy()) / RATE - 6) < 0.2
    assert not any("gap" in warning or "late" in warning for warning in warned())


def test_the_clock_never_accumulates_what_it_tolerates():
    clock = Clock(0.0)
    for i in range(10_000):  # milliseconds, rounded, of 1024 samples at 44.1 kHz
        assert not clock.place(round(i * 1024 / 44_100, 3), 1024 / 44_100)
    assert clock.position == pytest.approx(10_000 * 1024 / 44_100)
    assert clock.report() == []


def test_small_losses_count_once_they_are_long_enough():
    clock, silences = Clock(0.0), 0
    for i in range(100):  # of each 40 ms, 10 are lost
        silences += clock.place(i * 0.04, 0.03)
    assert silences == clock.gaps > 5
    assert clock.position == pytest.approx(4.0, abs=0.15)


def test_timestamps_that_go_back_are_a_new_beginning():
    clock = Clock(10.0)
    times = [10, 11, 12, 0, 1, 2, 5, None, 7]
    assert [clock.place(time, 1) for time in times] == [False] * 6 + [True, False, False]
    assert clock.position == 11
    assert (clock.gaps, clock.silence) == (1, 2)


def test_a_timestamp_gone_wrong_is_refused_and_forgotten():
    clock = Clock(0.0)
    assert [clock.place(time, 1) for time in (0, 1, 1e9, 3, 4, 6)] == [False] * 5 + [True]
    assert clock.position == 7
    assert clock.refused == pytest.approx(1e9 - 2)


def test_many_gaps_together_are_bounded():
    clock = Clock(0.0)
    for i in range(100):
        clock.place(i * 1000, 1)
    assert clock.late + clock.silence <= MAX_SILENCE
    assert clock.position <= MAX_SILENCE + 100


# Tracks and formats


def test_a_track_whose_rate_is_unknown_until_its_first_frame(tmp_path):
    # a broadcast whose sound begins behind all that FFmpeg probes: 5 s of large pictures, or 5 MB
    path = tmp_path / "late.ts"
    with av.open(str(path), "w", format="mpegts") as container:
        video = container.add_stream("mpeg2video", rate=25)
        video.width, video.height, video.pix_fmt = 640, 480, "yuv420p"
        video.bit_rate = 40_000_000
        sound = container.add_stream("ac3", rate=48_000, layout="mono")
        sound.codec_context.open()
        noise = np.random.default_rng(0)
        for i in range(75):
            frame = av.VideoFrame.from_ndarray(noise.integers(0, 256, (720, 640), np.uint8), "yuv420p")
            frame.pts = i
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        samples, step = tone(2, 48_000), sound.codec_context.frame_size
        for begin in range(0, len(samples) - step, step):
            frame = av.AudioFrame.from_ndarray(samples[None, begin : begin + step], "fltp", "mono")
            frame.sample_rate, frame.pts = 48_000, begin + 3 * 48_000
            container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    with av.open(str(path)) as container:
        assert container.streams.audio[0].codec_context.sample_rate == 0, "FFmpeg knows it: the test shows nothing"
    reader = AudioReader(path)
    assert reader.rate == 48_000
    assert len(np.concatenate(list(reader))) > 1.9 * 48_000


def test_formats_known_by_their_ending(tmp_path):
    for ending, codec, rate in (("g722", "g722", 16_000), ("sln", "pcm_s16le", 8_000)):
        path = write_film(tmp_path / f"call.{ending}", {"sln": "s16le"}.get(ending, ending), None, (codec,), rate)
        reader = AudioReader(path)
        assert reader.rate == rate
        samples = np.concatenate(list(reader))
        assert abs(len(samples) / rate - 2) < 0.02
        assert abs(hertz(samples, rate) - 440) < 2
        with open(path, "rb") as file:
            assert len(np.concatenate(list(AudioReader(file)))) == len(samples)
        path.rename(tmp_path / "call.dat")
        with pytest.raises(MediaError, match=r"call\.dat: not audio"):
            load_audio(tmp_path / "call.dat")


def test_tracks_by_number_and_by_language(tmp_path):
    path = write_film(tmp_path / "film.mkv", "matroska", codecs=("flac", "flac"), languages=("eng", "ger"))
    for track, pitch in ((None, 440), (0, 440), (1, 880), ("en", 440), ("de", 880), ("deu", 880), ("DE-at", 880)):
        assert abs(hertz(load_audio(path, RATE, audio_track=track).numpy()) - pitch) < 2
    for track in (2, -1, "fr", ""):
        with pytest.raises(MediaError, match=rf"no audio track {track}; it has 0 \(eng.*\), 1 \(ger"):
            load_audio(path, RATE, audio_track=track)
    with pytest.raises(MediaError, match="audio_track is for files"):
        load_audio(np.zeros(5), RATE, audio_track=0)


# Stereo in opposite phase


@pytest.mark.parametrize("as_file", [True, False])
def test_stereo_in_opposite_phase_is_not_silence(encode, as_file, warned):
    left = tone(4, RATE)
    right = -left
    right[2 * RATE :] *= -1  # only the first half
    stereo = np.stack([left, right])
    source = encode(stereo, RATE, codec="pcm_f32le") if as_file else stereo
    samples = load_audio(source, RATE).numpy()
    assert samples == pytest.approx(left, abs=1e-6)
    assert len(warned()) == 1
    assert "2.0 seconds of stereo in opposite phase" in warned()[0]


@pytest.mark.parametrize("right", [0.0, 1.0, -0.5])
def test_other_stereo_is_its_mean(encode, right, warned):
    left = tone(2, RATE)
    for stereo in (np.stack([left, right * left]), np.stack([right * left, left])):
        assert load_audio(encode(stereo, RATE, codec="pcm_f32le")).numpy() == pytest.approx(
            (1 + right) / 2 * left, abs=1e-6
        )
    assert warned() == []
