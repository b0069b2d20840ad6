"""How fast, and in how much memory, is a long recording? Ten minutes of prose, tiny.en in int8 on both sides.

    python bench/whisper_long.py MODEL [--peer-python PYTHON]

The recording is `bench/prose.txt`, spoken by flite.
"""

import sys

from common import Worker, arguments, in_turn, report, versions
from prose import speak
from whisper_sides import OURS, PEER


def main():
    args = arguments(__doc__, ("model", "a folder in CTranslate2's format"), rounds=3).parse_args()
    recording, minutes = speak()
    argv = (args.model, recording, "int8", args.threads, 1)
    workers = {
        "tallow": Worker(sys.executable, OURS, argv, args.threads),
        "faster-whisper": Worker(args.peer_python, PEER, argv, args.threads),
    }
    seconds, _ = in_turn(workers, args.rounds)
    peaks = {name: worker.close() for name, worker in workers.items()}
    ratio = seconds["faster-whisper"] / seconds["tallow"]
    verdict = (
        f"{minutes:.1f} minutes, int8, {args.threads} threads: Tallow {seconds['tallow']:.2f} s, faster-whisper "
        f"{seconds['faster-whisper']:.2f} s: {ratio:.2f}×; peak {peaks['tallow']:.0f} and "
        f"{peaks['faster-whisper']:.0f} MB"
    )
    figures = {"seconds": seconds, "peak MB": peaks, "ratio": ratio, "minutes": minutes, "threads": args.threads}
    report("whisper_long", figures, verdict, versions("faster-whisper", "ctranslate2", python=args.peer_python))


if __name__ == "__main__":
    main()
