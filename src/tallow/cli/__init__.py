"""The ``tallow`` command: one file a subcommand.

Exit status: 0; 1 for an error, told in one line; 2 for wrong usage; 70 for a fault of Tallow's own; 130 when
interrupted (Ctrl-C).
Little is imported here, and the rest when it is needed: the command answers within a second from a cold start.
"""

from __future__ import annotations

import _thread
import gc
import os
import signal
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. Only for the main thread.

    Args:
        argv: arguments without the program's name; None takes the process's.

    Returns:
        The exit status.
    """
    gc.set_threshold(100_000)  # what is imported and loaded stays: to search it for garbage again and again takes 10 ms
    if argv is None:  # threads of NumPy's products, of which there are few, would wait for work on cores that we need
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    interrupted = False

    def interrupt(*_: object) -> None:
        # An interrupted import may end in another exception, or in none: what counts is that this was called.
        nonlocal interrupted
        interrupted = True
        raise KeyboardInterrupt

    status = 130
    before, hook = signal.signal(signal.SIGINT, interrupt), sys.unraisablehook
    sys.unraisablehook = _raise_again
    try:
        status = _run(argv)
    except KeyboardInterrupt:
        interrupted = True
    except BrokenPipeError:  # whoever read the output has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 141
    except Exception as error:
        if not interrupted:
            status = _failed(error)
    finally:
        # Nothing interrupts the way out, where the process ends with this call.
        signal.signal(signal.SIGINT, signal.SIG_IGN if interrupted or argv is None else before)
        sys.unraisablehook = hook
    if interrupted:
        print("tallow: interrupted", file=sys.stderr)
        return 130
    return status


def _raise_again(lost: sys.UnraisableHookArgs) -> None:
    """Interrupt once more when an interrupt came inside a finaliser, out of which Python lets no exception."""
    if not isinstance(lost.exc_value, KeyboardInterrupt):
        sys.__unraisablehook__(lost)
        return

    main_thread = _thread.get_ident()  # where Python calls the handlers of signals

    def interrupt() -> None:
        time.sleep(0.01)  # until the finaliser has ended
        if hasattr(signal, "pthread_kill"):
            signal.pthread_kill(main_thread, signal.SIGINT)  # which ends a call that waits, too
        else:
            _thread.interrupt_main()

    _thread.start_new_thread(interrupt, ())


def _run(argv: Sequence[str] | None) -> int:
    from tallow.cli import chat, classify, convert, devices, embed, features, generate, info, transcribe

    parser = _parser()
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in (transcribe, chat, generate, embed, classify, features, convert, info, devices):
        command.add_to(commands)
    args = parser.parse_args(argv)
    status: int = args.run(args)
    sys.stdout.flush()
    return status


def _parser() -> argparse.ArgumentParser:
    import argparse

    from tallow import __version__

    parser = argparse.ArgumentParser(
        prog="tallow",
        description="Run neural networks on your own machine.",
        epilog="'tallow COMMAND --help' says what a command takes.",
    )
    parser.add_argument("--version", action="version", version=f"tallow {__version__}")
    return parser


def _failed(error: Exception) -> int:
    complain(error)
    return 70 if _is_fault(error) else 1  # 70: EX_SOFTWARE of sysexits.h


def _is_fault(error: BaseException) -> bool:
    """Whether an error is Tallow's own: nobody who types a command chooses the operands of an operation."""
    from tallow.errors import TallowError

    return not isinstance(error, TallowError | OSError) or getattr(error, "foreign", False)


def complain(error: BaseException) -> None:
    """Tell an error on stderr, in one line; of a fault of Tallow's also how to report it."""
    text = str(error)
    if _is_fault(error):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
        print(
            f"tallow: this is a fault of Tallow's, not yours: {' '.join(text.split())}. Please report it to the "
            f"project's issue tracker, with what you did, the output of 'tallow devices', and {_report(error)}",
            file=sys.stderr,
        )
        return
    if isinstance(error, OSError) and error.strerror:  # without Python's "[Errno 28]"
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    text = " ".join(text.split()) or type(error).__name__
    print(f"tallow: error: {text}", file=sys.stderr)


def _report(error: BaseException) -> str:
    """Write the traceback to a file; what to attach of it."""
    import tempfile
    import traceback

    from tallow import __version__

    text = f"tallow {__version__}, Python {sys.version}, {sys.platform}\n\n{''.join(traceback.format_exception(error))}"
    try:
        descriptor, path = tempfile.mkstemp(prefix="tallow-fault-", suffix=".txt")
        with open(descriptor, "w", encoding="utf-8", errors="replace") as file:
            file.write(text)
    except OSError:
        sys.stderr.write(text)
        return "the traceback above"
    return f"the file {path}, which holds the traceback"
