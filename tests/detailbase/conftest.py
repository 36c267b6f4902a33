"""Clouds that the tests of the ops share."""

import pytest
import torch


@pytest.fixture
def make_voxels(rng, device):
    """Distinct voxels of two scenes, in Morton's order: make_voxels(count, low, high)."""
    from detailbase.ops import voxelize

    def make(count: int, low: int = -5, high: int = 12, dtype: torch.dtype = torch.int64):
        coords = torch.randint(low, high, (count, 3), generator=rng, dtype=dtype)
        batch = torch.randint(0, 2, (count,), generator=rng, dtype=dtype)
        return voxelize(coords.to(device), batch.to(device))[0]

    return make
