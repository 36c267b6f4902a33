"""Launches of kernels by cuda-core, on a stand-in for the driver that prints its calls."""

import contextlib
import json
import os
import struct
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from refer3d.native.cuda import launcher
from tests.errors import raises

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not sys.platform.startswith("linux"), reason="the driver is built for Linux"
    ),
    pytest.mark.skipif(torch.cuda.is_available(), reason="the machine has a driver"),
]
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def launches(tmp_path_factory):
    """The output of :func:`main` about its tensor, then the driver's about each launch."""
    folder = tmp_path_factory.mktemp("driver")
    library = ["-shared", "-fPIC", "-D_GNU_SOURCE", "-o", folder / "libcuda.so.1"]
    subprocess.run(["g++", *library, HERE / "driver.cpp", "-ldl"], check=True)
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": str(folder),
        "NUM_ARGUMENTS": "4",
        "REFER3D_CACHE": str(folder),  # NVRTC, too, asks the driver
        "PYTHONPATH": os.pathsep.join(str(HERE.parents[2] / name) for name in ("", "submodules")),
    }
    done = subprocess.run(
        [sys.executable, __file__],
        env=environment,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def main() -> None:
    """Launches kernels, as if torch had a GPU."""
    torch.cuda.get_device_capability = lambda device: (9, 0)
    torch.cuda.device = lambda device: contextlib.nullcontext()
    torch.cuda.current_stream = lambda: SimpleNamespace(cuda_stream=77)
    gpu = launcher.CompiledKernels("refersplat", torch.device("cpu"))
    tensor = torch.zeros(3)
    sys.stdout.write(json.dumps({"name": gpu.name, "tensor": tensor.data_ptr()}) + "\n")
    sys.stdout.flush()
    gpu.launch("adam", "adam", (2, 3), 128, tensor, None, True, 0.5, REAL="double")
    other = threading.Thread(
        target=gpu.launch, args=("ssim", "ssim_maps", 2**31 - 1, 32, -(2**40), 1, 2.0, tensor)
    )
    other.start()  # as autograd's, it has no context
    other.join()


def test_the_driver_gets_the_grid_stream_and_arguments(launches):
    place, launch, _ = launches
    assert place["name"] == "cuda-sm_90"
    assert launch == {
        "kernel": "adam",
        "grid": [2, 3, 1],
        "block": [128, 1, 1],
        "stream": 77,
        # Each has eight bytes, as every kernel reads them: None and booleans, too.
        "arguments": [place["tensor"], 0, 1, struct.unpack("<q", struct.pack("<d", 0.5))[0]],
    }


def test_another_thread_has_the_context(launches):
    place, _, launch = launches
    assert launch["kernel"] == "ssim_maps"
    assert launch["grid"] == [2**31 - 1, 1, 1]
    assert launch["arguments"] == [
        -(2**40),
        1,
        struct.unpack("<q", struct.pack("<d", 2.0))[0],
        place["tensor"],
    ]


def test_arguments_that_a_kernel_cannot_read_are_errors():
    cpu = torch.device("cpu")
    with raises(TypeError, "tensors", "int", "float", "int32"):
        launcher.address(np.int32(3), cpu)
    with raises(ValueError, "contiguous"):
        launcher.address(torch.zeros(3, 2).T, cpu)
    with raises(ValueError, "cuda:0"):
        launcher.address(torch.zeros(3), torch.device("cuda", 0))


if __name__ == "__main__":
    main()
