"""Vectors of files: which files, in which format, and going on after an interruption."""

import json
import os
import signal
import struct
import subprocess
import sys
import time
import wave

import numpy as np
import pytest

import tallow as tl
from tallow.cli import embed, main
from tallow.cli.journal import Journal
from tallow.errors import ArgumentError
from tests.cli.conftest import environment
from tests.media.films import ORDINARY, write_film
from tests.models import tiny_clap, tiny_dino


@pytest.fixture(scope="module")
def clap(tmp_path_factory):
    return str(tiny_clap.write(tmp_path_factory.mktemp("clap") / "tiny"))


@pytest.fixture(scope="module")
def dino(tmp_path_factory):
    return str(tiny_dino.write(tmp_path_factory.mktemp("dino") / "tiny"))


@pytest.fixture(autouse=True)
def nothing_stays_loaded():
    yield
    tl.unload()


@pytest.fixture
def sounds(tmp_path):
    """A folder with three sounds in it, and other things."""
    folder = tmp_path / "sounds"
    (folder / "inner").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    for i, name in enumerate(("b.wav", "a.WAV", "inner/c.wav", ".hidden/d.wav")):
        write_sound(folder / name, 0.5 + i, seed=i)
    (folder / "notes.txt").write_text("no sound")
    return folder


