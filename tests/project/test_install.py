"""Installs: from a wheel, beside other packages, without a compiler, from a source distribution."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from tests.project.test_imports import FACES

pytestmark = pytest.mark.slow  # builds the packages

ROOT = Path(__file__).parents[2]
PACKAGES = ("refersplat", "detailbase")
BUILT = shutil.ignore_patterns("*.so", "*.pyd", "native_build.txt", "__pycache__", "*.egg-info")
PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
OFFLINE = ["--no-build-isolation", "--no-deps"]
NO_COMPILER = {"CC": "/no/such/compiler", "CXX": "/no/such/compiler"}
STUB = """
#include <Python.h>
#define GLUE(a, b) a##b
#define INIT(name) GLUE(PyInit_, name)
static PyModuleDef definition = {PyModuleDef_HEAD_INIT, "stub", nullptr, -1, nullptr};
extern "C" __attribute__((visibility("default"))) PyObject* INIT(REFER_MODULE_NAME)() {
  return PyModule_Create(&definition);
}
"""
"""An empty extension module."""
USE_AN_OP = """
import warnings, torch
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
    """Runs a command without the variables of refer3d and PYTHONPATH in its environment."""
    ours = ("REFER3D_", "PYTHONPATH")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**inherited, **environment},
        check=False,
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 0 or not check, done.stderr
    return done


def copy_sources(folder):
    """Copies the sources of the build, without build products."""
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / name)
    for name in (*PACKAGES, "submodules"):
        shutil.copytree(ROOT / name, folder / name, ignore=BUILT)
    return folder


@pytest.fixture
def tree(tmp_path):
    return copy_sources(tmp_path)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    """Wheels of refer3d and refer3d-compat, in this order, built without a compiler."""
    tree = copy_sources(tmp_path_factory.mktemp("sources"))
    folder = tmp_path_factory.mktemp("wheels")
    for source in (".", "submodules/compat"):
        run([*PIP, "wheel", *OFFLINE, "-w", str(folder), source], cwd=tree, **NO_COMPILER)
    return sorted(folder.iterdir(), key=lambda path: "compat" in path.name)


def new_environment(folder):
    """Makes a virtual environment that sees this one's packages, but not its editable installs."""
    venv.create(folder, with_pip=False)
    python = next(path for path in folder.glob("*/python*") if path.stem == "python")
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(run([str(python), "-c", code], cwd=folder).stdout.strip())
    (site / "outer.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return str(python), site


def install(python, source):
    run([*PIP, "--python", python, "install", *OFFLINE, str(source)], cwd=Path(python).parent)


@pytest.fixture(scope="module")
def environment(wheels, tmp_path_factory):
    """Python and site-packages of an environment where a stranger's package was there first."""
    stranger = tmp_path_factory.mktemp("stranger")
    (stranger / "pyproject.toml").write_text(
        '[project]\nname = "diff-gaussian-rasterization"\nversion = "0"\n'
        '[tool.setuptools]\npy-modules = ["diff_gaussian_rasterization"]\n'
    )
    (stranger / "diff_gaussian_rasterization.py").write_text("owner = 'a stranger'\n")
    python, site = new_environment(tmp_path_factory.mktemp("environment"))
    install(python, stranger)
    install(python, wheels[0])
    return python, site


def native_sources(tree):
    return [*tree.glob("*/csrc/*"), *tree.glob("submodules/refer3d/native/csrc/*")]


def build_stubs(tree, **environment):
    """Builds the variants of an empty module; returns the built variants and the report."""
    for source in native_sources(tree):
        if source.suffix == ".cpp":
            source.unlink()
    for package in PACKAGES:
        (tree / package / "csrc" / "stub.cpp").write_text(STUB)
    run([sys.executable, "setup.py", "-q", "build_ext", "--inplace"], cwd=tree, **environment)
    built = {path.name.split(".")[0] for path in (tree / "refersplat").glob("_cpu_*")}
    report = tree / "refersplat" / "native_build.txt"
    return built, report.read_text() if report.exists() else ""


def test_wheels_take_only_their_own_names(wheels):
    top_level = []
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as opened:
            names = {name.split("/")[0] for name in opened.namelist()}
        top_level.append({name for name in names if not name.endswith(".dist-info")})
    assert top_level[0] == {"refer3d", "refersplat", "detailbase"}
    assert top_level[1] == set(FACES)


def test_wheel_has_sources_types_and_the_demo_network(environment):
    _, site = environment
    for source in native_sources(ROOT):
        parts = source.relative_to(ROOT).parts
        assert site.joinpath(*parts[parts[0] == "submodules" :]).is_file(), source
    for name in (*PACKAGES, "refer3d"):
        assert (site / name / "py.typed").is_file()
    demo = {path.name for path in (site / "detailbase/inference/demo").iterdir()}
    assert demo == {"best.pth", "config.yaml"}


def test_install_leaves_a_package_of_the_same_field_alone(environment):
    python, site = environment
    code = "import diff_gaussian_rasterization as d; print(d.owner, d.__file__)"
    owner, _, path = run([python, "-c", code], cwd=site).stdout.strip().rpartition(" ")
    assert owner == "a stranger"
    assert path == str(site / "diff_gaussian_rasterization.py")


def test_compat_installs_on_request(wheels, tmp_path):
    python, _ = new_environment(tmp_path / "environment")
    for wheel in wheels:
        install(python, wheel)
    code = """
import torch
import PG_OP, fused_ssim, segmentator, torch_scatter
from diff_gaussian_rasterization import GaussianRasterizer
from pointgroup_ops import voxelization
from simple_knn._C import distCUDA2
from softgroup.ops import bfs_cluster
from spconv.pytorch import SubMConv3d
print(distCUDA2(torch.eye(4, 3)).shape)
"""
    done = run([python, "-c", code], cwd=tmp_path, REFER3D_BACKEND="reference")
    assert done.stdout.strip() == "torch.Size([4])"


def test_predict_works_from_a_wheel_in_an_empty_folder(environment, tmp_path):
    python, _ = environment
    shutil.copy(ROOT / "data/demo/room/room.ply", tmp_path / "scan.ply")
    program = str(Path(python).with_name("detailbase"))
    command = [program, "predict", "scan.ply", "the black chair", "-o", "out"]
    done = run(command, cwd=tmp_path, REFER3D_BACKEND="reference", HOME=str(tmp_path))
    assert "deprecated" not in done.stderr
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"00_black_chair.ply", "masks.json", "picture.png"}


