"""The U-Net's features against the published network's, as far as the case can tell.

Ours agree with spconv 2.3.8 to 6e-7 on every voxel of ``detailbase_a``. The case does not: in 41 of
its 252 superpoints it departs from spconv by up to 2e-3 of the largest value. spconv's results on a
CPU with several threads change from run to run (``benchmarks/spconv_race.py``): a row sometimes
gets the product of another pair of its kernel offset, one from the other thread's half. The three
superpoints that were traced (35, 137 and 172) hold just such a product, and with that one set right
they are within 1e-5. So this asks for the full tolerance from most, and bounds what was lost.

``REFER_PARITY_DIR`` names another folder of cases to run instead of the ones kept here.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from detailbase.model.backbone import SparseUNet
from detailbase.ops import segment_reduce
from pointgroup_ops import voxelization

HERE = Path(__file__).parent
CASES = sorted(Path(os.environ.get("REFER_PARITY_DIR") or HERE / "cases").glob("detailbase_*.npz"))

# With --import-mode=importlib a test's folder is no package and not on the path.
spec = importlib.util.spec_from_file_location("parity_filling", HERE / "filling.py")
filling = importlib.util.module_from_spec(spec)
spec.loader.exec_module(filling)


@pytest.mark.parametrize("is_folded", [False, True], ids=["definition", "folded"])
@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_superpoint_features(path, is_folded):
    with np.load(path) as file:
        case = {
            name: torch.from_numpy(file[name]) for name in file if file[name].dtype.kind in "fi"
        }
    net = SparseUNet().eval()
    state = filling.filled_state(path.with_suffix(".json"))
    net.load_state_dict({name: state[name] for name in net.state_dict()})
    features = voxelization(case["in_feats"], case["in_v2p_map"], 4)
    with torch.set_grad_enabled(not is_folded):
        voxels = net(features, case["in_voxel_coords"])
    starts = case["in_batch_offsets"].tolist()
    points = voxels[case["in_p2v_map"].long()]
    pooled = segment_reduce(points, case["in_superpoints"], starts[-1], "mean").detach()
    # The published network repeats a scene's superpoints for each of its sentences.
    scenes = [pooled[a:b] for a, b in itertools.pairwise(starts)]
    repeats = case["in_scenes_len"].tolist()
    got = torch.cat([s for s, n in zip(scenes, repeats, strict=True) for _ in range(n)])
    want = case["eval_sp_feats"]
    largest = float(want.abs().max())
    error = (got - want).abs().amax(dim=1) / largest
    assert (error <= 1e-4).float().mean() > 0.8
    assert float(error.median()) <= 5e-5  # measured 1.1e-5
    assert float(error.max()) <= 5e-3
    assert_close(
        torch.corrcoef(torch.stack([got.flatten(), want.flatten()]))[0, 1].item(),
        1.0,
        rtol=0,
        atol=1e-5,
    )
