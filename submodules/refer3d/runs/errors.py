"""The error of wrong input, and the end of programs."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

STATUS_MISTAKE = 2
"""Exit status for wrong input; the same as for an unknown option."""
STATUS_SIGNAL = 128
"""Exit status after a signal, less its number; the shell's."""
STATUS_UNREAD = 141
"""Exit status for a closed output, as in ``| head``; the shell's."""


class InputError(ValueError):
    """Wrong input: a file, a field, an option.

    The message names the file or option, the expected and the actual value, and the remedy.
    Programs print it without a traceback and exit with status 2.
    """


def reason(error: BaseException) -> str:
    """What a library says of a file: the first line that it says, without control characters.

    It may quote much of the file; what is beyond 200 characters is left out.
    """
    line = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
    text = "".join(c if c.isprintable() else "\ufffd" for c in line)
    return text if len(text) <= 200 else f"{text[:197]}..."


def run(main: Callable[[list[str]], object]) -> NoReturn:
    """Runs a program with the command line's options, and exits.

    Wrong input prints one line, without a traceback. So do files that cannot be read or written,
    such as on a full disk; Ctrl-C; and SIGTERM, which batch systems send before they kill.

    Args:
        main: The program. What takes time to import is imported there, to be stopped as well. The
            argument of a ``KeyboardInterrupt`` tells how to go on.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        with _stoppable():
            main(sys.argv[1:])
    except InputError as error:
        _end(f"error: {error}", STATUS_MISTAKE)
    except BrokenPipeError:  # as in "| head"
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(STATUS_UNREAD)
    except OSError as error:
        if error.filename is None:
            raise
        _end(f"error: {error.filename}: {error.strerror}", STATUS_MISTAKE)
    sys.exit(0)


@contextmanager
def _stoppable() -> Iterator[None]:
    """Ends the process with one line after SIGINT or SIGTERM."""
    process, received = os.getpid(), []

    def stop(number: int, _: object) -> None:
        if os.getpid() != process:  # a fork; its parent prints the line
            os._exit(STATUS_SIGNAL + number)
        received.append(number)
        raise KeyboardInterrupt

    former = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except BaseException as error:  # a library that is being imported may raise another
        is_stop = isinstance(error, KeyboardInterrupt)
        if isinstance(error, SystemExit) or not (is_stop or received):
            raise
        text = "; ".join(["\nstopped", *map(str, error.args)]) if is_stop else "\nstopped"
        _end(text, STATUS_SIGNAL + (received or [signal.SIGINT])[0])
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _end(message: str, status: int) -> NoReturn:
    sys.stderr.write(f"{message}\n")
    sys.exit(status)
