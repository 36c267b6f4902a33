"""Loading of CUDA kernels, on machines with and without a GPU."""

import sys
import warnings

import pytest
import torch

from refer3d.native.cuda import kernels
from refer3d.native.cuda import launcher as loader
from refer3d.native.cuda.source import read_source
from tests.emulation import emulation
from tests.errors import assert_names, raises

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
def test_a_missing_driver_warns_once_with_the_remedy():
    with pytest.warns(UserWarning, match="refersplat") as caught:
        assert loader._load("refersplat", GPU) is None
    reason, remedy = "RuntimeError: the driver is from 2015", 'pip install "refer3d[cuda]"'
    assert_names(caught[0].message, "cuda:0", reason, remedy, "reference")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert loader._load("refersplat", GPU) is None


@pytest.mark.usefixtures("broken")
def test_strictness_makes_it_an_error(monkeypatch):
    monkeypatch.setenv("REFER3D_STRICT", "1")
    with raises(ImportError, "the driver is from 2015"):
        loader._load("refersplat", GPU)


@pytest.mark.usefixtures("broken")
def test_the_reference_can_be_chosen(monkeypatch):
    monkeypatch.setenv("REFER3D_BACKEND", "reference")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert loader._load("refersplat", GPU) is None


def test_cpu_tensors_have_no_cuda_kernels_unless_emulated():
    floats = ("refersplat", torch.device("cpu"), torch.float32)
    assert kernels(*floats) is None
    with emulation():
        assert kernels(*floats) is not None
        assert kernels(*floats[:2], torch.float16) is None
    assert kernels(*floats) is None


def test_a_header_is_included_once(tmp_path):
    (tmp_path / "a.h").write_text("#pragma once\nint a;\n")
    (tmp_path / "b.h").write_text('#include "a.h"\nint b;\n')
    (tmp_path / "c.cu").write_text('#include "a.h"\n#include "b.h"\n#include <cmath>\nint c;\n')
    text = read_source(tmp_path / "c.cu")
    assert text.count("int a;") == text.count("int b;") == 1
    assert "#include <cmath>" in text
    assert "pragma" not in text


def test_the_first_use_is_labelled_experimental(monkeypatch):
    monkeypatch.setattr(loader, "CompiledKernels", lambda package, device: package)
    loader._warn_of_first_use.cache_clear()
    with pytest.warns(UserWarning, match="experimental"):
        assert loader._load("refersplat", GPU) == "refersplat"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert loader._load("detailbase", GPU) == "detailbase"
