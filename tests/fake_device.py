"""A fake device: it behaves like a GPU, but its tensors keep their values on the CPU.

As on a GPU, an operation on tensors of two devices fails, NumPy cannot read a tensor, and only
copies cross. Operations that would synchronize with a GPU are counted. PyTorch accepts a new device
only before the first gradient of a process, so programs run in a process of their own.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from tests import processes

NAME = "fake"
aten = torch.ops.aten
DATA_DEPENDENT_SIZE = (
    *(aten.nonzero.default, aten.masked_select.default, aten.repeat_interleave.Tensor),
    *(aten._unique2.default, aten.unique_dim.default, aten.unique_consecutive.default),
)
"""Operations whose result has a size that only the device can tell."""
INDEXING = (
    *(aten.index.Tensor, aten._unsafe_index.Tensor),
    *(aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default),
)
"""Operations that also accept indices on the CPU."""
SCALARS = (aten._local_scalar_dense.default, aten.equal.default, aten.bincount.default)
"""Operations whose result, or its size, becomes a Python number."""
COPIES = (
    *(aten._to_copy.default, aten.copy_.default),
    *(aten.to.dtype_layout, aten.to.device, aten.to.other),
)


def is_available() -> bool:
    """Whether this PyTorch supports devices written in Python."""
    return hasattr(backend_registration, "_setup_privateuseone_for_python_backend")


synchronizations: list[str] = []
"""The operations that would have waited for a GPU, of the running program."""


def run_programs(*calls: Sequence[object]) -> list[list[str]]:
    """Runs programs in turn, each given as a module with a ``main`` and its arguments.

    Returns:
        For each program, the operations that would have waited for a GPU.
    """
    return processes.call(_run_programs, [list(map(str, call)) for call in calls])


def _run_programs(calls: list[list[str]]) -> list[list[str]]:
    register()
    of_programs = []
    with FakeDevice():
        for module, *argv in calls:
            importlib.import_module(module).main(argv)
            of_programs.append(synchronizations.copy())
            synchronizations.clear()
    return of_programs


def register() -> None:
    """Registers the device with PyTorch, once in a process."""
    backend_registration._setup_privateuseone_for_python_backend(NAME)
    if not hasattr(torch, NAME):
        torch._register_device_module(NAME, SimpleNamespace())
    getattr(torch, NAME).get_amp_supported_dtype = lambda: [torch.bfloat16]


class DeviceTensor(Tensor):
    """A tensor on the fake device, which holds its values as a tensor on the CPU."""

    @staticmethod
    def __new__(cls, values: Tensor) -> DeviceTensor:
        with torch.inference_mode(False):
            return torch.Tensor._make_wrapper_subclass(
                *(cls, values.size()),
                strides=values.stride(),
                storage_offset=values.storage_offset(),
                dtype=values.dtype,
                device=torch.device(NAME, 0),
            )

    def __init__(self, values: Tensor) -> None:
        self.on_cpu = values

    def tolist(self) -> Any:
        synchronizations.append("tolist")
        return self.on_cpu.tolist()

    def __reduce_ex__(self, protocol: int) -> Any:
        """Saves the values as a tensor of the CPU."""
        return self.on_cpu.__reduce_ex__(protocol)

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return _run(function, args, kwargs or {})


class FakeDevice(TorchDispatchMode):
    """Lets code inside create tensors on the fake device."""

    def __enter__(self) -> FakeDevice:
        # This mode does not see Python numbers become tensors, unless they become the CPU's first.
        torch._C._set_only_lift_cpu_tensors(True)
        return super().__enter__()

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        torch._C._set_only_lift_cpu_tensors(False)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return _run(function, args, kwargs or {})


def _run(function, args, kwargs):
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    on_device = [tensor for tensor in tensors if isinstance(tensor, DeviceTensor)]
    on_cpu = [t for t in tensors if not isinstance(t, DeviceTensor) and t.ndim]
    if on_device and on_cpu and function not in (*COPIES, *INDEXING):
        shapes = [tuple(tensor.shape) for tensor in on_cpu]
        raise RuntimeError(f"{function} got tensors on the CPU and on another device: {shapes}")
    devices = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.device)]
    to_device = devices[0].type == NAME if devices else bool(on_device)
    if function is aten.copy_.default:
        to_device = isinstance(args[0], DeviceTensor)
    cpu_args, cpu_kwargs = tree_map(_to_cpu, (args, kwargs))
    result = function(*cpu_args, **cpu_kwargs)
    if _synchronizes(function, args, kwargs, to_device):
        synchronizations.append(str(function))
    if not to_device:
        return result
    inputs = {id(tensor.on_cpu): tensor for tensor in on_device}  # in-place results are inputs

    def wrap(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        return inputs[id(leaf)] if id(leaf) in inputs else DeviceTensor(leaf)

    return tree_map(wrap, result)


def _synchronizes(function, args, kwargs, to_device: bool) -> bool:
    """Whether the operation would wait until a GPU has finished its earlier work."""
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    if function in COPIES:
        source = args[1] if function is aten.copy_.default else args[0]
        is_asynchronous = kwargs.get("non_blocking") or any(arg is True for arg in args[2:])
        return isinstance(source, DeviceTensor) != to_device and not is_asynchronous
    if not any(isinstance(tensor, DeviceTensor) for tensor in tensors):
        return False
    indices = [t for t in args[1] if t is not None] if function in INDEXING else []
    has_mask = any(t.dtype is torch.bool for t in indices)
    is_copied = any(not isinstance(t, DeviceTensor) for t in indices)
    return not to_device or has_mask or is_copied or function in (*DATA_DEPENDENT_SIZE, *SCALARS)


def _to_cpu(leaf: Any) -> Any:
    if isinstance(leaf, torch.device):
        return torch.device("cpu")
    return leaf.on_cpu if isinstance(leaf, DeviceTensor) else leaf
