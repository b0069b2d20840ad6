"""``-`` as the name of a file: the standard input."""

import io
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tallow import cli
from tests.cli.conftest import environment
from tests.cli.test_command import write_wave
from tests.models import tiny_clap, tiny_dino


@pytest.fixture(scope="module")
def clap(tmp_path_factory):
    return tiny_clap.write(tmp_path_factory.mktemp("stdin") / "clap")


@pytest.fixture(scope="module")
def dino(tmp_path_factory):
    return tiny_dino.write(tmp_path_factory.mktemp("stdin") / "dino")


@pytest.fixture
def sound(tmp_path):
    write_wave(tmp_path / "a.wav", 1)
    return tmp_path / "a.wav"


@pytest.fixture
def photo(tmp_path):
    Image.fromarray(tiny_dino.photo(40, 60)).save(
        tmp_path / "a.tif"
    )  # its directory may lie behind its pixels: it is read with jumps
    return tmp_path / "a.tif"


class Terminal(io.TextIOWrapper):
    def isatty(self):
        return True


@pytest.fixture
def run(capsys, monkeypatch):
    """Runs the command with that standard input; its status, output and complaints."""

    def run(data, *arguments, kind=io.TextIOWrapper):
        monkeypatch.setattr(sys, "stdin", kind(io.BytesIO(data)))
        status = cli.main([*map(str, arguments), "--device", "cpu"])
        return status, *capsys.readouterr()

    return run


def test_embed(run, dino, photo, clap, sound):
    for model, file, option in ((dino, photo, []), (clap, sound, ["--audio"])):
        _, named, _ = run(b"", "embed", "--model", model, *option, file)
        status, out, _ = run(file.read_bytes(), "embed", "--model", model, *option, "-")
        assert status == 0
        assert json.loads(out) == json.loads(named) | {"file": "-"}


def test_embed_beside_files_that_are_named(run, clap, sound, tmp_path):
    (tmp_path / "bad.wav").write_bytes(b"RIFF")
    status, out, err = run(sound.read_bytes(), "embed", "--model", clap, "--audio", tmp_path / "bad.wav", "-", sound)
    assert status == 1
    assert "bad.wav" in err
    assert [json.loads(line)["file"] for line in out.splitlines()] == ["-", str(sound)]


def test_embed_into_a_file(run, dino, photo, tmp_path):
    status, *_ = run(photo.read_bytes(), "embed", "--model", dino, "-", "--out", tmp_path / "v.npy")
    assert status == 0
    assert np.load(tmp_path / "v.npy").shape[0] == 1
    assert (tmp_path / "v.npy.txt").read_text() == "-\n"


def test_classify(run, clap, sound):
    labels = ["--labels", "rain", "wind", "--format", "json"]
    _, named, _ = run(b"", "classify", "--model", clap, sound, *labels)
    status, out, _ = run(sound.read_bytes(), "classify", "--model", clap, "-", *labels)
    assert status == 0
    assert json.loads(out) == json.loads(named) | {"file": "-"}


def test_features(run, dino, photo, tmp_path):
    status, *_ = run(photo.read_bytes(), "features", "--model", dino, "-", "--out", tmp_path / "map.png", "--size", 64)
    assert status == 0
    assert (tmp_path / "map.png").stat().st_size


def test_transcribe(run, checkpoint, sound, tmp_path):
    options = ["--model", checkpoint, "--language", "en", "--temperature", 0]
    _, named, _ = run(b"", "transcribe", sound, *options)
    status, out, _ = run(sound.read_bytes(), "transcribe", "-", *options)
    assert (status, out) == (0, named)
    run(sound.read_bytes(), "transcribe", "-", *options, "--output-dir", tmp_path / "texts")
    assert (tmp_path / "texts" / "stdin.txt").read_text() == named


def test_through_a_pipe(checkpoint, sound):
    command = [sys.executable, "-m", "tallow", "transcribe", "-", "--model", checkpoint, "--language", "en",
               "--temperature", "0", "--device", "cpu", "--format", "json"]  # fmt: skip
    done = subprocess.run(command, input=sound.read_bytes(), env=environment(), capture_output=True, timeout=120)
    assert done.returncode == 0
    assert json.loads(done.stdout)["duration"] == 1.0


@pytest.mark.parametrize("command", ["transcribe", "embed", "classify", "features"])
@pytest.mark.parametrize(
    ("data", "kind", "said"),
    [
        (b"", io.TextIOWrapper, "standard input: nothing in it"),
        (b"x", Terminal, "which is a terminal"),
        (b"no such thing", io.TextIOWrapper, "standard input: not "),
    ],
)
def test_what_cannot_be_read(run, clap, dino, checkpoint, tmp_path, command, data, kind, said):
    model = {"transcribe": checkpoint, "classify": clap}.get(command, dino)
    more = {"classify": ["--labels", "a"], "features": ["--out", tmp_path / "map.png"]}.get(command, [])
    status, out, err = run(data, command, "-", "--model", model, *more, kind=kind)
    assert status == 1
    assert out == ""
    assert said in err
    assert len(err.splitlines()) == 1