def test_works_without_a_compiler(environment, tmp_path):
    python, site = environment
    where, warned = run([python, "-c", USE_AN_OP], cwd=tmp_path).stdout.splitlines()
    assert where == f"{site / 'refersplat' / '__init__.py'} reference"
    assert warned.startswith("1 refersplat has no compiled ops: no C++ compiler found: ")
    assert "/no/such/compiler" in warned
    assert "Using the reference ops" in warned

    strict = run([python, "-c", USE_AN_OP], cwd=tmp_path, REFER3D_STRICT="1", check=False)
    assert "ImportError: refersplat has no compiled ops: no C++ compiler" in strict.stderr
    code = USE_AN_OP.replace("caught[0].message", "'warnings'")
    quiet = run([python, "-c", code], cwd=tmp_path, REFER3D_BACKEND="reference")
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
    for source in tree.rglob("csrc/*.cpp"):  # the others would take long
        source.write_text('#include "knn.h"\n')
    run([sys.executable, "setup.py", "-q", "build_ext", "--inplace"], cwd=tree)
    report = (tree / "refersplat" / "native_build.txt").read_text()
    assert "this cannot be compiled" in report
    assert report.count("\n") == 1


def test_a_strict_build_fails_without_a_compiler(tree):
    build = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    done = run(build, cwd=tree, check=False, REFER3D_STRICT="1", **NO_COMPILER)
    assert done.returncode != 0
    assert "REFER3D_STRICT=1 and ops were not built" in done.stderr


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


def test_source_distribution_has_what_the_wheel_needs(tree, wheels):
    run([sys.executable, "setup.py", "-q", "sdist"], cwd=tree)
    (archive,) = (tree / "dist").iterdir()
    with tarfile.open(archive) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    with zipfile.ZipFile(wheels[0]) as opened:
        contents = [name for name in opened.namelist() if ".dist-info" not in name]
    expected = {f"submodules/{name}" if name.startswith("refer3d") else name for name in contents}
    built = {f"{package}/native_build.txt" for package in PACKAGES}
    assert expected - built | {"setup.py", "pyproject.toml", "README.md", "LICENSE"} <= names
