import codecs
import io
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tallow.cli import main
from tallow.loading import load
from tests.engine.published import publish


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(publish(tmp_path_factory.mktemp("published"), max_position_embeddings=4096))


@pytest.fixture(scope="module")
def endless(tmp_path_factory):
    """Options for a model that goes on writing until it is stopped, and is no quicker than any other."""
    folder = publish(tmp_path_factory.mktemp("endless"), num_hidden_layers=8, max_position_embeddings=200_000)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    del config["eos_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    names = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(names.replace("<|im_end|>", "<|no_end|>").replace("<|endoftext|>", "<|no|>"))
    assert not load(folder).text.eos_token_ids
    return ["--model", str(folder), "--max-tokens", "190000"]


def run(capsys, *argv):
    status = main(argv)
    out, err = capsys.readouterr()
    return status, out, err


def typed(monkeypatch, text):
    data = text if isinstance(text, bytes) else text.encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def test_generate(capsys, folder):
    expected = load(folder).generate("the cat", max_tokens=9, temperature=0).text
    status, out, err = run(capsys, "generate", "--model", folder, "--max-tokens", "9", "--temperature", "0", "the cat")
    assert (status, out, err) == (0, expected + "\n", "")


def test_generate_with_many_options(capsys, folder, tmp_path):
    (tmp_path / "schema.json").write_text('{"type": "integer", "minimum": 0, "maximum": 99}')
    options = [
        "--seed",
        "3",
        "--temperature",
        "1",
        "--top-k",
        "9",
        "--top-p",
        "0.9",
        "--min-p",
        "0.01",
        "--prompt-lookup-tokens",
        "2",
    ]
    options += ["--repetition-penalty", "1.1", "--stop", "zzz", "--schema", str(tmp_path / "schema.json"), "--stats"]
    status, out, err = run(capsys, "generate", "--model", folder, *options, "the cat")
    assert status == 0
    assert 0 <= int(out) <= 99
    assert "written at" in err


def test_generate_reads_the_standard_input(capsys, folder, monkeypatch):
    typed(monkeypatch, b"the \xff cat")
    status, out, _ = run(capsys, "generate", "--model", folder, "--max-tokens", "4", "--temperature", "0", "-")
    assert (status, out) == (0, load(folder).generate("the \ufffd cat", max_tokens=4).text + "\n")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["generate", "--temperature", "-1", "x"], "temperature must be at least 0"),
        (["generate", ""], "prompt is empty"),
        (["generate", "the cat " * 3000], "context holds 4,096"),
        (["generate", "--schema", "/nowhere.json", "x"], "/nowhere.json"),
        (["embed", "--text", "a", "--dims", "0"], "dims must be from 1"),
    ],
)
def test_errors_are_one_line(capsys, folder, argv, said):
    status, out, err = run(capsys, argv[0], "--model", folder, *argv[1:])
    assert (status, out) == (1, "")
    assert err.startswith("tallow: error: ")
    assert said in err
    assert err.count("\n") == 1


def test_a_missing_model(capsys, tmp_path):
    status, _, err = run(capsys, "chat", "--model", str(tmp_path / "nothing.gguf"))
    assert status == 1
    assert "nothing.gguf" in err


def test_embed_prints_json(capsys, folder):
    status, out, _ = run(capsys, "embed", "--model", folder, "--text", "the cat", "--text", "a mat", "--dims", "8")
    assert status == 0
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["text"] for line in lines] == ["the cat", "a mat"]
    expected = load(folder).embed(["the cat", "a mat"], dims=8).numpy()
    np.testing.assert_allclose([line["vector"] for line in lines], expected, atol=1e-6)


