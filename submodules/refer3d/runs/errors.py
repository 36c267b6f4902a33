"""The one error that a user can mend, and how programs end."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from typing import NoReturn

STATUS_MISTAKE = 2
"""Exit status for what the user can mend; the same as for an unknown option."""
STATUS_INTERRUPTED = 130
RESUME = "the same command with --resume goes on from the last checkpoint"
STATUS_UNREAD = 141
"""The shell's for a program whose output nobody takes."""


class InputError(ValueError):
    """A mistake in what the user gave: a file, a field, an option.

    The message names the file or option, what was expected, what came, and what to do. The
    top-level scripts print it without a traceback and exit with status 2; nothing else is caught.
    """


def run(main: Callable[[list[str]], object], when_stopped: str = "") -> NoReturn:
    """Runs a program with the command line's options, and ends it.

    A mistake of the user's is said in one line, without a traceback. So are files that cannot be
    read or written: a full disk is no bug.

    Args:
        main: The program.
        when_stopped: What to say after Ctrl-C.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        main(sys.argv[1:])
    except InputError as error:
        _end(f"error: {error}", STATUS_MISTAKE)
    except BrokenPipeError:  # nobody reads on, as behind "| head"
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
