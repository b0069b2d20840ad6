"""What ``import tallow`` costs over ``import numpy``, in fresh processes taken in turn.

``import tallow`` alone imports nothing, so a first tensor is made too: that is what a program pays. The last line
compares both with the budget of 45 ms. That no heavy library comes along, and how many modules do, is tested in
``tests/test_package.py``: a busy machine doubles the times here, and says nothing of a change.

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
    print(
        f"import tallow: {over[0]:.0f} ms over import numpy, {over[1]:.0f} ms with a first tensor "
        f"(budget {BUDGET_MS:.0f} ms): {'holds' if max(over) <= BUDGET_MS else 'DOES NOT HOLD'}"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 15)
