"""The error of wrong input, and the end of programs."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from typing import NoReturn

STATUS_MISTAKE = 2
"""Exit status for wrong input; the same as for an unknown option."""
STATUS_INTERRUPTED = 130
RESUME = "the same command with --resume goes on from the last checkpoint"
STATUS_UNREAD = 141
"""Exit status for a closed output, as in ``| head``; the shell's."""


class InputError(ValueError):
    """Wrong input: a file, a field, an option.

    The message names the file or option, the expected and the actual value, and the remedy.
    Programs print it without a traceback and exit with status 2.
    """


def run(main: Callable[[list[str]], object], when_stopped: str = "") -> NoReturn:
    """Runs a program with the command line's options, and exits.

    Wrong input prints one line, without a traceback. So do files that cannot be read or written,
    such as on a full disk.

    Args:
        main: The program.
        when_stopped: Message after Ctrl-C.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
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
    except KeyboardInterrupt:
        _end(f"\nstopped; {when_stopped}" if when_stopped else "\nstopped", STATUS_INTERRUPTED)
    sys.exit(0)


def _end(message: str, status: int) -> NoReturn:
    sys.stderr.write(f"{message}\n")
    sys.exit(status)
