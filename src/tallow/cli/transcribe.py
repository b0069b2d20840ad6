"""``tallow transcribe``: recordings to text."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from tallow.cli.progress import Progress
    from tallow.media.audio import AudioReader
    from tallow.models.whisper import Whisper
    from tallow.text.transcript import Segment, Transcript

FORMATS = ("txt", "srt", "vtt", "tsv", "json")
DEFAULT_MODEL = "openai/whisper-base"
_SIZES = ("tiny", "base", "small", "medium", "large", "large-v2", "large-v3", "large-v3-turbo")
_SHORT_NAMES = {
    **{size: f"openai/whisper-{size}" for size in _SIZES},
    **{f"{size}.en": f"openai/whisper-{size}.en" for size in _SIZES[:4]},
    "turbo": "openai/whisper-large-v3-turbo",
}
_DESCRIPTION = f"""
Write down what is said in audio or video files.

Text goes to the standard output as it becomes ready. Other formats go there when they are complete, or, as one file for
each recording, into a folder.

The default model, {DEFAULT_MODEL}, knows 99 languages and is a download of 290 MB, once. Larger models make fewer
mistakes: small, medium, large-v3-turbo, large-v3. Those whose names end in .en know English only, and better.
"""
_EXAMPLES = """
examples:
  tallow transcribe meeting.mp4
  tallow transcribe --model small --language de --format srt film.mkv > film.srt
  curl -L https://example.org/talk.mp3 | tallow transcribe -
  tallow transcribe --quantize int8 --format json --output-dir texts *.flac
