"""The emulation of CUDA finds races, writes beyond a tensor and barriers that do not match."""

import sys

import pytest
import torch
from torch.testing import assert_close

from tests.emulation import EmulatedKernels
from tests.errors import raises

KERNELS = r"""
#include "device.h"
namespace refer {
extern "C" __global__ void reverse(const float* from, float* to, int64_t is_careful) {
  __shared__ float values[64];
  values[threadIdx.x] = from[threadIdx.x];
  if (is_careful) __syncthreads();
  to[threadIdx.x] = values[63 - threadIdx.x];
}
extern "C" __global__ void fill(float* to, int64_t count, double value) {
  const int64_t i = global_thread();
  if (i < count) to[i] = float(value);
}
extern "C" __global__ void add_up(const double* from, double* to) {
  double values[8];
  for (int i = 0; i < 8; ++i) values[i] = from[8 * threadIdx.x + i];
  warp_sums<8>(values);
  if (threadIdx.x % 4 == 0) to[threadIdx.x / 4] = values[0];
  to[8 + threadIdx.x] = warp_scan(from[threadIdx.x]);
  const double all = warp_sum(from[threadIdx.x]);
  if (threadIdx.x == 7) to[40] = all;
}
extern "C" __global__ void leave_early(float* to) {
  if (threadIdx.x >= 40) return;
  __syncthreads();
  to[threadIdx.x] = 1;
}
extern "C" __global__ void part_ways(float* to) {
  if (threadIdx.x % 2) {
    to[threadIdx.x] = __shfl_sync(kAllLanes, 1.0f, 0);
  } else {
    to[threadIdx.x] = __shfl_sync(kAllLanes, 2.0f, 0);
  }
}
extern "C" __global__ void count_up(int32_t* total, float* stale) {
  __shared__ float never_written;
  if (threadIdx.x == 0) stale[blockIdx.x] = never_written;
  atomicAdd(total, 1);
}
}  // namespace refer
"""


@pytest.fixture(params=[False, True], ids=["forwards", "backwards"])
def backwards(request):
    return request.param


@pytest.fixture
def kernels(tmp_path, monkeypatch, backwards):
    folder = tmp_path / "emulated_package"
    (folder / "csrc").mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "csrc" / "some.cu").write_text(KERNELS)
    monkeypatch.syspath_prepend(tmp_path)
    yield EmulatedKernels("emulated_package", backwards)
    sys.modules.pop("emulated_package", None)


def test_emulated_threads_meet_at_barriers(kernels):
    given, got = torch.randn(64), torch.empty(64)
    kernels.launch("some", "reverse", 1, 64, given, got, 1)
    assert torch.equal(got, given.flip(0))
    assert kernels.launched == {"reverse"}


def test_an_emulated_race_shows(kernels):
    given, got = torch.randn(64), torch.empty(64)
    kernels.launch("some", "reverse", 1, 64, given, got, 0)
    # Memory of the block that nobody has written holds no number.
    assert got.isnan().sum() == 32


def test_emulated_warps_add_up(kernels):
    given = torch.randn(32, 8, dtype=torch.float64)
    got = torch.empty(41, dtype=torch.float64)
    kernels.launch("some", "add_up", 1, 32, given, got)
    assert_close(got[:8], given.sum(dim=0))
    first = given.flatten()[:32]
    assert_close(got[8:40], first.cumsum(dim=0))
    assert_close(got[40], first.sum())


def test_emulated_kernels_may_not_write_elsewhere(kernels):
    to = torch.empty(40)
    kernels.launch("some", "fill", 2, 32, to, 40, 1.5)
    assert (to == 1.5).all()
    with raises(RuntimeError, "some.cu", "fill", "beyond"):
        kernels.launch("some", "fill", 2, 32, to, 41, 1.5)


def test_emulated_arguments_must_be_what_the_kernel_takes(kernels):
    to = torch.empty(40)
    for wrong in [(to.double(), 40, 1.0), (to, 40.0, 1.0), (to, 40), (40, to, 1.0)]:
        with raises(RuntimeError, "Fld"):
            kernels.launch("some", "fill", 2, 32, *wrong)
    with raises(ValueError, "contiguous"):
        kernels.launch("some", "fill", 2, 32, torch.empty(40, 2)[:, 0], 40, 1.0)
    kernels.launch("some", "fill", 2, 32, None, 0, 1.0)


def test_emulated_barriers_need_all_threads(kernels):
    with raises(RuntimeError, "threads", "returned"):
        kernels.launch("some", "leave_early", 1, 64, torch.empty(64))


def test_emulated_lanes_may_not_part_ways(kernels):
    lines = [n for n, line in enumerate(KERNELS.splitlines(), 1) if "__shfl_sync" in line]
    with raises(RuntimeError, *lines, "block 0,0"):
        kernels.launch("some", "part_ways", 1, 32, torch.empty(32))


def test_emulated_blocks_share_nothing_but_memory(kernels):
    total, stale = torch.zeros(1, dtype=torch.int32), torch.zeros(3)
    kernels.launch("some", "count_up", (3, 2), 64, total, stale)
    assert total.item() == 384
    assert stale.isnan().all()
