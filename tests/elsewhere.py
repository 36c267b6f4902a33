"""A device that is not the CPU, for tests on machines that have no other.

Its tensors keep their values on the CPU but say that they lie elsewhere. As with a GPU's, what
takes tensors of both devices fails, NumPy cannot read them, and only copies go across. What a GPU
would have to be waited for is counted. PyTorch takes a new device only before its first gradient,
so the programs run in a process of their own.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

NAME = "elsewhere"
aten = torch.ops.aten
HAVE_ANY_SIZE = (
    *(aten.nonzero.default, aten.masked_select.default, aten.repeat_interleave.Tensor),
    *(aten._unique2.default, aten.unique_dim.default, aten.unique_consecutive.default),
)
"""What they return has a size that only the device knows."""
TAKES_INDICES_OF_THE_CPU = (
    *(aten.index.Tensor, aten._unsafe_index.Tensor),
    *(aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default),
)
ARE_READ = (aten._local_scalar_dense.default, aten.equal.default, aten.bincount.default)
"""What they return, or its size, is a number of Python."""
COPIES = (
    *(aten._to_copy.default, aten.copy_.default),
    *(aten.to.dtype_layout, aten.to.device, aten.to.other),
)


def is_available() -> bool:
    """Whether this PyTorch lets Python be a device."""
    return hasattr(backend_registration, "_setup_privateuseone_for_python_backend")


waits: list[str] = []
"""What the programs had to wait for."""


def run_programs(*calls: Sequence[str]) -> list[str]:
    """Runs programs one after the other, each a module with a ``main`` and its arguments.

    Returns:
        The operations that a GPU would have been waited for.
    """
    paths = [str(Path(__file__).parents[1] / folder) for folder in ("", "submodules")]
    command = [sys.executable, __file__, json.dumps([list(map(str, call)) for call in calls])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


def register() -> None:
    """Makes the name known; once in a process."""
    backend_registration._setup_privateuseone_for_python_backend(NAME)
    if not hasattr(torch, NAME):
        torch._register_device_module(NAME, SimpleNamespace())
    getattr(torch, NAME).get_amp_supported_dtype = lambda: [torch.bfloat16]


class There(Tensor):
    """A tensor that says it lies elsewhere."""

    @staticmethod
    def __new__(cls, here: Tensor) -> There:
        with torch.inference_mode(False):
            return torch.Tensor._make_wrapper_subclass(
                *(cls, here.size()),
                strides=here.stride(),
                storage_offset=here.storage_offset(),
                dtype=here.dtype,
                device=torch.device(NAME, 0),
            )

    def __init__(self, here: Tensor) -> None:
        self.here = here

    def tolist(self) -> Any:
        """Copies the values to the CPU, as everywhere."""
        waits.append("tolist")
        return self.here.tolist()

    def __reduce_ex__(self, protocol: int) -> Any:
        """Files hold the values, to be read on the CPU."""
        return self.here.__reduce_ex__(protocol)

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return _run(function, args, kwargs or {})


class Elsewhere(TorchDispatchMode):
    """Inside, the device can be used like any other."""

    def __enter__(self) -> Elsewhere:
        # Numbers of Python become tensors below what is seen here, unless on the CPU at first.
        torch._C._set_only_lift_cpu_tensors(True)
        return super().__enter__()

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        torch._C._set_only_lift_cpu_tensors(False)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return _run(function, args, kwargs or {})


def _run(function, args, kwargs):
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    there = [tensor for tensor in tensors if isinstance(tensor, There)]
    strangers = [t for t in tensors if not isinstance(t, There) and t.ndim]
    if there and strangers and function not in (*COPIES, *TAKES_INDICES_OF_THE_CPU):
        shapes = [tuple(tensor.shape) for tensor in strangers]
        raise RuntimeError(f"{function} met tensors of the CPU and of another device: {shapes}")
    devices = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.device)]
    goes_there = devices[0].type == NAME if devices else bool(there)
    if function is aten.copy_.default:
        goes_there = isinstance(args[0], There)
    plain_args, plain_kwargs = tree_map(_plain, (args, kwargs))
    result = function(*plain_args, **plain_kwargs)
    if _is_waited_for(function, args, kwargs, goes_there):
        waits.append(str(function))
    if not goes_there:
        return result
    known = {id(tensor.here): tensor for tensor in there}  # what works in place returns its input

    def moved(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        return known[id(leaf)] if id(leaf) in known else There(leaf)

    return tree_map(moved, result)


def _is_waited_for(function, args, kwargs, goes_there: bool) -> bool:
    """Whether a GPU would have to be through with everything before."""
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    if function in COPIES:
        given = args[1] if function is aten.copy_.default else args[0]
        is_asynchronous = kwargs.get("non_blocking") or any(arg is True for arg in args[2:])
        return isinstance(given, There) != goes_there and not is_asynchronous
    if not any(isinstance(tensor, There) for tensor in tensors):
        return False
    chosen = [t for t in args[1] if t is not None] if function in TAKES_INDICES_OF_THE_CPU else []
    is_any_size = any(t.dtype is torch.bool for t in chosen)
    is_copied = any(not isinstance(t, There) for t in chosen)
    return not goes_there or is_any_size or is_copied or function in (*HAVE_ANY_SIZE, *ARE_READ)


def _plain(leaf: Any) -> Any:
    if isinstance(leaf, torch.device):
        return torch.device("cpu")
    return leaf.here if isinstance(leaf, There) else leaf


if __name__ == "__main__":
    register()
    with Elsewhere():
        for module, *argv in json.loads(sys.argv[1]):
            importlib.import_module(module).main(argv)
    sys.stdout.write(json.dumps(waits))