"""


class Job(NamedTuple):
    """One recording, and where its transcript goes: a file, or None for the standard output."""

    recording: str
    target: str | None


def add_to(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "transcribe",
        help="write down what is said in recordings",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", nargs="+", metavar="FILE",
                        help="an audio or video file; - reads the standard input")  # fmt: skip
    model = parser.add_argument_group("the model")
    model.add_argument(
        "--model", default=DEFAULT_MODEL, metavar="NAME",
        help="a folder, an installed package, a name on the Hugging Face hub, or a size such as tiny.en",
    )  # fmt: skip
    model.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (auto)")
    model.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), help="how weights are stored")
    model.add_argument("--quantize", choices=("int8", "fp8", "int4"), help="store weights in fewer bits")
    output = parser.add_argument_group("the output")
    output.add_argument("--format", choices=FORMATS, default="txt", help="of the transcript (txt)")
    output.add_argument("--output-dir", metavar="FOLDER", help="write one file for each recording there")
    output.add_argument("--word-timestamps", action="store_true", help="time every word (shown by json)")
    speech = parser.add_argument_group("the speech")
    speech.add_argument("--language", metavar="CODE", help="what is spoken, by code or English name; else detected")
    speech.add_argument("--task", choices=("transcribe", "translate"), default="transcribe",
                        help="write what is said, or translate it into English (transcribe)")  # fmt: skip
    speech.add_argument("--initial-prompt", metavar="TEXT", help="what went before, such as names to spell like this")
    speech.add_argument("--hotwords", metavar="TEXT", help="words to expect everywhere")
    speech.add_argument("--audio-track", type=_track, metavar="TRACK",
                        help="of several sound tracks: its number, from 0, or its language's code")  # fmt: skip
    speech.add_argument("--clip-timestamps", metavar="START,END,…", default="", help="seconds to transcribe (all)")
    search = parser.add_argument_group("the search")
    search.add_argument("--beam-size", type=_count, default=5, metavar="N", help="candidates kept; 1 is fastest (5)")
    search.add_argument("--temperature", type=_temperatures, metavar="T,…",
                        help="to try in turn until the text is good; 0 tries once (0,0.2,0.4,0.6,0.8,1)")  # fmt: skip
    search.add_argument("--no-context", action="store_true", help="do not tell each window what went before it")
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> int:
    """Transcribe every file; a file that cannot be is told, and the others still are."""
    from tallow.cli import complain
    from tallow.cli.files import opened
    from tallow.cli.progress import progress_bar
    from tallow.errors import MediaError
    from tallow.media.audio import AudioReader
    from tallow.media.mel import RATE

    jobs = _jobs(args.files, args.output_dir, args.format, args.parser)
    if args.output_dir:
        _make_folder(args.output_dir)
    model: Whisper | None = None
    status = 0
    for job in jobs:
        try:
            # before the model: it decodes while that loads
            audio = AudioReader(opened(job.recording), RATE, audio_track=args.audio_track)
        except MediaError as error:
            complain(error)
            status = 1
            continue
        with contextlib.closing(audio):
            model = model or _load(args)
            try:
                with progress_bar(job.recording) as progress:
                    _transcribe(model, audio, job, args, progress, heading=len(jobs) > 1)
            except MediaError as error:
                complain(error)
                status = 1
    return status


def _make_folder(path: str) -> None:
    from tallow.errors import ArgumentError

    try:
        os.makedirs(path, exist_ok=True)
    except FileExistsError:
        raise ArgumentError(f"--output-dir {path}: is a file; name a folder") from None


def full_name(model: str) -> str:
    """A model's name on the hub from a Whisper's size, such as ``"tiny.en"``; any other name as it is."""
    return model if os.path.exists(model) else _SHORT_NAMES.get(model, model)


def _load(args: argparse.Namespace) -> Whisper:
    from tallow.errors import ArgumentError
    from tallow.loading import load

    name = full_name(args.model)
    model = load(name, device=args.device, dtype=args.dtype, quantize=args.quantize)
    if not hasattr(model, "transcribe"):
        raise ArgumentError(f"{name} is a {type(model).__name__}, which does not transcribe; name a Whisper")
    return model  # type: ignore[no-any-return]


def _transcribe(
    model: Whisper,
    audio: AudioReader,
    job: Job,
    args: argparse.Namespace,
    progress: Progress | None,
    *,
    heading: bool,
) -> None:
    options = {} if args.temperature is None else {"temperature": args.temperature}
    stream = model.transcribe(
        audio,
        stream=True,
        language=args.language,
        task=args.task,
        beam_size=args.beam_size,
        condition_on_previous_text=not args.no_context,
        initial_prompt=args.initial_prompt,
        hotwords=args.hotwords,
        word_timestamps=args.word_timestamps,
        clip_timestamps=args.clip_timestamps,
        progress=progress,
        **options,
    )
    with stream:
        if job.target is None and args.format == "txt":
            if heading:
                print(f"==> {job.recording} <==", flush=True)
            for segment in stream:
                _print(segment)
            return
        transcript: Transcript = stream.result()
    if job.target is None:
        sys.stdout.write(transcript.render(args.format))
    else:
        transcript.save(job.target, args.format)


def _print(segment: Segment) -> None:
    print(" ".join(segment.text.split()), flush=True)


def _jobs(files: list[str], folder: str | None, format: str, parser: argparse.ArgumentParser) -> list[Job]:
    """Where each transcript goes: after the recording's name, with its own suffix if two differ in nothing else."""
    if folder is None:
        if len(files) > 1 and format != "txt":
            parser.error(f"several recordings as {format} need --output-dir, one file for each")
        return [Job(file, None) for file in files]
    whole = ["stdin" if file == "-" else os.path.basename(file) for file in files]
    stems = [os.path.splitext(name)[0] for name in whole]
    names = [stem if stems.count(stem) == 1 else name for name, stem in zip(whole, stems, strict=True)]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        parser.error(f"two recordings would be written to {twice}.{format}; transcribe them into different folders")
    return [Job(file, os.path.join(folder, f"{name}.{format}")) for file, name in zip(files, names, strict=True)]


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 up, found {text!r}")
    return int(text)


def _track(text: str) -> int | str:
    return int(text) if text.isdecimal() else text


def _temperatures(text: str) -> tuple[float, ...]:
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if not values or not all(0 <= value < float("inf") for value in values):
        raise argparse.ArgumentTypeError(f"expected numbers from 0 up, such as 0 or 0,0.4,0.8; found {text!r}")
    return values
