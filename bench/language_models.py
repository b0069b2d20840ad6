"""How fast do language models read and write? Tallow against llama.cpp (llama-cpp-python), warm, in turn.

    python bench/language_models.py [SMOLLM2.gguf] [--peer-python PYTHON] [--threads 2] [--rounds 7]

Three models: SmolLM2-135M in Q4_1, if its file is given, and Qwen3-0.6B with random weights in Q8_0 and Q4_K_M, which
are made once: written in F16 by the package `gguf`, quantised by llama.cpp itself. Each side reads 512 tokens at once
(prefill), then, after 16 tokens, 128 fixed tokens one by one (decode), and gives the logits of the last. For decoding
it also says what share of the machine's memory bandwidth, measured in the same run, the weights alone take up.
"""

import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from common import Worker, arguments, limits, report, versions

PREFILL, BEFORE, DECODE = 512, 16, 128
FOLDER = Path(tempfile.gettempdir()) / "tallow-bench"

TOKENS = f"""
import sys, time
from common import serve
path, threads = sys.argv[1], int(sys.argv[2])
prompt = [(i * 7919 + 13) % 40000 for i in range({PREFILL})]
tokens = [(i * 104729 + 5) % 40000 for i in range({DECODE})]

def timed(read, start):
    start()
    begun = time.perf_counter()
    read(prompt)
    prefill = time.perf_counter() - begun
    start()
    read(prompt[:{BEFORE}])
    begun = time.perf_counter()
    for token in tokens:
        read([token])
    return prefill, time.perf_counter() - begun
"""

OURS = (
    TOKENS
    + """
import numpy as np, tallow as tl
from tallow.engine.step import Decoder
tl.set_num_threads(threads)
model, state = tl.load(path), {}

def start():
    state["cache"] = model.new_cache(1, 2048)
    state["step"] = Decoder(model, state["cache"])

def read(ids):
    if len(ids) == 1:
        return state["step"](ids, [[]])
    return model.logits(model.forward(tl.Tensor(np.array([ids])), state["cache"])[:, -1:]).numpy()

serve(lambda: timed(read, start), warm=1)
"""
)

PEER = (
    TOKENS
    + """
from llama_cpp import Llama
model = Llama(path, n_threads=threads, n_threads_batch=threads, n_ctx=2048, verbose=False)
serve(lambda: timed(model.eval, model.reset), warm=1)
"""
)

MAKE = """
import sys, ctypes, gguf, llama_cpp, numpy as np
half, *quantised = sys.argv[1:]
dim, hidden, layers, heads, kv_heads, d, vocab = 1024, 3072, 28, 16, 8, 128, 151936
writer = gguf.GGUFWriter(half, "qwen3")
writer.add_context_length(40960)
writer.add_embedding_length(dim)
writer.add_block_count(layers)
writer.add_feed_forward_length(hidden)
writer.add_head_count(heads)
writer.add_head_count_kv(kv_heads)
writer.add_key_length(d)
writer.add_value_length(d)
writer.add_rope_freq_base(1e6)
writer.add_layer_norm_rms_eps(1e-6)
writer.add_vocab_size(vocab)
writer.add_tokenizer_model("no_vocab")
rng = np.random.default_rng(0)
def matrix(name, out, inner):
    values = rng.standard_normal((out, inner), np.float32) * inner**-0.5
    writer.add_tensor(name, values.astype(np.float16))
def norm(name, size):
    writer.add_tensor(name, np.ones(size, np.float32))
matrix("token_embd.weight", vocab, dim)
norm("output_norm.weight", dim)
for i in range(layers):
    for name, out, inner in (("attn_q", heads * d, dim), ("attn_k", kv_heads * d, dim), ("attn_v", kv_heads * d, dim),
                             ("attn_output", dim, heads * d), ("ffn_gate", hidden, dim), ("ffn_up", hidden, dim),
                             ("ffn_down", dim, hidden)):
        matrix(f"blk.{i}.{name}.weight", out, inner)
    for name, size in (("attn_norm", dim), ("ffn_norm", dim), ("attn_q_norm", d), ("attn_k_norm", d)):
        norm(f"blk.{i}.{name}.weight", size)
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
types = (llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0, llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_M)
for path, kind in zip(quantised, types):
    options = llama_cpp.llama_model_quantize_default_params()
    options.ftype = kind
    assert llama_cpp.llama_model_quantize(half.encode(), path.encode(), ctypes.byref(options)) == 0
"""


def main():
    parser = arguments(__doc__, ("[smollm2]", "SmolLM2-135M in Q4_1"), rounds=7, peer="llama-cpp-python and gguf")
    args = parser.parse_args()
    models = {"SmolLM2-135M Q4_1": getattr(args, "[smollm2]")} if getattr(args, "[smollm2]") else {}
    models |= random_models(args.peer_python)
    used = versions("llama-cpp-python", python=args.peer_python)
    for name, path in models.items():
        compare(name, path, args, used)


def random_models(peer_python):
    """Qwen3-0.6B with random weights: name -> file, made if it isn't there yet."""
    paths = {name: FOLDER / f"qwen3-0.6b-{name.lower()}.gguf" for name in ("Q8_0", "Q4_K_M")}
    if not all(path.exists() for path in paths.values()):
        FOLDER.mkdir(exist_ok=True)
        half = FOLDER / "qwen3-0.6b-f16.gguf"
        subprocess.run([peer_python, "-c", MAKE, half, *paths.values()], check=True, stderr=subprocess.DEVNULL)
        half.unlink()
    return {f"Qwen3-0.6B {name}": path for name, path in paths.items()}


def compare(name, path, args, used):
    """Measure both sides on one model, in turn."""
    _, read = limits(args.threads)
    workers = {
        "tallow": Worker(sys.executable, OURS, (path, args.threads), args.threads),
        "llama.cpp": Worker(args.peer_python, PEER, (path, args.threads), args.threads),
    }
    rounds = [{side: worker.run()[1] for side, worker in workers.items()} for _ in range(args.rounds)]
    peaks = {side: worker.close() for side, worker in workers.items()}
    prefill, decode = (
        {side: count / statistics.median(turn[side][part] for turn in rounds) for side in workers}
        for part, count in ((0, PREFILL), (1, DECODE))
    )
    ratios = {part: speed["tallow"] / speed["llama.cpp"] for part, speed in (("prefill", prefill), ("decode", decode))}
    nbytes = Path(path).stat().st_size  # the embedding is the head too, so a token reads all of it
    share = decode["tallow"] * nbytes / read
    verdict = (
        f"{name}, {args.threads} threads: decode {decode['tallow']:.1f} and {decode['llama.cpp']:.1f} tokens/s: "
        f"{ratios['decode']:.2f}×, {share:.0%} of {read / 1e9:.1f} GB/s; prefill {prefill['tallow']:.0f} and "
        f"{prefill['llama.cpp']:.0f}: {ratios['prefill']:.2f}×; peak {peaks['tallow']:.0f} and "
        f"{peaks['llama.cpp']:.0f} MB"
    )
    figures = {"model": name, "decode": decode, "prefill": prefill, "ratios": ratios, "threads": args.threads}
    report(
        "language_models", {**figures, "bytes": nbytes, "read": read, "share": share, "peak MB": peaks}, verdict, used
    )


if __name__ == "__main__":
    main()
