"""Operators that PyTorch knows: a graph may hold them, and gradients go through them.

``torch.library.custom_op`` gives the same, but spends 30 µs of Python on a call, and 110 with its
gradients, which on a GPU is more than many of our kernels take.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class Operator:
    """A function of tensors that changes none of them, as ``torch.ops.<name>``.

    Its arguments are given by their places, and its results are new tensors.
    """

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        """Registers ``function``, whose annotations say what it takes and returns."""
        self._name = name
        namespace, _, self._own_name = name.partition("::")
        self._library = _library(namespace)
        schema = torch.library.infer_schema(function, mutates_args=())
        self._library.define(self._own_name + schema, tags=(torch.Tag.pt2_compliant_tag,))
        # A graph's compiler must not look into what its operators do.
        self._library.impl(
            self._own_name, torch.compiler.disable(function), "CompositeExplicitAutograd"
        )
        self._op = getattr(getattr(torch.ops, namespace), self._own_name).default
        self._gradients: type[torch.autograd.Function] | None = None
        self._library.impl(self._own_name, self._with_gradients, "Autograd")

    def __call__(self, *arguments: Any) -> Any:
        """Calls it through PyTorch's dispatcher."""
        return self._op(*arguments)

    def register_fake(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Says what results look like, without computing them."""
        return torch.library.register_fake(self._name, function, lib=self._library)

    def register_autograd(
        self,
        backward: Callable[..., Any],
        *,
        setup_context: Callable[[Any, tuple, Any], None],
    ) -> None:
        """Makes it differentiable; twice, where ``backward`` calls no operator that is not."""
        without_gradients, compute = self._without_gradients, backward

        class Gradients(torch.autograd.Function):
            @staticmethod
            def forward(ctx: Any, *arguments: Any) -> Any:
                result = without_gradients(*arguments)
                setup_context(ctx, arguments, result)
                return result

            backward = staticmethod(compute)

        self._gradients = Gradients

    def _with_gradients(self, *arguments: Any) -> Any:
        is_wanted = torch.is_grad_enabled() and any(
            isinstance(given, Tensor) and given.requires_grad for given in arguments
        )
        if not is_wanted:
            return self._without_gradients(*arguments)
        if self._gradients is None:
            raise NotImplementedError(f"{self._name} has no gradients; detach what it is given")
        return self._gradients.apply(*arguments)

    def _without_gradients(self, *arguments: Any) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            return self._op(*arguments)


def operator(name: str) -> Callable[[Callable[..., Any]], Operator]:
    """Makes a function the operator ``<namespace>::<name>``; see :class:`Operator`."""
    return functools.partial(Operator, name)


@functools.cache
def _library(namespace: str) -> torch.library.Library:
    """What is registered lives as long as this."""
    return torch.library.Library(namespace, "FRAGMENT")
