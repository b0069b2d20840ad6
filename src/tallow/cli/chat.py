"""``tallow chat``: a conversation in the terminal."""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tallow.engine.session import Session

_COMMANDS = {
    "/help": "tell the commands",
    "/reset": "begin a new conversation",
    "/exit": "end, as Ctrl-D does",
}
_HELP = "".join(f"  {name:8}{what}\n" for name, what in _COMMANDS.items()) + (
    "Ctrl-C stops an answer, and arrows bring back earlier lines. A line that ends with a backslash goes on in the\n"
    "next. A line that begins with // is sent with one slash; /etc/hosts and its like need no second one."
)
_DESCRIPTION = f"""
Talk with a model.

{_HELP}

Without a terminal, each line of the standard input is something to answer.

Where neither options nor the model's authors say how answers are sampled, the temperature is 0.8, with top-k 40,
top-p 0.95 and min-p 0.05, as in llama.cpp; --temperature 0 always takes the likeliest token.
"""
_HISTORY = os.path.join("~", ".local", "state", "tallow", "chat-history")


def add_to(commands: Any) -> None:
    """Add the command to the parser."""
    from tallow.cli.language import add_model_options, add_sampling_options

    parser = commands.add_parser(
        "chat",
        help="talk with a model",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_model_options(parser)
    add_sampling_options(parser, max_tokens=2048)
    parser.add_argument("--system", metavar="TEXT", help="what the model is told before the conversation")
    thinking = parser.add_mutually_exclusive_group()
    thinking.add_argument("--think", action="store_true", default=None, help="let the model think before it answers")
    thinking.add_argument("--no-think", dest="think", action="store_false", help="do not (for models that can)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Talk until the input ends."""
    from tallow.cli.language import load_language_model

    model = load_language_model(args)
    model.text.template.chosen()  # raises before anything is said, if the model was not made for conversations
    session, sampling = model.session(), model.text.chat_sampling
    _begin(session, args.system)
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    if terminal:
        _keep_history()
        print(f"{args.model}: /help tells the commands, /exit or Ctrl-D ends", file=sys.stderr)
        if sampling != model.text.defaults:
            said = ", ".join(f"{name.replace('_', '-')} {value}" for name, value in sampling.items())
            print(f"sampled as llama.cpp does, unless options say otherwise: {said}", file=sys.stderr)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        while (line := _ask(terminal)) is not None and line.strip() != "/exit":
            if line.strip() == "/reset":
                session.reset()
                _begin(session, args.system)
            elif line.strip() == "/help":
                print(_HELP, file=sys.stderr)
            elif re.match(r"\s*/[^\s/]*(\s|$)", line):
                print(f"no command {line.strip()}; /help tells which there are", file=sys.stderr)
            elif line.strip():
                _answer(session, line.replace("//", "/", 1) if line.startswith("//") else line, args, sampling)
    finally:
        signal.signal(signal.SIGINT, before)
    return 0


def _begin(session: Session, system: str | None) -> None:
    if system:
        session.messages.append({"role": "system", "content": system})


def _answer(session: Session, line: str, args: argparse.Namespace, sampling: dict[str, Any]) -> None:
    """Print one answer; an error is told, and the conversation goes on without what caused it."""
    from tallow.cli import complain
    from tallow.cli.language import interruptible, print_answer, sampling_options, statistics
    from tallow.errors import TallowError

    try:
        with interruptible() as cancel:
            options = sampling_options(args) | {"enable_thinking": args.think}
            options |= {key: value for key, value in sampling.items() if options[key] is None}
            result = print_answer(session.chat(line, stream=True, cancel=cancel, **options))
            print("\n" if result.finish_reason != "cancelled" else " …\n", flush=True)
            if args.stats:
                print(statistics(result), file=sys.stderr)
    except TallowError as error:
        complain(error)


def _ask(terminal: bool) -> str | None:
    """What the user says next; None when there is no more."""
    if not terminal:
        line = sys.stdin.buffer.readline().decode("utf-8", errors="replace")
        return line.rstrip("\n") if line else None
    lines: list[str] = []
    while True:
        try:
            lines.append(input("… " if lines else "> "))
        except EOFError:
            print()
            return None
        except KeyboardInterrupt:  # what was typed is dropped, as in a shell
            print()
            lines.clear()
            continue
        if not lines[-1].endswith("\\"):
            return "\n".join([line.removesuffix("\\") for line in lines])


def _keep_history() -> None:
    """Let arrow keys bring back what was typed, in this conversation and before."""
    try:
        import readline
    except ImportError:  # Windows has its own
        return
    import atexit

    path = os.path.expanduser(_HISTORY)
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        if os.path.exists(path):
            readline.read_history_file(path)
    except OSError:
        return
    readline.set_history_length(1000)
    atexit.register(_write_history, path)


def _write_history(path: str) -> None:
    import readline

    try:
        readline.write_history_file(path)
        os.chmod(path, 0o600)
    except OSError:
        pass  # a read-only home is no reason to complain at the end
