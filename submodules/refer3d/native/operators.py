"""Operators that PyTorch knows: a graph may hold them, and gradients go through them.

``torch.library.custom_op`` gives the same, but spends 45 µs more of Python on a call and its
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
        self._library = _new_library(name)
        schema = torch.library.infer_schema(function, mutates_args=())
        self._library.define(self._own_name + schema, tags=(torch.Tag.pt2_compliant_tag,))
        # A graph's compiler must not look into what its operators do.
        self._library.impl(
            self._own_name, torch.compiler.disable(function), "CompositeExplicitAutograd"
        )
        self._op = getattr(getattr(torch.ops, namespace), self._own_name).default
        self.register_autograd(self._refuse)
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
        setup_context: Callable[[Any, tuple, Any], None] = lambda *_: None,
    ) -> None:
        """Makes it differentiable; twice, where ``backward`` calls no operator that is not."""

        def forward(ctx: Any, *arguments: Any) -> Any:
            result = self._without_gradients(*arguments)
            setup_context(ctx, arguments, result)
            return result

        methods = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
        # Its name is what profiles and error messages show.
        self._gradients = type(self._own_name, (torch.autograd.Function,), methods)

    def _with_gradients(self, *arguments: Any) -> Any:
        is_wanted = torch.is_grad_enabled() and any(
            isinstance(given, Tensor) and given.requires_grad for given in arguments
        )
        call = self._gradients.apply if is_wanted else self._without_gradients
        return call(*arguments)

    def _refuse(self, *_: Any) -> Any:
        raise RuntimeError(f"{self._name} has no gradients")

    def _without_gradients(self, *arguments: Any) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            return self._op(*arguments)


def operator(name: str) -> Callable[[Callable[..., Any]], Operator]:
    """Makes a function the operator ``<namespace>::<name>``; see :class:`Operator`."""
    return functools.partial(Operator, name)


_libraries: dict[str, torch.library.Library] = {}
"""By their operators' names; what is registered lives as long as they do."""


def _new_library(name: str) -> torch.library.Library:
    """An operator's. Where a module is loaded again, its operators are forgotten first."""
    if name in _libraries:
        _libraries.pop(name)._destroy()
    _libraries[name] = torch.library.Library(name.partition("::")[0], "FRAGMENT")
    return _libraries[name]
