"""The command as a process: what it prints where, and how it exits."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import wave

import numpy as np
import pytest

import tallow
from tallow import cli
from tallow.errors import ArgumentError
from tests.cli.conftest import environment
from tests.media.films import ORDINARY, write_film

FAST = ("--device", "cpu", "--beam-size", "1", "--temperature", "0", "--language", "en")


@pytest.fixture
def recording(tmp_path):
    return write_wave(tmp_path / "noise.wav", seconds=3)


def write_wave(path, seconds, volume=3000, seed=0):
    samples = np.random.default_rng(seed).normal(0, volume, round(seconds * 16_000))
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(samples.clip(-32768, 32767).astype("<i2").tobytes())
    return path


def one_line(text):
    assert text.count("\n") == 1, text
    assert text.startswith("tallow: error: ")
    return text


def test_version_and_help(command):
    assert command("--version").stdout == f"tallow {tallow.__version__}\n"
    found = command("--help")
    assert found.returncode == 0
    for name in ("transcribe", "info", "devices"):
        assert name in found.stdout
    for name in ("transcribe", "info", "devices"):
        assert command(name, "--help").returncode == 0


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("sing",),
        ("transcribe",),
        ("transcribe", "a.wav", "--format", "pdf"),
        ("transcribe", "a.wav", "--task", "sing"),
        ("transcribe", "a.wav", "--beam-size", "0"),
        ("transcribe", "a.wav", "--beam-size", "x"),
        ("transcribe", "a.wav", "--temperature", "-1"),
        ("transcribe", "a.wav", "--temperature", "warm"),
        ("transcribe", "a.wav", "b.wav", "--format", "srt"),
        ("transcribe", "x/a.wav", "y/a.wav", "--output-dir", "out"),
        ("info",),
    ],
)
def test_wrong_usage(command, arguments):
    found = command(*arguments)
    assert found.returncode == 2
    assert found.stdout == ""
    assert "usage: tallow" in found.stderr
    assert "Traceback" not in found.stderr


def test_text_goes_to_the_standard_output(command, checkpoint, recording):
    found = command("transcribe", recording, "--model", checkpoint, *FAST)
    assert (found.returncode, found.stderr) == (0, "")
    assert found.stdout.endswith("\n")


def test_other_formats_are_whole(command, checkpoint, recording):
    found = command("transcribe", recording, "--model", checkpoint, *FAST, "--format", "json", "--word-timestamps")
    data = json.loads(found.stdout)
    assert data["duration"] == 3
    assert data["language"] == "en"
    assert command("transcribe", recording, "--model", checkpoint, *FAST, "--format", "vtt").stdout.startswith(
        "WEBVTT\n"
    )


def test_several_recordings_into_a_folder(command, checkpoint, tmp_path):
    write_wave(tmp_path / "a.wav", 2)
    write_wave(tmp_path / "b.wav", 2, seed=1)
    (tmp_path / "a.flac").write_bytes((tmp_path / "a.wav").read_bytes())
    arguments = ("transcribe", "a.wav", "a.flac", "b.wav", "--model", checkpoint, *FAST)
    found = command(*arguments, "--format", "srt", "--output-dir", "texts/today")
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")
    written = sorted(path.name for path in (tmp_path / "texts" / "today").iterdir())
    assert written == ["a.flac.srt", "a.wav.srt", "b.srt"]
    headed = command(*arguments).stdout
    assert [line for line in headed.splitlines() if line.startswith("==>")] == [
        "==> a.wav <==", "==> a.flac <==", "==> b.wav <==",
    ]  # fmt: skip


def test_a_recording_that_cannot_be_read_does_not_stop_the_others(command, checkpoint, tmp_path):
    write_wave(tmp_path / "b.wav", 2)
    (tmp_path / "text.wav").write_text("this is no sound")
    found = command("transcribe", "a.wav", "text.wav", "b.wav", "--model", checkpoint, *FAST, "--output-dir", ".")
    assert found.returncode == 1
    assert [line[:15] for line in found.stderr.splitlines()] == ["tallow: error: "] * 2
    assert (tmp_path / "b.txt").is_file()


def test_ordinary_films_do_not_end_a_batch(command, checkpoint, tmp_path):
    names = [
        write_film(tmp_path / f"a.{ending}", format, picture, (codec,), rate).name
        for format, (ending, picture, codec, rate) in ORDINARY.items()
    ]
    found = command("transcribe", *names, "--model", checkpoint, *FAST, "--format", "json", "--output-dir", "out")
    assert (found.returncode, found.stderr) == (0, "")
    durations = [json.loads(path.read_text())["duration"] for path in (tmp_path / "out").iterdir()]
    assert len(durations) == len(names)
    assert all(2 <= seconds < 2.2 for seconds in durations)


def test_audio_track(command, checkpoint, tmp_path):
    write_film(tmp_path / "film.mkv", "matroska", codecs=("flac", "flac"), languages=("eng", "ger"))
    arguments = ("transcribe", "film.mkv", "--model", checkpoint, *FAST, "--format", "json", "--audio-track")
    by_language = command(*arguments, "de")
    assert (by_language.returncode, by_language.stderr) == (0, "")
    assert command(*arguments, "1").stdout == by_language.stdout
    assert "no audio track 2; it has 0 (eng" in one_line(command(*arguments, "2").stderr)


def test_a_missing_recording_is_told_before_the_model_is_looked_for(command):
    found = command("transcribe", "nothing.wav", "--model", "no/such-model")
    assert found.returncode == 1
    assert "nothing.wav: no such file" in one_line(found.stderr)


@pytest.mark.parametrize("kind", ["empty", "silent"])
def test_a_recording_without_speech_is_no_error(command, checkpoint, tmp_path, kind):
    path = write_wave(tmp_path / "quiet.wav", 0 if kind == "empty" else 31, volume=0)
    found = command("transcribe", path, "--model", checkpoint, *FAST)
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--model", "no/such-model"), "no model 'no/such-model'"),
        (("--language", "klingon"), "unknown language 'klingon'"),
        (("--language", "sv"), "does not know Swedish"),
        (("--device", "cuda"), "device 'cuda'"),
        (("--device", "tpu"), "no device 'tpu'"),
        (("--clip-timestamps", "5,3"), "clip_timestamps"),
    ],
)
def test_errors_are_one_line(command, checkpoint, recording, options, message):
    found = command("transcribe", recording, "--model", checkpoint, "--device", "cpu", *options)
    assert found.returncode == 1
    assert found.stdout == ""
    assert message in one_line(found.stderr)


def test_a_folder_that_cannot_be_made(command, checkpoint, recording, tmp_path):
    (tmp_path / "file").write_text("")
    found = command("transcribe", recording, "--model", checkpoint, *FAST, "--output-dir", "file")
    assert found.returncode == 1
    assert "--output-dir file: is a file; name a folder" in one_line(found.stderr)


def test_info(command, checkpoint, tmp_path):
    found = command("info", checkpoint)
    assert found.returncode == 0
    assert "whisper" in found.stdout
    assert "d_model 32" in found.stdout
    assert "memory" in found.stdout
    missing = command("info", tmp_path / "nothing")
    assert missing.returncode == 1
    one_line(missing.stderr)


def test_devices(command):
    found = command("devices")
    assert found.returncode == 0
    assert found.stdout.startswith("cpu")
    assert "threads" in found.stdout


def test_a_reader_that_leaves_is_no_error(checkpoint, recording):
    with subprocess.Popen(
        [sys.executable, "-m", "tallow", "transcribe", recording, "--model", checkpoint, *FAST],
        env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        process.stdout.close()
        errors = process.stderr.read()
        process.wait()
    assert errors == b""
    assert process.returncode == 141


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
@pytest.mark.parametrize("delay", [0.0, 0.03, 0.1, 0.3, 0.6, 1.0])
def test_interrupting_leaves_nothing_half_written(checkpoint, tmp_path, delay):
    write_wave(tmp_path / "long.wav", 400)
    # Said from within: before, an interrupt would come to Python's own handler.
    code = (
        "import sys; from tallow import cli; run = cli._run; "
        "cli._run = lambda argv: (print('begun', flush=True), run(argv))[1]; sys.exit(cli.main())"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, "transcribe", "long.wav", "--model", checkpoint, "--output-dir", "out"],
        cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout.readline() == "begun\n"
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert output == ""
    assert errors == "tallow: interrupted\n"
    assert not (tmp_path / "out").exists() or list((tmp_path / "out").iterdir()) == []


def test_an_interrupt_that_comes_inside_a_finaliser_is_not_lost(monkeypatch, capsys):
    class Finalised:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)

    ended = []

    def work(argv):
        Finalised()
        time.sleep(60)
        ended.append(True)

    monkeypatch.setattr(cli, "_run", work)
    before = sys.unraisablehook, signal.getsignal(signal.SIGINT)
    try:
        assert cli.main([]) == 130
        assert sys.unraisablehook is before[0]
    finally:
        signal.signal(signal.SIGINT, before[1])
    assert ended == []
    assert capsys.readouterr().err == "tallow: interrupted\n"


def test_help_and_version_import_nothing_heavy():
    code = """
