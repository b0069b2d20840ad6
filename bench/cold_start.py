"""From a process's start to its first printed line: ``tallow transcribe`` and a minimal faster-whisper script, in turn.

Both search with one beam at temperature 0 on two threads. The peer runs in an environment of its own, whose interpreter
is given; bytecode and files are warm, as for any program that runs a second time.

    python bench/cold_start.py MODEL RECORDING PEER_PYTHON [rounds]

MODEL is a folder in CTranslate2's format, which both read, such as whisper-tiny.en. The last line is the verdict on the
targets: 1.8 times as fast, under a second, and at most 200 MB.
"""

import os
import statistics
import subprocess
import sys
import time

PEER = """
import sys
from faster_whisper import WhisperModel
model = WhisperModel(sys.argv[1], device="cpu", compute_type=sys.argv[3], cpu_threads=2)
segments, _ = model.transcribe(sys.argv[2], language="en", beam_size=1, temperature=0, condition_on_previous_text=False)
for segment in segments:
    print(segment.text, flush=True)
"""
FASTEST = ("--language", "en", "--beam-size", "1", "--temperature", "0", "--no-context")


def measure(command):
    """Seconds to the first line, peak memory in MB, and what was printed."""
    environment = {**os.environ, "TALLOW_NUM_THREADS": "2"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # it would have every module compiled on every start
    begun = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        first = process.stdout.readline()
        seconds = time.perf_counter() - begun
        text = first + process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode or not first:
        sys.exit(f"{command[0]} ended with status {process.returncode} and printed {text!r}")
    return seconds, usage.ru_maxrss / 1024, " ".join(text.decode().split())


def main(model, recording, peer_python, rounds=9):
    command = "import sys; from tallow.cli import main; sys.exit(main())"  # what the script `tallow` does
    ours = [sys.executable, "-c", command, "transcribe", recording, "--model", model, *FASTEST]
    peer = [peer_python, "-c", PEER, model, recording]
    commands = {
        "tallow": ours,
        "faster-whisper": [*peer, "default"],
        "tallow, int8": [*ours, "--quantize", "int8"],
        "faster-whisper, int8": [*peer, "int8"],
    }
    found = {name: [] for name in commands}
    for command in commands.values():
        measure(command)
    for _ in range(int(rounds)):
        for name, command in commands.items():
            found[name].append(measure(command))
    medians = {}
    for name, results in found.items():
        seconds, megabytes, texts = zip(*results, strict=True)
        medians[name] = statistics.median(seconds), statistics.median(megabytes)
        print(f"{name:21s} {medians[name][0]:6.3f} s   peak {medians[name][1]:4.0f} MB   {texts[0][:70]}")
    holds = True
    verdicts = []
    for kind in ("", ", int8"):
        seconds, megabytes = medians["tallow" + kind]
        ratio = medians["faster-whisper" + kind][0] / seconds
        holds = holds and ratio >= 1.8 and seconds < 1.0 and megabytes <= 200
        verdicts.append(f"{ratio:.2f} times as fast as faster-whisper{kind} with {megabytes:.0f} MB")
    print(f"cold start: {'; '.join(verdicts)}: {'holds' if holds else 'DOES NOT HOLD'}")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
