"""What ``import tallow`` costs over ``import numpy``, in fresh processes taken in turn.

``import tallow`` alone imports nothing, so a first tensor is made too: that is what a program pays. The budget of
45 ms holds for both; the last line is the verdict, and the exit status 1 if one is over.

    python bench/import_time.py [rounds]
"""

import statistics
import subprocess
import sys
import time

BUDGET_MS = 45.0
PROGRAMS = {
    "nothing": "pass",
    "numpy": "import numpy",
    "tallow": "import numpy, tallow",
    "tallow, a first tensor": "import tallow as tl; tl.asarray([1.0]) + 1",
}
HEAVY = ("av", "PIL", "tokenizers", "huggingface_hub", "cupy")


def milliseconds(code):
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return (time.perf_counter() - begun) * 1e3


def main(rounds):
    times = {name: [] for name in PROGRAMS}
    for code in PROGRAMS.values():  # files into the cache, bytecode written
        milliseconds(code)
    for _ in range(rounds):
        for name, code in PROGRAMS.items():
            times[name].append(milliseconds(code))
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, median in medians.items():
        print(f"{name:24s} {median:7.1f} ms   (fastest {min(times[name]):.1f})")
    over = [medians[name] - medians["numpy"] for name in ("tallow", "tallow, a first tensor")]
    code = f"import sys, tallow; tallow.ones(2); print(*[name for name in {HEAVY} if name in sys.modules])"
    heavy = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    holds = max(over) <= BUDGET_MS and not heavy
    print(
        f"import tallow: {over[0]:.0f} ms over import numpy, {over[1]:.0f} ms with a first tensor "
        f"(budget {BUDGET_MS:.0f} ms); heavy libraries imported: {', '.join(heavy) or 'none'}: "
        f"{'holds' if holds else 'DOES NOT HOLD'}"
    )
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 15))
