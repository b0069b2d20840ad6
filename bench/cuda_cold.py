"""How long does a process with a GPU take from its start to the first token of Qwen3-0.6B?

    python bench/cuda_cold.py [--peer-python PYTHON]

Random bfloat16 weights in a file of the published size, which lies in the page cache; kernels are compiled already. The
time is that of a whole process, from before Python starts. Transformers does the same in turn, not compiled.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

OURS = """
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


PEER = """
import time; begun = time.perf_counter()
import torch, transformers
imported = time.perf_counter()
model = transformers.AutoModelForCausalLM.from_pretrained({folder!r}, dtype=torch.bfloat16).to("cuda")
torch.cuda.synchronize()
loaded = time.perf_counter()
ids = torch.tensor([[1, 2, 3]], device="cuda")
model.generate(ids, do_sample=False, max_new_tokens=1, pad_token_id=0).tolist()
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
    tl.save_safetensors(found, path, {"format": "pt"})
    config = SIZES["0.6B"] | SHARED | {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"]}
    path.with_name("config.json").write_text(json.dumps(config | {"dtype": "bfloat16"}))


def main():
    from cuda_common import arguments, has_peer, report

    args = arguments(__doc__, ("0.6B",))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        write(path)
        sides = {"tallow": [sys.executable, "-c", OURS.format(bench=str(Path(__file__).parent), file=str(path))]}
        if has_peer(args.peer_python):
            sides["transformers"] = [args.peer_python, "-c", PEER.format(folder=folder)]
        times, told = {side: [] for side in sides}, {}
        for turn in range(args.rounds + 1):
            for side, command in sides.items():
                begun = time.perf_counter()
                told[side] = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
                if turn:  # the first compiles the kernels
                    times[side].append(time.perf_counter() - begun)
    medians = {side: statistics.median(found) for side, found in times.items()}
    verdict = f"Qwen3-0.6B, process start to first token: {medians['tallow']:.2f} s ({told['tallow']})"
    if "transformers" in medians:
        ratio = medians["transformers"] / medians["tallow"]
        verdict += f"; Transformers {medians['transformers']:.2f} s ({told['transformers']}): {ratio:.2f}×"
    report("cuda_cold", verdict, {"seconds": times, "medians": medians}, args)


if __name__ == "__main__":
    main()
