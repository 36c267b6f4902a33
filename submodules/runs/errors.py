"""The one error that a user can mend."""


class InputError(ValueError):
    """A mistake in what the user gave: a file, a field, an option.

    The message names the file or option, what was expected, what came, and what to do. The
    top-level scripts print it without a traceback and exit with status 2; nothing else is caught.
    """
