"""Runs the programs in examples/ (what needs a model gets one of a few hundred kilobytes) and the README's lines."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import environment
from tests.engine.published import publish
from tests.models import real_weights, tiny_clap, tiny_whisper

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
HARBOUR = EXAMPLES / "harbour.flac"

pytestmark = pytest.mark.skipif(not EXAMPLES.is_dir(), reason="the examples are not in this tree")


def run(folder, program, *arguments):
    """What an example prints."""
    command = [sys.executable, EXAMPLES / program, *arguments]
    found = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=300)
    assert (found.returncode, found.stderr) == (0, "")
    return found.stdout


@pytest.fixture(scope="module")
def whisper(tmp_path_factory):
    return tiny_whisper.write(tmp_path_factory.mktemp("examples") / "tiny", generation={"suppress_tokens": [0]})


def test_own_module(tmp_path):
    printed = run(tmp_path, "own_module.py")
    assert "106,628 parameters" in printed
    assert "shape=(2, 4)" in printed


def test_save_weights(tmp_path):
    printed = run(tmp_path, "save_weights.py")
    assert "['bias', 'weight']" in printed
    assert "error: weights.safetensors: 'weight': the model wants shape (2, 4), the file has (2, 3)" in printed


def test_transcribe_file(tmp_path, whisper):
    assert run(tmp_path, "transcribe_file.py", HARBOUR, whisper).endswith(", 14 seconds\n")


def test_subtitles(tmp_path, whisper):
    assert run(tmp_path, "subtitles.py", HARBOUR, "film.srt", whisper) == ""
    written = (tmp_path / "film.srt").read_text(encoding="utf-8")
    assert written == "" or re.match(r"1\n00:00:\d\d,\d{3} --> 00:00:\d\d,\d{3}\n", written)


def test_language_model(tmp_path):
    folder = publish(tmp_path)
    printed = run(tmp_path, "language_model.py", folder, "the cat")
    assert printed.startswith("the cat")
    assert re.search(r"^a dog barks +1\.00", printed, flags=re.M)


def test_every_example_is_listed_and_tested():
    programs = {path.name for path in EXAMPLES.glob("*.py")}
    page = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert programs == set(re.findall(r"^\| \[(\w+\.py)\]\(\1\) \|", page, flags=re.M))
    tests = Path(__file__).read_text(encoding="utf-8")
    assert [name for name in programs if f'"{name}"' not in tests] == []


@pytest.mark.real
def test_the_lines_of_the_readme(tmp_path, monkeypatch, capsys):
    """Its models stand for any: they become the real Whisper that there is, and two small ones of random weights."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", text, flags=re.S | re.M)
    models = {
        "openai/whisper-base": real_weights.tiny_en(),
        "Qwen/Qwen3-0.6B": publish(tmp_path),
        "laion/clap-htsat-unfused": tiny_clap.write(tmp_path / "clap"),
    }
    for name, folder in models.items():
        assert name in code
        code = code.replace(name, str(folder))
    for recording in ("meeting.mp4", "rain.wav", "dog.wav"):
        shutil.copy(HARBOUR, tmp_path / recording)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})
    assert "lit by candles." in capsys.readouterr().out
