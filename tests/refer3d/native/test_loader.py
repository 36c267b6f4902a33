import contextlib
import re
import sys
import warnings
from types import ModuleType

import pytest
import torch

from refer3d import native
from refer3d.native import loader
from tests.emulation import emulation
from tests.errors import raises


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package whose compiled variants are Python files that say who they are."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("REFER3D_BACKEND", raising=False)
    monkeypatch.delenv("REFER3D_STRICT", raising=False)
    folder = tmp_path / "some_package"
    folder.mkdir()
    (folder / "__init__.py").touch()
    for variant in ("base", "avx2", "avx512"):
        (folder / f"_cpu_{variant}.py").touch()
    loader.load.cache_clear()
    yield folder
    loader.load.cache_clear()
    for name in [name for name in sys.modules if name.startswith("some_package")]:
        del sys.modules[name]


def on_a_cpu_with(monkeypatch, capability):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)


@pytest.mark.parametrize(
    ("capability", "expected"),
    [
        ("AVX512", "cpu-avx512"),
        ("AVX2", "cpu-avx2"),
        ("DEFAULT", "cpu-base"),
        ("NO AVX", "cpu-base"),
        ("SVE256", "cpu-base"),
    ],
)
def test_the_fastest_that_runs_is_taken(package, monkeypatch, capability, expected):
    on_a_cpu_with(monkeypatch, capability)
    assert native.backend("some_package") == expected
    assert isinstance(native.load("some_package"), ModuleType)
    assert len([name for name in sys.modules if name.startswith("some_package._cpu")]) == 1


def test_the_next_is_taken_where_one_is_missing_or_broken(package, monkeypatch):
    on_a_cpu_with(monkeypatch, "AVX512")
    (package / "_cpu_avx512.py").write_text("raise ImportError('GLIBCXX_9 not found')")
    (package / "_cpu_avx2.py").unlink()
    assert native.backend("some_package") == "cpu-base"


def test_missing_ops_warn_once_with_the_reason(package, monkeypatch):
    on_a_cpu_with(monkeypatch, "AVX2")
    (package / "_cpu_base.py").unlink()
    (package / "_cpu_avx2.py").write_text("raise ImportError('GLIBCXX_9 not found')")
    with pytest.warns(UserWarning, match="some_package.*GLIBCXX_9"):
        assert native.load("some_package") is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert native.backend("some_package") == "reference"


def test_an_error_gives_the_reason_of_the_build(package, monkeypatch):
    for variant in package.glob("_cpu_*.py"):
        variant.unlink()
    (package / "native_build.txt").write_text("g++ failed: knn.cpp:3: error: oh (base, avx2)\n")
    monkeypatch.setenv("REFER3D_STRICT", "1")
    with raises(ImportError, "knn.cpp:3: error: oh (base, avx2)", "pip install"):
        native.load("some_package")


def test_a_hidden_installed_copy_is_named(package, monkeypatch, tmp_path):
    for variant in package.glob("_cpu_*.py"):
        variant.unlink()
    copy = tmp_path / "site-packages" / "some_package"
    copy.mkdir(parents=True)
    (copy / "_cpu_base.so").touch()
    monkeypatch.setattr(loader.sysconfig, "get_path", lambda name: str(copy.parent))
    with pytest.warns(UserWarning, match=f"{re.escape(str(copy))}.*hidden"):
        assert native.load("some_package") is None


def test_the_reference_can_be_chosen(package, monkeypatch):
    monkeypatch.setenv("REFER3D_BACKEND", "reference")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert native.backend("some_package") == "reference"


def test_a_variant_can_be_chosen(package, monkeypatch):
    on_a_cpu_with(monkeypatch, "AVX512")
    monkeypatch.setenv("REFER3D_BACKEND", "cpu-avx2")
    assert native.backend("some_package") == "cpu-avx2"


def test_the_backend_is_that_of_the_device(monkeypatch):
    from refer3d.native.cuda import launcher

    assert native.backend("detailbase", "cpu").startswith("cpu-")
    assert native.backend("detailbase", "meta") == "reference"
    with emulation():
        assert native.backend("detailbase", torch.device("cpu")) == "emulated"
    monkeypatch.setattr(launcher, "target", lambda capability: "sm_90")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(launcher, "sources", lambda package: {})
    monkeypatch.setattr(launcher.CompiledKernels, "_enter_thread", lambda self: None)
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    assert launcher.CompiledKernels("detailbase", torch.device("cuda:0")).name == "cuda-sm_90"


def test_a_variant_that_cannot_run_is_refused(package, monkeypatch):
    on_a_cpu_with(monkeypatch, "AVX2")
    monkeypatch.setenv("REFER3D_BACKEND", "cpu-avx512")
    with raises(ValueError, "REFER3D_BACKEND", "reference", "cpu-avx2", "cpu-base"):
        native.load("some_package")