@pytest.fixture
def photos(tmp_path):
    from PIL import Image

    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(5):
        pixels = np.random.default_rng(i).integers(0, 256, (40 + i, 50, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


def write_sound(path, seconds, seed=0):
    samples = np.random.default_rng(seed).normal(0, 3000, round(seconds * 48_000))
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(48_000)
        file.writeframes(samples.clip(-32768, 32767).astype("<i2").tobytes())
    return path


def run(capsys, *argv):
    status = main([str(argument) for argument in argv])
    out, err = capsys.readouterr()
    return status, out, err


def names(folder):
    return [str(folder / name) for name in ("a.WAV", "b.wav", "inner/c.wav")]


def test_sounds_are_printed_as_json(capsys, clap, sounds):
    status, out, err = run(capsys, "embed", "--audio", sounds, "--model", clap)
    assert (status, err) == (0, "")
    entries = [json.loads(line) for line in out.splitlines()]
    assert [entry["file"] for entry in entries] == names(sounds)
    expected = tl.load(clap).embed_audio(names(sounds)).numpy()
    np.testing.assert_allclose([entry["vector"] for entry in entries], expected, atol=1e-6)


def test_a_folder_of_ordinary_films(command, clap, tmp_path):
    folder = tmp_path / "films"
    folder.mkdir()
    for format, (ending, picture, codec, rate) in ORDINARY.items():
        write_film(folder / f"a.{ending}", format, picture, (codec,), rate)
    found = command("embed", "--audio", folder, "--model", clap, "--device", "cpu")  # a process: a crash would be ours
    assert (found.returncode, found.stderr) == (0, "")
    assert [json.loads(line)["file"] for line in found.stdout.splitlines()] == sorted(map(str, folder.iterdir()))


def test_photos_in_every_format(capsys, dino, photos, tmp_path):
    files = [str(photos / f"{i}.png") for i in range(5)]
    expected = tl.load(dino).embed(files).numpy()
    argv = ["embed", photos / "4.png", photos, "--model", dino, "--out"]
    assert run(capsys, *argv, tmp_path / "v.npy") == (0, "", "")
    order = [4, 0, 1, 2, 3]  # as they were named; the second time a file is met it is not counted
    np.testing.assert_array_equal(np.load(tmp_path / "v.npy"), expected[order])
    assert (tmp_path / "v.npy.txt").read_text().splitlines() == [files[i] for i in order]
    assert run(capsys, *argv, tmp_path / "v.jsonl") == (0, "", "")
    entries = [json.loads(line) for line in (tmp_path / "v.jsonl").read_text().splitlines()]
    assert [entry["file"] for entry in entries] == [files[i] for i in order]
    np.testing.assert_allclose([entry["vector"] for entry in entries], expected[order], atol=1e-6)
    assert sorted(os.listdir(tmp_path)) == ["photos", "v.jsonl", "v.npy", "v.npy.txt"]


def test_parquet(capsys, clap, dino, photos, tmp_path, monkeypatch):
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr("tallow.cli.vectors._GROUP", 2)
    argv = ["embed", photos, "--model", dino, "--fast-decode", "--out", tmp_path / "v.parquet"]
    assert run(capsys, *argv) == (0, "", "")
    table = parquet.read_table(tmp_path / "v.parquet")
    assert table.column("file").to_pylist() == [str(photos / f"{i}.png") for i in range(5)]
    expected = tl.load(dino).embed(table.column("file").to_pylist()).numpy()
    np.testing.assert_array_equal(np.array(table.column("vector").to_pylist(), np.float32), expected)
    assert run(capsys, "embed", "--text", "a dog", "--model", clap, "--out", tmp_path / "t.parquet")[0] == 0
    assert parquet.read_table(tmp_path / "t.parquet").column("text").to_pylist() == ["a dog"]


def test_parquet_without_pyarrow(capsys, clap, sounds, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    status, _, err = run(capsys, "embed", "--audio", sounds, "--model", clap, "--out", tmp_path / "v.parquet")
    assert status == 1
    assert "'pip install pyarrow', or write *.npy or *.jsonl" in err
    assert os.listdir(tmp_path) == ["sounds"]


def test_a_folder_that_is_not_there_is_told_before_the_work(capsys, tmp_path):
    for arguments in (("embed", "--text", "hi"), ("features", "photo.png")):
        target = tmp_path / "missing" / ("v.npy" if arguments[0] == "embed" else "map.png")
        status, _, err = run(capsys, *arguments, "--model", "nowhere", "--out", target)
        assert status == 1
        assert f"there is no folder {tmp_path / 'missing'}; make it first" in err


def test_texts_by_clap(capsys, clap, tmp_path):
    argv = ["embed", "--text", "rain", "--text", "a dog barks", "--model", clap]
    assert run(capsys, *argv, "--out", tmp_path / "v.npy") == (0, "", "")
    expected = tl.load(clap).embed_text(["rain", "a dog barks"]).numpy()
    np.testing.assert_array_equal(np.load(tmp_path / "v.npy"), expected)
    assert "takes no --instruction" in run(capsys, *argv, "--dims", "4")[2]


def test_files_that_cannot_be_read_are_told_and_left_out(capsys, clap, dino, sounds, photos, tmp_path):
    (sounds / "b.wav").write_bytes(b"no sound")
    write_sound(sounds / "empty.wav", 0)
    status, out, err = run(capsys, "embed", "--audio", sounds, "/nowhere.wav", "--model", clap)
    assert status == 1
    assert [json.loads(line)["file"] for line in out.splitlines()] == [names(sounds)[0], names(sounds)[2]]
    assert [name in line for name, line in zip(("b.wav", "empty.wav", "/nowhere.wav"), err.splitlines(), strict=True)]
    (photos / "2.png").write_bytes(b"no photo")
    status, _, err = run(capsys, "embed", photos, "--model", dino, "--out", tmp_path / "v.npy")
    assert (status, err.count("\n")) == (1, 1)
    assert "2.png" in err
    assert len(np.load(tmp_path / "v.npy")) == len((tmp_path / "v.npy.txt").read_text().splitlines()) == 4
    for i in (0, 1, 3, 4):
        (photos / f"{i}.png").unlink()
    status, _, err = run(capsys, "embed", photos, "--model", dino, "--out", tmp_path / "w.npy")
    assert status == 1
    assert "w.npy was not written: not one of 1 photos can be read" in err
    assert not list(tmp_path.glob("w.npy*"))


def test_odd_sounds_have_vectors_and_sounds_that_are_none_are_told(capsys, clap, tmp_path):
    """Three samples and silence are sounds; samples that are not finite, in a file of floats, are none."""
    write_sound(tmp_path / "short.wav", 3 / 48_000)
    with wave.open(str(tmp_path / "silence.wav"), "wb") as file:
        file.setparams((1, 2, 48_000, 0, "NONE", ""))
        file.writeframes(bytes(2 * 48_000))
    samples = np.full(48_000, np.nan, "<f4").tobytes()
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 3, 1, 48_000, 192_000, 4, 32)  # 3: floats
    data = b"WAVE" + form + b"data" + struct.pack("<I", len(samples)) + samples
    (tmp_path / "nan.wav").write_bytes(b"RIFF" + struct.pack("<I", len(data)) + data)
    status, out, err = run(capsys, "embed", "--audio", tmp_path, "--model", clap)
    entries = [json.loads(line) for line in out.splitlines()]
    assert status == 1
    assert [os.path.basename(entry["file"]) for entry in entries] == ["short.wav", "silence.wav"]
    np.testing.assert_allclose([np.linalg.norm(entry["vector"]) for entry in entries], 1, atol=1e-5)
    assert err.count("\n") == 1
    assert "nan.wav: samples that are not finite" in err


def test_folders_without_media(capsys, clap, dino, sounds, photos):
    status, out, err = run(capsys, "embed", sounds, "--model", dino)
    assert (status, out) == (1, "")
    assert f"{sounds}: a folder without photos: no file in it ends in .avif" in err
    assert "a folder without sounds" in run(capsys, "embed", "--audio", photos, "--model", clap)[2]
    assert "a folder without sounds" in run(capsys, "classify", photos, "--labels", "rain", "--model", clap)[2]


def test_models_of_another_kind(capsys, clap, dino, sounds, photos):
    assert "is a Clap, which makes no vectors of photos" in run(capsys, "embed", photos, "--model", clap)[2]
    assert "which makes no vectors of sounds" in run(capsys, "embed", "--audio", sounds, "--model", dino)[2]
    assert "which makes no vectors of texts" in run(capsys, "embed", "--text", "a", "--model", dino)[2]
    assert "name a CLAP" in run(capsys, "classify", sounds, "--labels", "a", "--model", dino)[2]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "nothing to embed"),
        (["a.png", "--text", "a"], "photos and texts at once"),
        (["a.png", "--dims", "3"], "--dims is for texts"),
        (["--audio", "a.wav", "--fast-decode"], "--fast-decode is for photos"),
        (["a.png", "--out", "v.csv"], r"--out writes *.npy, *.parquet or *.jsonl, not v.csv"),
    ],
)
def test_wrong_usage(capsys, argv, said):
    with pytest.raises(SystemExit) as raised:
        main(["embed", *argv])
    assert raised.value.code == 2
    assert said in capsys.readouterr().err


