"""Processes that share one training, as torchrun starts them: their numbers, sums and lists."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from refer3d.runs.errors import InputError

PATIENCE = timedelta(minutes=30)
"""Longest that a process waits for the others, as for a first process that validates."""
T = TypeVar("T")


def rank() -> int:
    """Returns this process's number, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """Returns the number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


@contextmanager
def joined(device: torch.device) -> Iterator[torch.device]:
    """Joins the processes that torchrun has started; alone, it does nothing.

    If one ends, all do, and only the first that fails tells why.

    Yields:
        The device of this process: of several GPUs the one of its number on its machine.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or dist.is_initialized():
        yield device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    store, number, count = next(rendezvous("env://", timeout=PATIENCE))
    options = {"store": store, "rank": number, "world_size": count, "timeout": PATIENCE}
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", **options)
    try:
        if rank():  # the first one tells what all of them do
            logging.getLogger().setLevel(logging.ERROR)
        yield device
        dist.barrier()  # gloo waits for ever for one that has left with work pending
    except BaseException as error:
        if not _is_first(store):
            sys.exit(1)
        if isinstance(error, dist.DistError) or "gloo" in str(error):
            raise KeyboardInterrupt("another process of this training has ended") from error
        raise
    finally:
        dist.destroy_process_group()


def _is_first(store: Any) -> bool:
    """Whether this process is the first to fail; also where the store, too, is gone."""
    try:
        return store.add("failed", 1) == 1
    except RuntimeError:
        return True


def sum_of(value: Tensor) -> Tensor:
    """Adds a tensor of the same shape over all processes; gradients flow back to each."""
    return value if world() == 1 else cast(Tensor, _Sum.apply(value))


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.detach().clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:  # each process's loss depends on the sum
        (total,) = (grad.clone() for grad in grads)
        dist.all_reduce(total)
        return total


def mean_of(total: Tensor, count: Tensor | int) -> Tensor:
    """Divides a sum by a count, at least 1, so that the processes' mean is that of all terms.

    Alone, ``total / count``. Else the count is the processes' mean, and because
    DistributedDataParallel takes the mean of their gradients, each term weighs the same wherever it
    was computed.

    Args:
        total: Sum of this process's terms.
        count: Their number.
    """
    if world() == 1:
        return total / (count.clamp(min=1) if isinstance(count, Tensor) else max(1, count))
    counts = torch.as_tensor(count, dtype=total.dtype, device=total.device).detach().clone()
    dist.all_reduce(counts)
    return total * world() / counts.clamp(min=1)


def share(items: Sequence[T]) -> Sequence[T]:
    """Takes this process's part of a list: joined in their order, the parts are the list again."""
    start, end = (len(items) * number // world() for number in (rank(), rank() + 1))
    return items[start:end]


@torch.no_grad()
def sum_gradients(parameters: Iterable[Tensor], *others: Tensor) -> None:
    """Adds gradients, and other tensors, over all processes: in place, in one message.

    Alone, it does nothing. Of several processes, each then has all gradients, some of them zero.
    """
    if world() == 1:
        return
    own = [*others]
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        own.append(parameter.grad)
    flat = torch.cat([tensor.flatten() for tensor in own])
    dist.all_reduce(flat)
    for tensor, total in zip(own, flat.split([one.numel() for one in own]), strict=True):
        tensor.copy_(total.view_as(tensor))


def maximum_of(value: Tensor) -> Tensor:
    """Takes the elementwise maximum over all processes."""
    if world() > 1:
        value = value.clone()
        dist.all_reduce(value, dist.ReduceOp.MAX)
    return value


def wait() -> None:
    """Waits until all processes are here, as for a file that the first one writes."""
    if world() > 1:
        dist.barrier()


def gathered(own: Sequence[T]) -> list[T]:
    """Joins the processes' lists, in the order of their numbers."""
    if world() == 1:
        return list(own)
    parts: list[Any] = [None] * world()
    dist.all_gather_object(parts, list(own))
    return [one for part in parts for one in part]


def require_ranks(count: int, option: str) -> None:
    """Requires that a number of things can be dealt to all processes.

    Raises:
        InputError: There are fewer things than processes.
    """
    if count < world():
        raise InputError(
            f"{option}: expected at least {world()}, one for each process of torchrun, got "
            f"{count}; raise it, or start fewer processes"
        )
