"""From a process's start to its first printed line: `tallow transcribe` and a minimal faster-whisper script, in turn.

    python bench/cold_start.py MODEL RECORDING [--peer-python PYTHON] [--threads 2]

MODEL is a folder in CTranslate2's format, which both read. Both search with one beam at temperature 0.
"""

from common import TALLOW, arguments, report, starts_in_turn, versions

PEER = """
import sys
from faster_whisper import WhisperModel
model = WhisperModel(sys.argv[1], device="cpu", compute_type=sys.argv[3], cpu_threads=int(sys.argv[4]))
segments, _ = model.transcribe(sys.argv[2], language="en", beam_size=1, temperature=0, condition_on_previous_text=False)
for segment in segments:
    print(segment.text, flush=True)
"""
FASTEST = ("--language", "en", "--beam-size", "1", "--temperature", "0", "--no-context")


def main():
    parser = arguments(__doc__, ("model", "a folder"), ("recording", "up to 30 seconds of English"))
    args = parser.parse_args()
    ours = [*TALLOW, "transcribe", args.recording, "--model", args.model, *FASTEST]
    peer = [args.peer_python, "-c", PEER, args.model, args.recording]
    for kind, options, type in (("float32", [], "float32"), ("int8", ["--quantize", "int8"], "int8")):
        commands = {"tallow": [*ours, *options], "faster-whisper": [*peer, type, str(args.threads)]}
        seconds, megabytes, texts = starts_in_turn(commands, args.rounds, args.threads)
        ratio = seconds["faster-whisper"] / seconds["tallow"]
        verdict = (
            f"cold, {kind}, {args.threads} threads: Tallow {seconds['tallow']:.3f} s, faster-whisper "
            f"{seconds['faster-whisper']:.3f} s: {ratio:.2f}×; peak {megabytes['tallow']:.0f} and "
            f"{megabytes['faster-whisper']:.0f} MB"
        )
        figures = {"kind": kind, "seconds": seconds, "peak MB": megabytes, "ratio": ratio, "texts": texts}
        used = versions("faster-whisper", "ctranslate2", python=args.peer_python)
        report("cold_start", {**figures, "threads": args.threads}, verdict, used)


if __name__ == "__main__":
    main()