def test_an_interrupted_run_goes_on(capsys, clap, sounds, tmp_path, monkeypatch):
    """The second of three batches ends it; of the first nothing is done again, unless the file has changed."""
    monkeypatch.setattr(embed, "_BATCHES", {"sounds": 1})
    out, heard = tmp_path / "v.npy", []
    model = type(tl.load(clap))
    original = model.embed_audio

    def interrupted(self, files, **options):
        heard.extend(files)
        if heard.count(names(sounds)[1]) == 1 and files == [names(sounds)[1]]:
            raise KeyboardInterrupt
        return original(self, files, **options)

    monkeypatch.setattr(model, "embed_audio", interrupted)
    argv = ["embed", "--audio", sounds, "--model", clap, "--out", out]
    status, _, err = run(capsys, *argv)
    assert status == 130
    assert "1 of 3 sounds are done; the same command goes on from there" in err
    assert not out.exists()
    status, _, err = run(capsys, *argv, "--dtype", "float16")
    assert status == 1
    assert "of an interrupted run with other settings" in err
    with open(f"{out}.partial", "ab") as file:
        file.write(b'{"file": "half a li')
    heard.clear()
    heard.append(names(sounds)[1])
    assert run(capsys, *argv) == (0, "", "")
    assert heard[1:] == names(sounds)[1:]
    np.testing.assert_array_equal(np.load(out), original(tl.load(clap), names(sounds)).numpy())
    assert not list(tmp_path.glob("*.partial"))


def test_a_journal_forgets_files_that_have_changed(tmp_path):
    names = [str(tmp_path / name) for name in "abc"]
    for name in names:
        (tmp_path / name).write_text("1")
    vectors = np.random.default_rng(0).standard_normal((3, 5)).astype(np.float32)
    with Journal(str(tmp_path / "v"), {"model": "m"}) as journal:
        journal.add(names[:2], vectors[:2])
    (tmp_path / "b").write_text("22")
    with Journal(str(tmp_path / "v"), {"model": "m"}) as journal:
        assert [journal.has(name) for name in names] == [True, False, False]
        journal.add(names[1:], vectors[1:])
        found = dict(journal.vectors(reversed(names)))
        np.testing.assert_array_equal([found[name] for name in names], vectors)
    with pytest.raises(ArgumentError, match="other settings"):
        Journal(str(tmp_path / "v"), {"model": "n"})


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_ctrl_c_and_the_same_command_again(clap, tmp_path):
    """As a process, with a real signal."""
    folder = tmp_path / "many"
    folder.mkdir()
    for i in range(120):
        write_sound(folder / f"{i:03}.wav", 2, i)
    argv = [sys.executable, "-m", "tallow", "embed", "--audio", str(folder), "--model", clap, "--out", "v.npy"]
    options = {"cwd": tmp_path, "env": environment(), "text": True}
    with subprocess.Popen(argv, stderr=subprocess.PIPE, **options) as process:
        journal = tmp_path / "v.npy.partial"
        while process.poll() is None and not (journal.exists() and journal.read_bytes().count(b"\n") > 1):
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    if process.returncode != 0:  # it was not quicker than the signal
        assert process.returncode == 130
        assert "of 120 sounds are done" in err
        subprocess.run(argv, check=True, timeout=120, **options)
    assert np.load(tmp_path / "v.npy").shape == (120, 24)
