"""An install without a working compiler works, and says so once with the reason."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("refersplat", "detailbase")
BUILT = shutil.ignore_patterns("*.so", "*.pyd", "native_build.txt", "__pycache__")
PIP_INSTALL = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
PIP_INSTALL += ["--no-build-isolation", "--no-deps"]
STUB = """
#include <Python.h>
#define GLUE(a, b) a##b
#define INIT(name) GLUE(PyInit_, name)
static PyModuleDef definition = {PyModuleDef_HEAD_INIT, "stub", nullptr, -1, nullptr};
extern "C" __attribute__((visibility("default"))) PyObject* INIT(REFER_MODULE_NAME)() {
  return PyModule_Create(&definition);
}
"""
"""A compiled module with nothing in it, built in no time."""
USE_AN_OP = """
import sys, warnings, torch
# An editable install in this environment would offer its own compiled ops.
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in str(finder)]
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    from refersplat.ops.knn import knn
    points = torch.eye(3)
    assert knn(points, points, 1)[1].flatten().tolist() == [0, 1, 2]
    knn(points, points, 2)
import refersplat
from refer3d import native
print(refersplat.__file__, native.backend("refersplat"))
print(len(caught), caught[0].message)
"""


def run(command, *, cwd, check=True, **environment):
    """Runs a command without what the caller's own environment says about refer3d."""
    ours = ("REFER3D_", "PYTHONPATH")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**inherited, **environment},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 or not check, done.stderr
    return done


@pytest.fixture
def tree(tmp_path):
    """A copy of what is built, without anything built."""
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path / name)
    for name in (*PACKAGES, "submodules"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=BUILT)
    return tmp_path


def native_sources(tree):
    return [*tree.glob("*/csrc/*"), *tree.glob("submodules/refer3d/native/csrc/*")]


def build_stubs(tree, **environment):
    """Builds the variants of a module with nothing in it; returns what the build left behind."""
    for source in native_sources(tree):
        if source.suffix == ".cpp":
            source.unlink()
    for package in PACKAGES:
        (tree / package / "csrc" / "stub.cpp").write_text(STUB)
    run([sys.executable, "setup.py", "-q", "build_ext", "--inplace"], cwd=tree, **environment)
    built = {path.name.split(".")[0] for path in (tree / "refersplat").glob("_cpu_*")}
    report = tree / "refersplat" / "native_build.txt"
    return built, report.read_text() if report.exists() else ""


def test_works_without_a_compiler(tree, tmp_path):
    target = tmp_path / "installed"
    run(
        [*PIP_INSTALL, "--target", str(target), "."],
        cwd=tree,
        CC="/no/such/compiler",
        CXX="/no/such/compiler",
    )
    for source in native_sources(tree):
        parts = source.relative_to(tree).parts
        assert target.joinpath(*parts[parts[0] == "submodules" :]).is_file(), source

    python = [sys.executable, "-c", USE_AN_OP]
    where, warned = run(
        python, cwd=tmp_path / "installed", PYTHONPATH=str(target)
    ).stdout.splitlines()
    assert where == f"{target / 'refersplat' / '__init__.py'} reference"
    assert warned.startswith("1 refersplat has no compiled ops: no C++ compiler found: ")
    assert "/no/such/compiler" in warned
    assert "Using the reference ops" in warned

    strict = run(python, cwd=target, PYTHONPATH=str(target), REFER3D_STRICT="1", check=False)
    assert "ImportError: refersplat has no compiled ops: no C++ compiler" in strict.stderr
    quiet = run(
        [sys.executable, "-c", USE_AN_OP.replace("caught[0].message", "'warnings'")],
        cwd=target,
        PYTHONPATH=str(target),
        REFER3D_BACKEND="reference",
    )
    assert quiet.stdout.splitlines()[1] == "0 warnings"


def test_editable_install_without_a_compiler_works(tree, tmp_path):
    earlier = tree / "refersplat" / f"_cpu_base{sysconfig.get_config_var('EXT_SUFFIX')}"
    earlier.touch()
    # What `pip install -e .` calls; pip itself would first uninstall the refer3d under test.
    hook = f"import setuptools.build_meta as b; b.build_editable({str(tmp_path / 'wheel')!r})"
    run([sys.executable, "-c", hook], cwd=tree, CXX="/no/such/compiler")
    report = (tree / "refersplat" / "native_build.txt").read_text()
    assert "no C++ compiler found" in report
    assert not earlier.exists()


def test_a_failed_build_tells_the_compilers_error(tree):
    (tree / "submodules" / "refer3d" / "native" / "csrc" / "knn.h").write_text(
        "#error this cannot be compiled\n"
    )
    for source in tree.glob("*/csrc/*.cpp"):
        source.write_text('#include "knn.h"\n')
    run([sys.executable, "setup.py", "-q", "build_ext", "--inplace"], cwd=tree)
    report = (tree / "refersplat" / "native_build.txt").read_text()
    assert "this cannot be compiled" in report
    assert report.count("\n") == 1


def test_a_later_build_leaves_no_report(tree):
    assert "no C++ compiler found" in build_stubs(tree, CXX="/no/such/compiler")[1]
    built, report = build_stubs(tree)
    assert "_cpu_base" in built
    assert report == ""


def test_other_variants_are_kept_when_one_fails(tree, tmp_path):
    everything, _ = build_stubs(tree)
    compiler = tmp_path / "compiler"
    compiler.write_text(
        "#!/bin/sh\n"
        'case "$*" in *cpu_base*) echo "error: no base" >&2; exit 1;; esac\n'
        'exec c++ "$@"\n'
    )
    compiler.chmod(0o755)
    built, report = build_stubs(tree, CXX=str(compiler))
    assert built == everything - {"_cpu_base"}
    assert report.endswith("error: no base (base)\n")


def test_source_distribution_has_what_the_build_needs(tree):
    run([sys.executable, "setup.py", "-q", "sdist"], cwd=tree)
    (archive,) = (tree / "dist").iterdir()
    with tarfile.open(archive) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    assert {
        str(path.relative_to(tree)) for path in [*native_sources(tree), tree / "setup.py"]
    } <= names
