"""Rendering against the dense definition in float64.

``REFER_PARITY_DIR`` names another folder of cases to run instead of the ones kept here.
"""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from refersplat.cameras import Camera
from refersplat.ops import project, rasterize, spherical_harmonics

CASES = sorted(
    Path(os.environ.get("REFER_PARITY_DIR") or Path(__file__).parent / "cases").glob("raster_*.npz")
)
INPUTS = ["means", "quats", "scales", "opacities", "sh", "features"]

# A folder without such cases gives no tests, rather than skipped ones.
__test__ = bool(CASES)


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_matches_definition(path: Path, device):
    with np.load(path) as file:
        case = {name: torch.from_numpy(file[name]).to(device) for name in file.files}
    width, height = int(case["width"]), int(case["height"])
    camera = Camera(
        world_to_camera=case["world_to_cam"].float(),
        fx=width / (2 * float(case["tanfovx"])),
        fy=height / (2 * float(case["tanfovy"])),
        cx=width / 2,
        cy=height / 2,
        width=width,
        height=height,
    )
    inputs = [case[f"in_{name}"].float().requires_grad_() for name in INPUTS]
    means, quats, scales, opacities, sh, features = inputs

    projected = project(means, quats, scales, camera)
    colors = spherical_harmonics(means, sh, camera.position, int(case["sh_degree"]))
    values = torch.cat([colors, features], dim=1)
    image, left = rasterize(
        projected.means2d, projected.conics, projected.depths, opacities, values, height, width
    )
    color = image[:3] + left * case["background"].float()[:, None, None]

    for name, got in [("color", color), ("features", image[3:]), ("final_T", left)]:
        want = case[name].float()
        tolerance = 1e-4 * float(want.abs().max())
        assert_close(got, want, rtol=0, atol=tolerance, msg=lambda m, name=name: f"{name}: {m}")

    loss = (color * case["cot_color"]).sum() + (image[3:] * case["cot_features"]).sum()
    for name, got in zip(INPUTS, torch.autograd.grad(loss, inputs), strict=True):
        want = case[f"grad_{name}"]
        assert want.norm() > 0 or name == "sh", name
        assert (got - want).norm() <= 1e-3 * want.norm(), name
