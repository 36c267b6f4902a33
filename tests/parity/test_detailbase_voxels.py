"""Voxelisation against numbers of the published code's.

``REFER_PARITY_DIR`` names another folder of cases to run instead of the ones kept here.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from pointgroup_ops import voxelization, voxelization_idx

HERE = Path(__file__).parent
CASES = sorted(Path(os.environ.get("REFER_PARITY_DIR") or HERE / "cases").glob("detailbase_*.npz"))


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_points_get_the_published_voxels(path):
    with np.load(path) as file:
        case = {
            name: torch.from_numpy(file[name]) for name in file if file[name].dtype.kind in "fi"
        }
    of_points = case["in_voxel_coords"][case["in_p2v_map"].long()]
    scenes = int(of_points[:, 0].max()) + 1
    voxels, point_to_voxel, voxel_to_points = voxelization_idx(of_points, scenes, 4)
    assert torch.equal(voxels, case["in_voxel_coords"])
    assert torch.equal(point_to_voxel, case["in_p2v_map"])
    assert torch.equal(voxel_to_points, case["in_v2p_map"])
    features, sizes = case["in_feats"], torch.bincount(point_to_voxel)[:, None]
    total = features.new_zeros(len(voxels), features.shape[1])
    mean = total.index_add(0, point_to_voxel, features) / sizes
    # Up to three terms of order 1 in the same order; measured worst 0.
    assert_close(voxelization(features, voxel_to_points, 4), mean, rtol=0, atol=1e-6)


def test_there_are_cases():
    assert CASES
