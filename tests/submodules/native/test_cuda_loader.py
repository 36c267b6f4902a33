"""What happens where CUDA kernels are asked for, on machines with and without a GPU."""

import contextlib
import sys
import threading
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from native.cuda import emulation, kernels
from native.cuda import launcher as loader
from native.cuda.source import read_source

GPU = torch.device("cuda", 0)

__test__ = sys.platform != "darwin"  # for which there is no cuda-core


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    monkeypatch.delenv("REFER3D_STRICT", raising=False)
    monkeypatch.delenv("REFER3D_BACKEND", raising=False)
    loader._load.cache_clear()
    yield
    loader._load.cache_clear()


@pytest.fixture
def broken(monkeypatch):
    def fail(*_):
        raise RuntimeError("the driver is from 2015")

    monkeypatch.setattr(loader, "CompiledKernels", fail)


@pytest.mark.usefixtures("broken")
def test_a_missing_driver_is_said_once_with_the_way_out():
    with pytest.warns(UserWarning, match="refersplat has no CUDA kernels on cuda:0") as caught:
        assert loader._load("refersplat", GPU) is None
    message = str(caught[0].message)
    assert "RuntimeError: the driver is from 2015" in message
    assert 'pip install "refer3d[cuda]"' in message
    assert "Using the reference ops" in message
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert loader._load("refersplat", GPU) is None


@pytest.mark.usefixtures("broken")
def test_strictness_makes_it_an_error(monkeypatch):
    monkeypatch.setenv("REFER3D_STRICT", "1")
    with pytest.raises(ImportError, match="the driver is from 2015"):
        loader._load("refersplat", GPU)


@pytest.mark.usefixtures("broken")
def test_the_reference_may_be_asked_for(monkeypatch):
    monkeypatch.setenv("REFER3D_BACKEND", "reference")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert loader._load("refersplat", GPU) is None


def test_cpu_tensors_have_no_cuda_kernels_unless_emulated():
    like = torch.empty(0)
    assert kernels("refersplat", like) is None
    with emulation():
        assert kernels("refersplat", like) is not None
        assert kernels("refersplat", like.half()) is None
    assert kernels("refersplat", like) is None


def test_a_header_is_included_once(tmp_path):
    (tmp_path / "a.h").write_text("#pragma once\nint a;\n")
    (tmp_path / "b.h").write_text('#include "a.h"\nint b;\n')
    (tmp_path / "c.cu").write_text('#include "a.h"\n#include "b.h"\n#include <cmath>\nint c;\n')
    text = read_source(tmp_path / "c.cu")
    assert text.count("int a;") == text.count("int b;") == 1
    assert "#include <cmath>" in text
    assert "pragma" not in text


def test_launches_on_the_current_stream(monkeypatch):
    """The way to a GPU, with a driver that only writes down what it is told."""
    import cuda.core

    launched, entered = [], []
    module = SimpleNamespace(get_kernel=lambda name: f"kernel {name}")
    enter = SimpleNamespace(set_current=lambda: entered.append(threading.get_ident()))
    monkeypatch.setattr(cuda.core, "Device", lambda index: enter)
    monkeypatch.setattr(
        cuda.core, "ObjectCode", SimpleNamespace(from_cubin=lambda code, name: module)
    )
    monkeypatch.setattr(cuda.core, "launch", lambda *arguments: launched.append(arguments))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: SimpleNamespace(cuda_stream=77))

    gpu = loader.CompiledKernels("refersplat", torch.device("cpu"))
    assert gpu.arch == "sm_90"
    tensor = torch.zeros(3)
    gpu.launch("adam", "adam", (2, 1), 128, tensor, None, True, 0.5, REAL="double")
    ((stream, config, kernel, *arguments),) = launched
    assert stream.__cuda_stream__() == (0, 77)
    assert (config.grid, config.block) == ((2, 1, 1), (128, 1, 1))
    assert kernel == "kernel adam"
    assert arguments == [tensor.data_ptr(), 0, 1, 0.5]
    assert list(map(type, arguments)) == [int, int, int, float]  # of a bool, one byte would arrive
    with pytest.raises(TypeError, match="a kernel takes tensors, int and float, got int32"):
        gpu.launch("adam", "adam", 1, 128, np.int32(3))
    other = threading.Thread(target=gpu.launch, args=("adam", "adam", 1, 32))
    other.start()
    other.join()
    assert len(launched) == len(set(entered)) == len(entered) == 2
    with pytest.raises(ValueError, match="a kernel takes contiguous tensors"):
        gpu.launch("adam", "adam", 1, 128, torch.zeros(3, 2).T)
