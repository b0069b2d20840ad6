"""By how much does a process grow when a language model is loaded and fills its whole context?

    python bench/language_model_memory.py MODEL.gguf [--threads 2]

The process has built the model's tokenizer before the count begins. The growth is held against the size of the file and
of the keys and values of 2,048 tokens.
"""

import os
import subprocess
import sys

from common import arguments, report, versions

CONTEXT = 2048
WORK = f"""
import sys, tallow as tl
from tallow.text.language import Text
from tallow.models.checkpoint import open_checkpoint
def resident(field):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(field))
text = Text.from_checkpoint(open_checkpoint(sys.argv[1]))
word = text.tokenizer.encode("Once upon a time")[-1]
begin = resident("VmRSS")
open("/proc/self/clear_refs", "w").write("5")
model = tl.load(sys.argv[1])
session = model.session()
session.generate([word] * ({CONTEXT} - 128), max_tokens=128, temperature=0, ignore_eos=True)
layers = session._cache.layers
cache = sum(layer.keys.nbytes + layer.values.nbytes for layer in layers) * {CONTEXT} // layers[0].capacity
print(resident("VmRSS") - begin, resident("VmHWM") - begin, cache)
"""


def main():
    args = arguments(__doc__, ("model", "a GGUF file"), peer=None).parse_args()
    environment = {**os.environ, "TALLOW_NUM_THREADS": str(args.threads)}
    command = [sys.executable, "-c", WORK, args.model]
    after, peak, cache = map(int, subprocess.check_output(command, env=environment, text=True).split())
    size = os.path.getsize(args.model)
    ratio = after / (size + cache)
    verdict = (
        f"context {CONTEXT}: grown by {after / 1e6:.0f} MB (peak {peak / 1e6:.0f}), {ratio:.2f}× the file's "
        f"{size / 1e6:.0f} MB and the cache's {cache / 1e6:.0f} MB"
    )
    figures = {"grown": after, "peak": peak, "file": size, "cache": cache, "ratio": ratio}
    report("language_model_memory", figures, verdict, versions("numpy"))


if __name__ == "__main__":
    main()
