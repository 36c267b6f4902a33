"""Processes of their own for tests, forked from a server that has imported the packages once."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from refer3d.runs.errors import run

HAS_SERVER = "forkserver" in multiprocessing.get_all_start_methods()  # not on Windows
CONTEXT = multiprocessing.get_context("forkserver" if HAS_SERVER else "spawn")
if HAS_SERVER:
    # The server starts no threads and computes nothing, so its copies may do anything.
    CONTEXT.set_forkserver_preload(["refersplat.train", "detailbase.train", __name__])


def start(function: Callable[..., object], *arguments: object) -> BaseProcess:
    """Starts a module-level function in a process of its own, on as many threads as here."""
    run = (torch.get_num_threads(), function, arguments)
    process = CONTEXT.Process(target=_run, args=run, daemon=True)
    process.start()
    return process


def start_caller(function: Callable[..., object], *arguments: object) -> BaseProcess:
    """As :func:`start`, for a function that starts processes, too."""
    run = (torch.get_num_threads(), function, arguments)
    process = CONTEXT.Process(target=_run, args=run)
    process.start()
    return process


def call(function: Callable[..., Any], *arguments: object) -> Any:
    """Runs a module-level function in a process of its own; returns its result."""
    receiver, sender = CONTEXT.Pipe(duplex=False)
    process = start(_send_result, sender, function, arguments)
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        process.join()
        raise AssertionError(f"{function} ended with exit code {process.exitcode}") from None


def together(count: int, function: Callable[..., Any], *arguments: object) -> Any:
    """Runs a function in processes that torch.distributed joins; returns the first one's result."""
    port = _free_port()
    others = [
        start(_as_rank, number, count, port, function, arguments) for number in range(1, count)
    ]
    result = call(_as_rank, 0, count, port, function, arguments)
    for other in others:
        other.join(300)
        assert other.exitcode == 0
    return result


def told_by_survivor(model: str, arguments: list[str], target: str, log: Path) -> tuple[int, str]:
    """Trains a model in two processes, of which the second is killed where it calls ``target``.

    Returns:
        status: The first one's exit status.
        text: What it has printed; ``log`` holds it.
    """
    port = _free_port()
    one, other = (
        start(_as_rank, n, 2, port, _train_until_killed, (model, arguments, target, log))
        for n in (0, 1)
    )
    for process in (one, other):
        process.join(300)
    assert other.exitcode == -signal.SIGKILL
    return one.exitcode or 0, log.read_text(encoding="utf-8")


def _train_until_killed(model: str, arguments: list[str], target: str, log: Path) -> None:
    if os.environ["RANK"] == "0":
        with log.open("w") as file:
            os.dup2(file.fileno(), 2)
    else:
        mock.patch(target, _die).start()
    sys.argv = ["", "train", *arguments]
    run(importlib.import_module(f"{model}.__main__").main)


def _die(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def _as_rank(
    number: int, count: int, port: int, function: Callable[..., Any], arguments: tuple[object, ...]
) -> Any:
    """Runs a function in one of several processes, as torchrun starts them."""
    names = {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": count}
    names |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in names.items()})
    return function(*arguments)


def _run(threads: int, function: Callable[..., object], arguments: tuple[object, ...]) -> None:
    torch.set_num_threads(threads)  # the bits of a training depend on it
    function(*arguments)


def _send_result(sender: Any, function: Callable[..., Any], arguments: tuple[object, ...]) -> None:
    sender.send(function(*arguments))
