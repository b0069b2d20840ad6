"""Subtitles for a film, each written as soon as it is known: the file can be watched while it grows.

    python examples/subtitles.py FILM SUBTITLES.srt [MODEL]

When it need not grow, `speech.transcribe(film).save("film.srt")` does the same.
"""

import sys

import tallow as tl
from tallow.text.transcript import timestamp

film, subtitles = sys.argv[1:3]
model = sys.argv[3] if len(sys.argv) > 3 else "openai/whisper-base"

speech = tl.load(model)
with open(subtitles, "w", encoding="utf-8") as file, speech.transcribe(film, stream=True) as segments:
    for number, segment in enumerate(segments, start=1):
        begin, end = timestamp(segment.start, mark=","), timestamp(segment.end, mark=",")
        file.write(f"{number}\n{begin} --> {end}\n{segment.text.strip()}\n\n")
        file.flush()