import sys
from tallow.cli import main
for arguments in (["--version"], ["--help"], ["transcribe", "--help"]):
    try:
        main(arguments)
    except SystemExit:
        pass
heavy = {"numpy", "av", "PIL", "tokenizers", "huggingface_hub", "tqdm", "jinja2", "tallow.models"}
print("LOADED", sorted(heavy & set(sys.modules)))
"""
    found = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "LOADED []"


def test_transcribing_imports_only_what_it_needs(checkpoint, recording):
    code = f"""
import sys
from tallow.cli import main
assert main({["transcribe", str(recording), "--model", str(checkpoint), *FAST]!r}) == 0
heavy = {{"PIL", "tokenizers", "huggingface_hub", "tqdm", "jinja2", "safetensors", "numpy.random", "asyncio"}}
print("LOADED", sorted(heavy & set(sys.modules)))
"""
    found = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "LOADED []"


@pytest.mark.parametrize("nested", [False, True])
def test_a_fault_of_tallows_own_is_told_as_one(monkeypatch, capsys, tmp_path, nested):
    """Whether it comes out bare, or an operation has turned it into an error about its operands."""
    from tallow.ops import dispatch

    @dispatch.operation
    def broken_for_a_test():
        return len(5)

    del dispatch.OPERATIONS["broken_for_a_test"]

    def work(argv):
        if nested:
            broken_for_a_test()
        raise TypeError("'NoneType' object is not iterable")

    monkeypatch.setattr(cli, "_run", work)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert cli.main([]) == 70
    said = capsys.readouterr().err
    assert said.startswith("tallow: this is a fault of Tallow's, not yours: ")
    assert said.count("\n") == 1
    assert "issue tracker" in said
    (report,) = tmp_path.iterdir()
    assert str(report) in said
    assert "in work" in report.read_text()
    assert "TypeError" in report.read_text()


def test_a_users_mistake_is_no_fault(monkeypatch, capsys):
    def work(argv):
        raise ArgumentError("top_p must be at most 1")

    monkeypatch.setattr(cli, "_run", work)
    assert cli.main([]) == 1
    assert capsys.readouterr().err == "tallow: error: top_p must be at most 1\n"
