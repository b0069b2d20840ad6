"""What the benchmarks share: two sides that work in turn, medians, the machine's limits, and a line for the records.

Each side is a process of its own that stays for the whole run (`Worker`), so that neither warms or crowds the other. It
says when it is ready, then works once for every line it is sent and answers with seconds and a result.
"""

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


class Worker:
    """A side of a comparison: a Python program that calls `serve`.

    Args:
        python: the interpreter, so that a peer may have an environment of its own.
        code: the program.
        argv: its arguments.
        threads: that it may use.
    """

    def __init__(self, python, code, argv, threads):
        environment = {name: value for name, value in os.environ.items() if not name.startswith("OPENBLAS_")}
        environment |= {"TALLOW_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
        environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), environment.get("PYTHONPATH", "")])
        self.process = subprocess.Popen(
            [python, "-c", code, *map(str, argv)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=environment,
        )  # fmt: skip
        self._answer()

    def run(self):
        """Work once: (seconds, result)."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self._answer()

    def close(self):
        """End it. Returns the most memory that it held, in MB."""
        self.process.stdin.close()
        _, status, usage = os.wait4(self.process.pid, 0)
        self.process.returncode = os.waitstatus_to_exitcode(status)
        return usage.ru_maxrss / 1024

    def _answer(self):
        for line in self.process.stdout:
            if line.startswith("@"):
                return json.loads(line[1:])
        sys.exit(f"a side of the comparison ended (status {self.process.wait()}); its error stands above")


def serve(work, warm=2):
    """Be a worker: call ``work`` for every line of the standard input, after a few times to get warm."""
    for _ in range(warm):
        work()
    print("@" + json.dumps("ready"), flush=True)
    for _ in sys.stdin:
        begun = time.perf_counter()
        result = work()
        print("@" + json.dumps([time.perf_counter() - begun, result]), flush=True)


def in_turn(workers, rounds, rest=0.0):
    """Let every worker work once a round. Returns name -> median seconds, and name -> the last result.

    ``rest``: seconds before each turn, in which the threads of the one before stop spinning.
    """
    seconds = {name: [] for name in workers}
    results = {}
    for _ in range(rounds):
        for name, worker in workers.items():
            time.sleep(rest)
            took, results[name] = worker.run()
            seconds[name].append(took)
    return {name: statistics.median(values) for name, values in seconds.items()}, results


TALLOW = [sys.executable, "-c", "import sys; from tallow.cli import main; sys.exit(main())"]  # what the script does


def starts_in_turn(commands, rounds, threads):
    """Run every command once a round, and once before, so that bytecode and files are warm.

    Args:
        commands: name -> a command and its arguments.
        rounds: how often.
        threads: that Tallow may use; the peer's command says so itself.

    Returns:
        Each by name: median seconds from a process's start to what it first prints, median peak memory in MB, and what
        it printed.
    """
    found = {name: [] for name in commands}
    for turn in range(rounds + 1):
        for name, command in commands.items():
            result = _start(command, threads)
            if turn:
                found[name].append(result)
    seconds = {name: statistics.median(result[0] for result in results) for name, results in found.items()}
    megabytes = {name: statistics.median(result[1] for result in results) for name, results in found.items()}
    return seconds, megabytes, {name: results[0][2] for name, results in found.items()}


def _start(command, threads):
    environment = {**os.environ, "TALLOW_NUM_THREADS": str(threads)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # it would have every module compiled on every start
    begun = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment) as process:
        first = os.read(process.stdout.fileno(), 1 << 16)
        seconds = time.perf_counter() - begun
        text = first + process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode or not first:
        sys.exit(f"{command[0]} ended with status {process.returncode} and printed {text!r}")
    return seconds, usage.ru_maxrss / 1024, " ".join(text.decode().split())


def limits(threads, nbytes=512 << 20):
    """(operations a second of a loop of multiply-adds, bytes a second of reading so much memory), measured now."""
    from tallow import _cpu, ones, set_num_threads

    ones(1)  # the backend is there
    set_num_threads(threads)
    return _cpu.measure_multiply_add(0.3), _cpu.measure_read(nbytes, 0.3)


def machine():
    """What the figures were taken on."""
    from tallow import _cpu

    names = [line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    return {"processor": names[0] if names else platform.processor(), "cores": os.cpu_count(), "level": _cpu.level()}


def versions(*packages, python=sys.executable):
    """Versions of packages in an interpreter's environment, and Tallow's own."""
    code = "import sys, importlib.metadata as m; print(*[m.version(p) for p in sys.argv[1:]])"
    found = subprocess.run([python, "-c", code, *packages], check=True, capture_output=True, text=True).stdout.split()
    return dict(zip(packages, found, strict=True)) | {"tallow": _tallow(), "python": platform.python_version()}


def report(question, figures, verdict, used):
    """Print the verdict, and keep it in results/ with machine, versions and date.

    Args:
        question: the name of the file.
        figures: name -> value, both sides of each ratio.
        verdict: a line that says it in words.
        used: from `versions`.
    """
    print(verdict, flush=True)
    RESULTS.mkdir(exist_ok=True)
    entry = {"date": datetime.date.today().isoformat(), "verdict": verdict, "figures": figures}
    with open(RESULTS / f"{question}.jsonl", "a") as file:
        file.write(json.dumps(entry | {"machine": machine(), "versions": used}) + "\n")


def report_of(device, question, figures, verdict, threads):
    """As `report`, of a question that can be asked of the processor and, if ``device`` is ``"cuda"``, of a GPU."""
    if device == "cuda":
        import cuda_common

        cuda_common.report(f"{question}_cuda", verdict, figures)
    else:
        report(question, figures | {"threads": threads}, verdict, versions("numpy"))


def arguments(description, *positional, threads=2, rounds=11, peer="faster-whisper"):
    """Parse a benchmark's command line: what it measures, --threads, --rounds and --peer-python."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, text in positional:
        parser.add_argument(name, help=text, nargs="?" if name.startswith("[") else None)
    parser.add_argument("--threads", type=int, default=threads, help="of each side (%(default)s)")
    parser.add_argument("--rounds", type=int, default=rounds, help="turns of each side (%(default)s)")
    if peer:
        parser.add_argument("--peer-python", default=sys.executable, help=f"an interpreter that has {peer} (this one)")
    return parser


def _tallow():
    try:
        return importlib.metadata.version("tallow")
    except importlib.metadata.PackageNotFoundError:
        return "source"


def _lines(path):
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
