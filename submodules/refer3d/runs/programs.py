"""One command with several programs: ``refersplat train …``, ``refersplat eval …``."""

from __future__ import annotations

import argparse
import difflib
import functools
import importlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from refer3d.runs.errors import InputError


class Program(NamedTuple):
    """A program of a command."""

    description: str
    """Text of the help; its first sentence is the line in the command's."""
    target: str
    """Function that does the work, as ``package.module:function``; imported when it runs."""
    read: Callable[[Sequence[str]], Any]
    """Parses the arguments for the function; imports no torch, so help is quick."""
    when_stopped: str = ""
    """Advice after Ctrl-C."""


RESUME = "the same command with --resume goes on from the last checkpoint, if there is one"


def _read_nothing(program: str, argv: Sequence[str]) -> None:
    """Reads the command line of a program without options."""
    argparse.ArgumentParser(prog=program, description=_DOCTOR).parse_args(list(argv))


_DOCTOR = (
    "Describe machine and installation, with commands that mend what is missing. Paste the page "
    "into a bug report."
)


def doctor(command: str) -> Program:
    """Makes the program ``doctor``, which belongs to the commands of both models."""
    read = functools.partial(_read_nothing, f"{command} doctor")
    return Program(_DOCTOR, "refer3d.doctor:report", read)


def run_program(command: str, programs: Mapping[str, Program], argv: Sequence[str]) -> None:
    """Runs the program that the first argument names.

    Raises:
        InputError: There is no such program, or its arguments are wrong.
    """
    name, *arguments = argv or ["--help"]
    if name in ("-h", "--help"):
        width = max(map(len, programs))
        firsts = {name: program.description.split(". ")[0] for name, program in programs.items()}
        rows = [f"  {name:<{width}}  {sentence.rstrip('.')}" for name, sentence in firsts.items()]
        lines = [f"usage: {command} PROGRAM [options]", "", "programs:", *rows, ""]
        sys.stdout.write("\n".join([*lines, f"{command} PROGRAM --help shows its options.\n"]))
        return
    if name not in programs:
        near = difflib.get_close_matches(name, programs, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "choose one"
        raise InputError(f"{command}: expected one of {', '.join(programs)}, got {name!r}; {hint}")
    program = programs[name]
    value = program.read(arguments)
    set_wait_policy()
    module, _, function = program.target.partition(":")
    target = getattr(importlib.import_module(module), function)
    try:
        target(value)
    except KeyboardInterrupt as error:
        advice = filter(None, [program.when_stopped])
        raise KeyboardInterrupt(*error.args, *advice) from error


def set_wait_policy() -> None:
    """Lets OpenMP's threads sleep between parallel loops; call it before torch is imported.

    By default they keep their cores busy for a while after a loop, waiting for the next. Our own
    thread pool and everybody else on the machine need the cores: on two busy ones a referring step
    took 8.1 s, and takes 0.9 s with this. A value that the user has set stays.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