def test_embed_writes_files(capsys, folder, tmp_path):
    (tmp_path / "texts.txt").write_text("the cat\n\na mat\r\n")
    expected = load(folder).embed(["the cat", "a mat"], instruction="i").numpy()
    argv = ["embed", "--model", folder, "--text-file", str(tmp_path / "texts.txt"), "--instruction", "i", "--out"]
    assert run(capsys, *argv, str(tmp_path / "v.npy")) == (0, "", "")
    np.testing.assert_array_equal(np.load(tmp_path / "v.npy"), expected)
    assert run(capsys, *argv, str(tmp_path / "v.jsonl"))[0] == 0
    assert len((tmp_path / "v.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize(
    "argv", [["embed"], ["embed", "--text", "a", "--out", "x.txt"], ["generate"], ["convert", "x"]]
)
def test_wrong_usage(capsys, argv):
    with pytest.raises(SystemExit) as raised:
        main(argv)
    assert raised.value.code == 2


def test_convert(capsys, folder, tmp_path):
    assert run(capsys, "convert", folder, str(tmp_path / "m.gguf"), "--storage", "q8_0") == (0, "", "")
    assert load(tmp_path / "m.gguf").generate("the", max_tokens=3).ids
    status, _, err = run(capsys, "convert", folder, str(tmp_path / "m.gguf"), "--storage", "q3")
    assert status == 1
    assert "there are float32" in err


def test_chat_without_a_terminal(capsys, folder, monkeypatch):
    session = load(folder).session()
    session.messages.append({"role": "system", "content": "be brief"})
    expected = [session.chat(line, max_tokens=6, enable_thinking=False).text for line in ("the cat", "a mat")]
    typed(monkeypatch, "the cat\n\n/reset\nthe cat\na mat\n/exit\nnever read\n")
    argv = ["chat", "--model", folder, "--max-tokens", "6", "--system", "be brief", "--no-think", "--temperature", "0"]
    status, out, err = run(capsys, *argv)
    assert (status, err) == (0, "")
    assert out == "".join(text + "\n\n" for text in (expected[0], *expected))


def test_chat_is_sampled_where_the_model_says_nothing(capsys, folder, tmp_path, monkeypatch):
    def said(model, **sampling):
        answer = load(model).session().chat("the cat", max_tokens=12, seed=5, **sampling).text
        return answer + "\n\n"

    def printed(model, *options):
        typed(monkeypatch, "the cat\n")
        status, out, err = run(capsys, "chat", "--model", model, "--max-tokens", "12", "--seed", "5", *options)
        assert (status, err) == (0, "")
        return out

    usual = said(folder, temperature=0.8, top_k=40, top_p=0.95, min_p=0.05)
    assert printed(folder) == usual != said(folder)
    assert printed(folder, "--temperature", "0") == said(folder, temperature=0)
    assert printed(folder, "--top-k", "1") == said(folder, temperature=0.8, top_k=1)
    publish(tmp_path)
    (tmp_path / "generation_config.json").write_text('{"do_sample": true, "temperature": 5.0}')
    assert printed(str(tmp_path)) == said(tmp_path, temperature=5.0) != usual
    with pytest.raises(SystemExit):
        main(["chat", "--help"])
    assert "temperature is 0.8, with top-k 40,\ntop-p 0.95 and min-p 0.05" in capsys.readouterr().out


def test_chat_commands_are_not_said(capsys, folder, monkeypatch):
    session = load(folder).session()
    lines = ["/etc/hosts is a file", "/usr", "the cat"]
    expected = [session.chat(line, max_tokens=4).text for line in lines]
    typed(
        monkeypatch, "/help\n/rest\n /Reset now\n/\n/no-such!\n/help me\n/etc/hosts is a file\n//usr\n/help \nthe cat\n"
    )
    status, out, err = run(capsys, "chat", "--model", folder, "--max-tokens", "4", "--temperature", "0")
    assert (status, out) == (0, "".join(text + "\n\n" for text in expected))
    unknown = [line for line in err.splitlines() if line.startswith("no command")]
    refused = ("/rest", "/Reset now", "/", "/no-such!", "/help me")
    assert unknown == [f"no command {line}; /help tells which there are" for line in refused]
    for command in ("/help", "/reset", "/exit"):
        assert err.count(f"  {command} ") == 2


def test_chat_goes_on_after_an_error(capsys, folder, monkeypatch):
    typed(monkeypatch, "the cat " * 3000 + "\nthe cat\n")
    status, out, err = run(capsys, "chat", "--model", folder, "--max-tokens", "4")
    assert status == 0
    assert "context holds 4,096" in err
    assert out.count("\n\n") == 1


class Terminal:
    """A program in a terminal of its own."""

    def __init__(self, argv, tmp_path):
        self.end, inner = pty.openpty()
        environment = os.environ | {"HOME": str(tmp_path), "TERM": "dumb"}
        command = [sys.executable, "-m", "tallow", *argv]
        self.process = subprocess.Popen(
            command, stdin=inner, stdout=inner, stderr=inner, env=environment, start_new_session=True, close_fds=True
        )
        os.close(inner)
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")  # what is read may end within a character
        self.said = ""

    def wait_for(self, text, seconds=120):
        end = time.monotonic() + seconds
        while text not in self.said:
            ready, _, _ = select.select([self.end], [], [], max(0, end - time.monotonic()))
            assert ready, f"waited for {text!r}, saw {self.said!r}"
            try:
                self.read()
            except OSError:  # the program has ended and closed its side
                pytest.fail(f"waited for {text!r}, the program ended with {self.process.wait(20)} after {self.said!r}")
        before, _, self.said = self.said.partition(text)
        return before

    def wait_for_more(self):
        while not self.said:
            self.read()

    def read(self):
        self.said += self.decoder.decode(os.read(self.end, 1000))

    def type(self, text):
        os.write(self.end, text.encode())

    def interrupt(self):
        """Until it says something: Python's readline misses a signal that comes between a character and its wait."""
        ready = []
        while not ready:
            os.kill(self.process.pid, signal.SIGINT)
            ready, _, _ = select.select([self.end], [], [], 1)


def test_chat_in_a_terminal(endless, tmp_path):
    terminal = Terminal(["chat", *endless], tmp_path)
    try:
        said = terminal.wait_for("> ")
        assert "/help tells the commands" in said
        assert "temperature 0.8, top-k 40, top-p 0.95, min-p 0.05" in said
        terminal.type("the cat\n")
        terminal.wait_for("cat\r\n")
        terminal.wait_for_more()  # of the answer, which takes a while
        os.kill(terminal.process.pid, signal.SIGINT)
        terminal.wait_for("…\r\n")  # the answer was stopped …
        terminal.wait_for("> ")  # … and the program goes on
        terminal.type("first \\\nsecond\n")
        terminal.wait_for("… ")
        terminal.wait_for("second\r\n")
        terminal.wait_for_more()
        os.kill(terminal.process.pid, signal.SIGINT)
        terminal.wait_for("> ")
        terminal.type("never mind")
        terminal.wait_for("never mind")
        terminal.interrupt()  # what was typed is dropped
        terminal.wait_for("> ")
        terminal.type("/exit\n")
        assert terminal.process.wait(20) == 0
        assert "the cat" in (tmp_path / ".local/state/tallow/chat-history").read_text()
    finally:
        terminal.process.kill()
        os.close(terminal.end)


def test_generate_is_interrupted_with_what_was_written(endless, tmp_path):
    terminal = Terminal(["generate", *endless, "--ignore-eos", "the cat"], tmp_path)
    try:
        terminal.wait_for_more()
        os.kill(terminal.process.pid, signal.SIGINT)
        terminal.wait_for("tallow: interrupted")
        assert terminal.process.wait(20) == 130
    finally:
        terminal.process.kill()
        os.close(terminal.end)
