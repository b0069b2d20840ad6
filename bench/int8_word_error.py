"""How many words does int8 cost? The word error rate of float32 and of int8 on ten minutes of spoken prose.

    python bench/int8_word_error.py MODEL

Words are compared in lower case and without punctuation. The last line is the verdict: int8 within half a point.
"""

import numpy as np
from common import arguments, report, versions
from prose import TEXT, speak
from whisper_sides import words


def distance(said, written):
    """Least number of words to put in, take out or exchange (Levenshtein)."""
    numbers = {word: i for i, word in enumerate({*said, *written})}
    a, b = (np.array([numbers[word] for word in text], np.int64) for text in (said, written))
    steps = np.arange(len(b) + 1)
    row = steps.copy()
    for i, word in enumerate(a, 1):
        best = np.minimum(row[1:] + 1, row[:-1] + (b != word))
        # A word put in costs one more than what stands before it: a running minimum of what is left of the slope.
        row = np.minimum.accumulate(np.concatenate([[i], best]) - steps) + steps
    return int(row[-1])


def main():
    import tallow as tl

    args = arguments(__doc__, ("model", "a folder"), peer=None).parse_args()
    recording, minutes = speak()
    spoken = words(TEXT.read_text())
    errors = {}
    for kind in (None, "int8"):
        model = tl.load(args.model, quantize=kind)
        heard = words(model.transcribe(recording, beam_size=1, temperature=0.0, condition_on_previous_text=False).text)
        errors[kind or "float32"] = 100 * distance(spoken, heard) / len(spoken)
    cost = errors["int8"] - errors["float32"]
    verdict = (
        f"{minutes:.1f} minutes, {len(spoken)} words: {errors['float32']:.2f} % wrong in float32, "
        f"{errors['int8']:.2f} % in int8: {cost:+.2f} points ({'holds' if cost <= 0.5 else 'DOES NOT HOLD'})"
    )
    report("int8_word_error", errors | {"words": len(spoken)}, verdict, versions("numpy"))


if __name__ == "__main__":
    main()
