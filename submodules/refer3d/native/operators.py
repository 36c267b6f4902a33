"""Operators under PyTorch's dispatcher: a kernel for each device, and a fake one for graphs.

``torch.library.custom_op`` does the same, but adds 45 µs of Python to a call and its gradients,
which on a GPU is more than many of our kernels take.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

import torch
from torch import Tensor

from refer3d.native.checks import as_array
from refer3d.native.cuda import kernels
from refer3d.native.cuda.launcher import REALS
from refer3d.native.loader import cpu_ops, num_threads, outside_graphs

Function = Callable[..., Any]


class Operator:
    """``torch.ops.<package>.<name>``, called with arguments by position, a tensor first.

    The dispatcher picks the kernel: compiled C++ for CPU tensors, CUDA for GPU tensors, and the
    reference for another device, another dtype, or a machine without compiled code. No kernel has
    gradients: a differentiable op is a ``torch.autograd.Function`` that calls one operator forward
    and another one backward.
    """

    def __init__(
        self, name: str, fake: Function, reference: Function | None, mutates: Iterable[str]
    ) -> None:
        """Registers the operator; see :func:`operator`."""
        self.empty = fake
        """Allocates the results, from the operator's arguments."""
        self._package, _, self._short_name = name.partition("::")
        self._reference = reference
        self._cpu: Function | None = None
        self._cuda: Function | None = None
        self._cuda_dtypes: Collection[torch.dtype] = ()
        self._library = torch.library.Library(self._package, "FRAGMENT")
        schema = torch.library.infer_schema(fake, mutates_args=tuple(mutates))
        self._library.define(self._short_name + schema, tags=(torch.Tag.pt2_compliant_tag,))
        self._register("CompositeExplicitAutograd", self._run_reference)
        torch.library.register_fake(name, fake, lib=self._library)
        self._op = getattr(getattr(torch.ops, self._package), self._short_name).default

    def __call__(self, *arguments: Any) -> Any:
        """Calls the operator through PyTorch's dispatcher."""
        return self._op(*arguments)

    def cpu(self, kernel: Function) -> None:
        """Registers the CPU kernel, which takes the package's compiled module first."""
        self._cpu = kernel
        self._register("CPU", self._run)

    def cuda(self, kernel: Function, dtypes: Collection[torch.dtype] = REALS) -> None:
        """Registers the CUDA kernel, which takes the package's ``Kernels`` first.

        Args:
            kernel: Allocates the results and launches.
            dtypes: Floating dtypes of the first argument that it takes.
        """
        self._cuda, self._cuda_dtypes = kernel, dtypes
        self._register("CUDA", self._run)

    def _register(self, key: str, run: Function) -> None:
        self._library.impl(self._short_name, outside_graphs(run), key)

    def _run(self, like: Tensor, *rest: Any) -> Any:
        device, dtype = like.device, like.dtype
        if self._cuda and (gpu := kernels(self._package, device, dtype, self._cuda_dtypes)):
            return self._cuda(gpu, like, *rest)
        if self._cpu and (native := cpu_ops(self._package, device, dtype)):
            return self._cpu(native, like, *rest)
        return self._run_reference(like, *rest)

    def _run_reference(self, *arguments: Any) -> Any:
        if self._reference is None:
            raise RuntimeError(f"{self._op} has no compiled kernel on {arguments[0].device}")
        return self._reference(*arguments)


def operator(
    name: str, *, reference: Function | None = None, mutates: Iterable[str] = ()
) -> Callable[[Function], Operator]:
    """Makes a function that allocates the results the operator ``<package>::<name>``.

    Its annotations are the operator's schema, and graphs call it in the operator's place. Kernels
    are registered with :meth:`Operator.cpu` and :meth:`Operator.cuda`.

    Args:
        name: As ``torch.ops`` shows it.
        reference: The operator in plain PyTorch, for all that has no compiled kernel.
        mutates: Names of the arguments that are written in place.
    """
    return lambda fake: Operator(name, fake, reference, mutates)


class _NoGradient:
    """The context of a forward pass that no backward pass follows."""

    def save_for_backward(self, *_: Tensor | None) -> None:
        """Keeps nothing."""

    mark_non_differentiable = save_for_backward


def apply(function: type[torch.autograd.Function], *arguments: Any) -> Any:
    """Calls ``function``, past autograd where no argument has gradients: that saves 8 µs."""
    is_wanted = torch.is_grad_enabled() and any(
        isinstance(given, Tensor) and given.requires_grad for given in arguments
    )
    if is_wanted:
        return function.apply(*arguments)
    return function.forward(_NoGradient(), *arguments)


def fill(function: Function, inputs: Iterable[Any], outputs: Any) -> Any:
    """Calls compiled CPU code on inputs, a number of threads, and outputs; returns the outputs.

    Tensors are handed over as arrays, inputs without gaps, and lists as they are.
    """
    arrays = (as_array(given) if isinstance(given, Tensor) else given for given in inputs)
    written = (outputs,) if isinstance(outputs, Tensor) else outputs
    function(*arrays, num_threads(), *(output.numpy() for output in written))
    return outputs
