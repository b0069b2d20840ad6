"""Labels for sounds, as text, on a terminal, and as JSON."""

import json
import os
import subprocess
import sys

import pytest

import tallow as tl
from tallow.cli import classify, main
from tests.cli.conftest import environment
from tests.cli.test_embed import write_sound
from tests.models import tiny_clap

LABELS = ["rain", "a dog barking", "zug"]


@pytest.fixture(scope="module")
def clap(tmp_path_factory):
    yield str(tiny_clap.write(tmp_path_factory.mktemp("clap") / "tiny"))
    tl.unload()


@pytest.fixture
def sound(tmp_path):
    return str(write_sound(tmp_path / "noise.wav", 1))


def run(capsys, *argv):
    status = main(["classify", *map(str, argv)])
    out, err = capsys.readouterr()
    return status, out, err


def test_text(capsys, clap, sound):
    status, out, err = run(capsys, sound, "--labels", *LABELS, "--model", clap)
    expected = tl.load(clap).classify(sound, LABELS)
    assert (status, err) == (0, "")
    assert out == "".join(f"{score:6.1%} {label}\n" for label, score in expected)


def test_several_sounds_have_headings_and_faults_are_told(capsys, clap, sound, tmp_path):
    other = write_sound(tmp_path / "other.wav", 2.5, 1)
    (tmp_path / "bad.wav").write_bytes(b"no sound")
    status, out, err = run(capsys, sound, tmp_path, "--labels", *LABELS, "--top", 1, "--model", clap)
    assert status == 1
    assert [line for line in out.splitlines() if not line.startswith("  ")] == [sound, str(other)]
    assert len(out.splitlines()) == 4
    assert err.count("\n") == 1
    assert "bad.wav" in err


def test_json_and_labels_from_a_file(capsys, clap, sound, tmp_path):
    (tmp_path / "labels.txt").write_text("rain\n\n a dog barking \nzug\n")
    argv = [sound, "--labels-file", tmp_path / "labels.txt", "--format", "json", "--template", "{}", "--model", clap]
    status, out, err = run(capsys, *argv)
    assert (status, err) == (0, "")
    found = json.loads(out)
    expected = tl.load(clap).classify(sound, LABELS, template="{}")
    assert found["file"] == sound
    assert [(entry["label"], entry["score"]) for entry in found["labels"]] == [
        (label, pytest.approx(score, abs=1e-6)) for label, score in expected
    ]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--labels"], "no labels"),
        ([], "no labels"),
        (["--labels", "rain", " "], "an empty label"),
        (["--labels", "rain", "--top", "0"], "expected at least 1"),
    ],
)
def test_wrong_usage(capsys, sound, argv, said):
    with pytest.raises(SystemExit) as raised:
        main(["classify", sound, *argv])
    assert raised.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--labels", "a" * 100_000], "tokens ('This is a sound of aaaa"),
        (["--labels", "rain", "--template", "no place"], "must hold {}"),
        (["--labels-file", "/nowhere.txt"], "/nowhere.txt"),
    ],
)
def test_errors_are_one_line(capsys, clap, sound, argv, said):
    status, out, err = run(capsys, sound, *argv, "--model", clap)
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert said in err


def test_bars():
    assert classify.bar(0).strip() == ""
    assert classify.bar(1) == "█" * 30
    assert classify.bar(0.5).rstrip() == "█" * 15
    assert classify.bar(1 / 240).rstrip() == "▏"
    assert {len(classify.bar(i / 1000)) for i in range(1001)} == {30}


def test_on_a_terminal_each_score_has_its_bar(clap, sound):
    pty = pytest.importorskip("pty", reason="needs POSIX terminals")
    termios = pytest.importorskip("termios", reason="needs POSIX terminals")
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(ours, (24, 100))
    argv = [sys.executable, "-m", "tallow", "classify", sound, "--labels", *LABELS, "--model", clap]
    with subprocess.Popen(argv, stdout=theirs, stderr=theirs, env=environment()) as process:
        os.close(theirs)
        shown = b""
        try:
            while data := os.read(ours, 65536):
                shown += data
        except OSError:  # Linux says so when the other side has closed
            pass
    os.close(ours)
    text = shown.decode()
    assert process.returncode == 0
    assert "1 of 1, " in text
    assert "sounds/s" in text
    lines = [line.split("\r")[-1] for line in text.replace("\r\n", "\n").splitlines() if line.endswith(tuple(LABELS))]
    assert len(lines) == 3
    assert any("█" in line for line in lines)
