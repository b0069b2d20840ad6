"""How fast does Whisper write down a recording of one window? Tallow against faster-whisper, warm, in turn.

    python bench/whisper.py MODEL RECORDING {float32,int8} [--peer-python PYTHON] [--threads 2]

MODEL is a folder in CTranslate2's format, which both read. In float32 (weights stored in float16 stay so) it also says
what share of the machine's roofline the job reaches, from samples in memory, without FFmpeg:

    share = (operations / multiply-add loop + tokens · bytes / read) / seconds

with the encoder's operations and a token's bytes of `whisper_sides.py`, and `read` the machine's memory bandwidth,
measured over 512 MB. The caches may hold a part of what a token reads, so the share is also given for reading as many
bytes as that, again and again. The front end's own operations (a thousandth of the encoder's) count as nothing.
"""

import sys

import numpy as np
from common import Worker, arguments, in_turn, limits, report, versions
from whisper_sides import OURS, PEER, decoder_bytes, encoder_operations, words

SAMPLES = """
import sys, numpy as np, tallow as tl
from common import serve
model, recording, threads = sys.argv[1:]
tl.set_num_threads(int(threads))
whisper, samples = tl.load(model), tl.media.load_audio(recording, 16_000).numpy()
options = dict(beam_size=1, temperature=0.0, condition_on_previous_text=False, language="en")
serve(lambda: sum(len(s.tokens) for s in whisper.transcribe(samples, **options).segments))
"""


def main():
    parser = arguments(__doc__, ("model", "a folder"), ("recording", "up to 30 seconds of English"))
    parser.add_argument("kind", choices=("float32", "int8"))
    args = parser.parse_args()
    argv = (args.model, args.recording, args.kind, args.threads, 2)
    workers = {
        "tallow": Worker(sys.executable, OURS, argv, args.threads),
        "faster-whisper": Worker(args.peer_python, PEER, argv, args.threads),
    }
    if args.kind == "float32":
        workers["samples"] = Worker(sys.executable, SAMPLES, (args.model, args.recording, args.threads), args.threads)
    seconds, results = in_turn(workers, args.rounds)
    peaks = {name: worker.close() for name, worker in workers.items()}
    ratio = seconds["faster-whisper"] / seconds["tallow"]
    same = words(results["tallow"]) == words(results["faster-whisper"])
    name = args.model.rstrip("/").split("/")[-1]
    verdict = (
        f"{name} {args.kind}, {args.threads} threads: Tallow {seconds['tallow']:.3f} s, faster-whisper "
        f"{seconds['faster-whisper']:.3f} s: {ratio:.2f}×; peak {peaks['tallow']:.0f} and "
        f"{peaks['faster-whisper']:.0f} MB; {'the same words' if same else 'OTHER WORDS'}"
    )
    figures = {"seconds": seconds, "peak MB": peaks, "ratio": ratio, "threads": args.threads, "same words": same}
    if args.kind == "float32":
        figures["roofline"] = roofline(args, seconds["samples"], results["samples"] + 1)  # and the end's token
        verdict += (
            "; {share:.0%} of the roofline ({roof:.3f} of {seconds:.3f} s from samples), {share with caches:.0%} if "
            "what a token reads stays in the caches as far as it fits"
        ).format(**figures["roofline"])
    report("whisper", {"model": name, "kind": args.kind, **figures}, verdict,
           versions("faster-whisper", "ctranslate2", python=args.peer_python))  # fmt: skip


def roofline(args, seconds, tokens):
    """The least time that the job could take on this machine, and its share of what it takes."""
    from tallow.models.checkpoint import open_checkpoint

    config = open_checkpoint(args.model).config
    token = decoder_bytes(config, np.float16().itemsize)
    operations, read = limits(args.threads)
    _, cached = limits(args.threads, token)
    encoding = encoder_operations(config) / operations
    roof, lower = (encoding + tokens * token / speed for speed in (read, cached))
    return {
        "share": roof / seconds, "roof": roof, "seconds": seconds, "tokens": tokens, "operations": operations,
        "read": read, "read with caches": cached, "share with caches": lower / seconds,
    }  # fmt: skip


if __name__ == "__main__":
    main()
