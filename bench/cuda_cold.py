"""How long does a process with a GPU take from its start to the first token of Qwen3-0.6B?

    python bench/cuda_cold.py

Random bfloat16 weights in a file of the published size, which lies in the page cache; kernels are compiled already. The
time is that of a whole process, from before Python starts.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CHILD = """
import time; begun = time.perf_counter()
import sys, tallow as tl
from tallow.models.qwen3 import Qwen3, Qwen3Config
sys.path.insert(0, {bench!r})
from qwen3_sizes import SHARED, SIZES
imported = time.perf_counter()
model = Qwen3(Qwen3Config.from_dict(SIZES["0.6B"] | SHARED), tl.VarBuilder.from_safetensors({file!r}, device="cuda"))
tl.synchronize()
loaded = time.perf_counter()
model.generate([1, 2, 3], max_tokens=1, temperature=0, ignore_eos=True)
done = time.perf_counter()
parts = {{"imports": imported - begun, "weights": loaded - imported, "token": done - loaded}}
print(", ".join(f"{{name}} {{took:.2f}} s" for name, took in parts.items()))
"""


def write(path):
    """The weights, under the names that the model asks for."""
    import numpy as np
    from qwen3_sizes import SHARED, SIZES

    import tallow as tl
    from tallow.models.qwen3 import Qwen3, Qwen3Config
    from tallow.weights.random import RandomSource

    found = {}
    pool = np.random.default_rng(0).standard_normal(1 << 25, np.float32) * np.float32(0.02)

    class Noting(RandomSource):
        def draw(self, name, shape):
            values = np.resize(pool, shape) if len(shape) == 2 else super().draw(name, shape)
            found[name] = tl.asarray(values, dtype="bfloat16")
            return values

    Qwen3(Qwen3Config.from_dict(SIZES["0.6B"] | SHARED), tl.VarBuilder(Noting(0), dtype="bfloat16"))
    tl.save_safetensors(found, path)


def main():
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        write(path)
        child = CHILD.format(bench=str(Path(__file__).parent), file=str(path))
        times, told = [], []
        for _ in range(4):  # the first compiles the kernels
            begun = time.perf_counter()
            told.append(
                subprocess.run([sys.executable, "-c", child], check=True, capture_output=True, text=True).stdout
            )
            times.append(time.perf_counter() - begun)
        from cuda_common import report

        verdict = f"Qwen3-0.6B, process start to first token: {statistics.median(times[1:]):.2f} s ({told[-1].strip()})"
        report("cuda_cold", verdict, {"seconds": times})


if __name__ == "__main__":
    main()
