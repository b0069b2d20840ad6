"""The progress bar, on a terminal of our own."""

import os
import subprocess
import sys

import pytest

from tests.cli.conftest import environment

pty = pytest.importorskip("pty", reason="needs POSIX terminals")
termios = pytest.importorskip("termios", reason="needs POSIX terminals")

CODE = """
import sys
from tallow.cli.progress import progress_bar
with progress_bar("talks/opening [1].mp4") as update:
    if update is not None:
        update(0.0, None)
        update(30.0, None)
        print("half said ", end="")
        print("and done", flush=True)
        update(60.0, 120.0)
        print("a warning", file=sys.stderr)
        update(130.0, 120.0)
print("the end")
"""


def run_on_a_terminal(**others):
    """What a terminal shows that is the process's stderr, and its stdout unless that goes elsewhere."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(ours, (24, 100))
    arguments = {"stdout": theirs, "stderr": theirs} | others
    with subprocess.Popen([sys.executable, "-c", CODE], env=environment(), **arguments) as process:
        os.close(theirs)
        shown = b""
        try:
            while data := os.read(ours, 65536):
                shown += data
        except OSError:  # Linux says so when the other side has closed
            pass
        output = process.stdout.read() if process.stdout else b""
    os.close(ours)
    assert process.returncode == 0
    return shown.decode(), output.decode()


def last_states(shown):
    """The lines as they stand in the end: what follows the last carriage return of each."""
    return [line.removesuffix("\r").split("\r")[-1] for line in shown.split("\n")]


def test_the_bar_counts_seconds_of_audio():
    shown, _ = run_on_a_terminal()
    assert "opening [1].mp4: 0 s" in shown
    assert "60 of 120 s" in shown
    assert " 50 % |" in shown


def test_text_appears_above_the_bar_which_vanishes():
    shown, _ = run_on_a_terminal()
    assert last_states(shown) == ["half said and done", "a warning", "the end", ""]


def test_text_for_a_file_stays_out_of_the_terminal():
    shown, output = run_on_a_terminal(stdout=subprocess.PIPE)
    assert output == "half said and done\nthe end\n"
    assert "half said" not in shown
    assert "60 of 120 s" in shown


def test_without_a_terminal_there_is_no_bar():
    found = subprocess.run([sys.executable, "-c", CODE], env=environment(), capture_output=True, text=True, check=True)
    assert (found.stdout, found.stderr) == ("the end\n", "")
