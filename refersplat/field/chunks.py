"""A differentiable map over chunks that share the cores of a CPU.

A chunk's tensors fit the cache, which makes single operations too small to be split among cores;
so each core takes whole chunks.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Tensors = tuple[Tensor, ...]
Function = Callable[[Sequence[Tensor], Sequence[Tensor]], Tensors]


def map_chunks(
    function: Function, shared: Sequence[Tensor], chunks: Sequence[Sequence[Tensor]]
) -> list[Tensors]:
    """Computes ``function(shared, chunk)`` for each chunk.

    The result and the gradients do not depend on the number of cores.

    Args:
        function: Gets every tensor that needs a gradient through its arguments.
        shared: Tensors that all chunks need.
        chunks: One or more chunks, of the same number of tensors each.
    """
    if not torch.is_grad_enabled():
        return _map(functools.partial(function, shared), chunks, chunks[0][0].device)
    flat = [tensor for chunk in chunks for tensor in chunk]
    outputs = _Chunks.apply(function, len(shared), len(chunks), *shared, *flat)
    width = len(outputs) // len(chunks)
    return [outputs[start : start + width] for start in range(0, len(outputs), width)]


class _Chunks(torch.autograd.Function):
    """Keeps a graph for each chunk, so that gradients too are computed chunk by chunk."""

    @staticmethod
    def forward(
        ctx: Any, function: Function, num_shared: int, num_chunks: int, *tensors: Tensor
    ) -> Tensors:
        shared, flat = tensors[:num_shared], tensors[num_shared:]
        width = len(flat) // num_chunks
        needed = ctx.needs_input_grad[3:]

        def run(index: int) -> tuple[list[Tensor], Tensors]:
            begin = index * width
            inputs = [*shared, *flat[begin : begin + width]]
            wanted = [*needed[:num_shared], *needed[num_shared + begin :][:width]]
            with torch.enable_grad():
                leaves = [
                    tensor.detach().requires_grad_(is_wanted)
                    for tensor, is_wanted in zip(inputs, wanted, strict=True)
                ]
                return leaves, function(leaves[:num_shared], leaves[num_shared:])

        ctx.graphs = _map(run, range(num_chunks), flat[0].device)
        ctx.num_shared = num_shared
        return tuple(output.detach() for _, outputs in ctx.graphs for output in outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        graphs, ctx.graphs = ctx.graphs, None
        width = len(grads) // len(graphs)

        def run(index: int) -> list[Tensor | None]:
            leaves, outputs = graphs[index]
            pairs = [
                (output, grad)
                for output, grad in zip(outputs, grads[index * width :][:width], strict=True)
                if output.requires_grad
            ]
            wanted = [leaf for leaf in leaves if leaf.requires_grad]
            if not pairs or not wanted:
                return [None] * len(leaves)
            ends, toward = zip(*pairs, strict=True)
            computed = iter(torch.autograd.grad(ends, wanted, toward, allow_unused=True))
            return [next(computed) if leaf.requires_grad else None for leaf in leaves]

        rows = _map(run, range(len(graphs)), grads[0].device)
        shared = []
        for column in zip(*(row[: ctx.num_shared] for row in rows), strict=True):
            parts = [part for part in column if part is not None]
            shared.append(torch.stack(parts).sum(dim=0) if parts else None)
        chunks = [grad for row in rows for grad in row[ctx.num_shared :]]
        return None, None, None, *shared, *chunks


def _map(function: Callable[[Any], Any], items: Sequence[Any], device: torch.device) -> list[Any]:
    """Computes ``function(item)`` for each item, in the caller's grad mode.

    Only a CPU's cores share the items: a GPU takes them in turn, on the caller's stream.
    """
    if torch.get_num_threads() == 1 or len(items) == 1 or device.type != "cpu":
        return [function(item) for item in items]
    mode = torch.is_grad_enabled()

    def run(item: Any) -> Any:
        with torch.set_grad_enabled(mode):
            return function(item)

    return list(_workers(torch.get_num_threads()).map(run, items))


@functools.cache
def _workers(count: int) -> ThreadPoolExecutor:
    """Starts threads in which operations stay on one core."""
    pool = ThreadPoolExecutor(count, "chunk", initializer=lambda: torch.set_num_threads(1))
    all_have_started = threading.Barrier(count)
    list(pool.map(lambda _: all_have_started.wait(), range(count)))
    torch.set_num_threads(count)  # what threads that start later inherit
    return pool


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_workers.cache_clear)  # threads are not forked along
