"""All kernel files compile for the supported architectures, without a GPU."""

import sys

import pytest

from benchmarks.kernels import Resources, read_resources
from refer3d.native.cuda import compiler
from refer3d.native.cuda.source import kernel_names, sources

OTHER_GPUS = [(8, 0), (10, 0), (12, 0)]  # compute capabilities other than (9, 0)
PACKAGES = ["refersplat", "detailbase"]
FILES = {(package, stem): path for package in PACKAGES for stem, path in sources(package).items()}
VARIANTS = [
    ("refersplat", "tiles", {"KEY": "int16_t"}),
    *(("refersplat", "rasterize", {"CHANNELS": width}) for width in (1, 4, 16, 32)),
    ("refersplat", "rasterize", {"CHANNELS": 32, "REAL": "double"}),
    ("refersplat", "rasterize", {"ORDERED": 1}),
    ("refersplat", "rasterize", {"ORDERED": 1, "CHANNELS": 32}),
    ("refersplat", "rasterize", {"ORDERED": 1, "CHANNELS": 32, "REAL": "double"}),
    ("refersplat", "blend", {"CHANNELS": 1}),
    ("refersplat", "blend", {"CHANNELS": 32}),
    ("refersplat", "blend", {"ORDERED": 1}),
    ("refersplat", "blend", {"CHANNELS": 16, "REAL": "double"}),
    *(("refersplat", "project", {"DEGREE": degree}) for degree in (0, 1, 2)),
    ("refersplat", "knn", {"NEIGHBOURS": 0}),
    ("detailbase", "voxels", {"INT": "int"}),
    ("detailbase", "sparse_conv", {"SIDE": 32, "ALIGNED": 1}),
    ("detailbase", "sparse_conv", {"SIDE": 32, "REAL": "double"}),
    ("detailbase", "sparse_conv", {"PRECISION": "kTf32"}),
    ("detailbase", "sparse_conv", {"PRECISION": "kBfloat16", "HALF": 1, "ALIGNED": 1}),
    ("detailbase", "sparse_conv", {"PRECISION": "kFloat16", "HALF": 1}),
    *((*file, {"REAL": "double"}) for file in FILES),
]

__test__ = sys.platform != "darwin"  # for which there is no NVRTC


SPILLED = 16
"""Most bytes of local memory that a thread may use: loops would read and write more of them."""


@pytest.mark.parametrize(
    ("package", "stem", "defines"),
    [
        *((*file, {}) for file in FILES),
        *(pytest.param(*v, marks=pytest.mark.slow) for v in VARIANTS),
    ],
    ids=str,
)
def test_nvrtc_compiles_without_warnings_or_spills(package, stem, defines):
    code, log = compiler.compile_kernels(FILES[package, stem], "sm_90", defines, ptxas_options="-v")
    assert "warning" not in log
    assert code.startswith(b"\x7fELF")
    resources = read_resources(log)
    assert set(resources) == set(kernel_names(FILES[package, stem]))
    for name, usage in resources.items():
        assert 8 <= usage.registers <= 255
        assert usage.local <= SPILLED or name == "search", name  # it keeps its path through a tree
        assert usage.shared <= 48 * 1024


@pytest.mark.slow
@pytest.mark.parametrize("capability", OTHER_GPUS)
@pytest.mark.parametrize(("package", "stem"), FILES)
def test_nvrtc_compiles_for_other_gpus(package, stem, capability):
    arch = compiler.target(capability)
    if not arch.startswith("sm_"):
        pytest.skip(f"NVRTC of this PyTorch gives {arch} for it, with a driver only")
    code, log = compiler.compile_kernels(FILES[package, stem], arch, {})
    assert not log
    assert code.startswith(b"\x7fELF")


def test_resources_of_a_kernel_are_read_from_the_log(tmp_path):
    source = tmp_path / "kernels.cu"
    source.write_text(
        'extern "C" __global__ void shares(float* to) {\n'
        "  __shared__ float all[300];\n"
        "  all[threadIdx.x] = to[threadIdx.x];\n  __syncthreads();\n"
        "  to[threadIdx.x] = all[299 - threadIdx.x];\n}\n"
        'extern "C" __global__ void walks(int* to, int n) {\n'
        "  int own[40];\n  for (int i = 0; i < n; ++i) own[to[i]] = i;\n"
        "  for (int i = 0; i < n; ++i) to[i] = own[(i * 7) % 40];\n}\n"
    )
    _, log = compiler.compile_kernels(source, "sm_90", {}, ptxas_options="-v")
    resources = read_resources(log)
    assert set(resources) == {"shares", "walks"}
    assert (resources["shares"].shared, resources["walks"].shared) == (1200, 0)
    assert (resources["shares"].local, resources["walks"].local) == (0, 160)


@pytest.mark.parametrize(
    ("registers", "shared", "threads", "blocks"),
    [(32, 0, 256, 8), (33, 0, 256, 6), (255, 0, 1024, 0), (16, 48 * 1024, 128, 4), (8, 0, 32, 32)],
)
def test_blocks_that_fit_a_multiprocessor(registers, shared, threads, blocks):
    assert Resources(registers, 0, shared).blocks(threads) == blocks


def test_a_warning_of_nvrtc_is_in_the_log(tmp_path):
    source = tmp_path / "careless.cu"
    source.write_text("__global__ void kernel() {\n  int unused;\n}\n")
    _, log = compiler.compile_kernels(source, "sm_90", {})
    assert "careless.cu(2): warning" in log


def test_an_error_of_nvrtc_names_the_file_and_the_line(tmp_path):
    (tmp_path / "wrong.h").write_text("#pragma once\n\nint f() { return y; }\n")
    source = tmp_path / "careless.cu"
    source.write_text('#include "wrong.h"\n__global__ void kernel() {\n  z = 1;\n}\n')
    with pytest.raises(Exception, match=r"wrong\.h\(3\): error") as error:
        compiler.compile_kernels(source, "sm_90", {})
    assert "careless.cu(3): error" in str(error.value)


def test_compiled_kernels_are_cached_until_their_source_changes(tmp_path, monkeypatch):
    monkeypatch.setenv("REFER3D_CACHE", str(tmp_path / "cache"))
    header, source = tmp_path / "size.h", tmp_path / "fill.cu"
    header.write_text("constexpr int kSize = 3;\n")
    source.write_text(
        '#include "size.h"\nextern "C" __global__ void fill(int* to) { *to = kSize * BY; }\n'
    )
    count = lambda: len(list((tmp_path / "cache" / "kernels").iterdir()))  # noqa: E731
    first = compiler.compiled(source, "sm_90", {"BY": 2})
    assert compiler.compiled(source, "sm_90", {"BY": 2}) == first
    assert count() == 1
    compiler.compiled(source, "sm_90", {"BY": 3})
    assert count() == 2
    header.write_text("constexpr int kSize = 4;\n")
    assert compiler.compiled(source, "sm_90", {"BY": 2}) != first
    compiler.compiled(source, "sm_80", {"BY": 2})
    assert count() == 4


def test_a_newer_gpu_gets_the_newest_ptx():
    assert compiler.target((9, 0)) == "sm_90"
    kind, _, newest = compiler.target((99, 9)).partition("_")
    assert kind == "compute"
    assert int(newest) >= 90  # of the oldest NVRTC, 12.4
    with pytest.raises(RuntimeError, match="sm_35"):
        compiler.target((3, 5))
