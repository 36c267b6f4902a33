"""Rendering against numbers of a dense float64 reference, forward and gradients.

``REFER_PARITY_DIR`` names another folder of cases to run instead of the ones kept here.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from refersplat.cameras import Camera
from refersplat.ops import blend_matrix, project, rasterize, spherical_harmonics

FOLDER = Path(os.environ.get("REFER_PARITY_DIR") or Path(__file__).parent / "cases")
CASES = sorted(FOLDER.glob("raster_*.npz"))
INPUTS = ["means", "quats", "scales", "opacities", "sh", "features"]

# A folder without such cases gives no tests, rather than skipped ones.
__test__ = bool(CASES)


def load(path: Path) -> tuple[dict[str, Tensor], Camera, int]:
    """A case's arrays, its camera and its degree of spherical harmonics."""
    with np.load(path) as file:
        case = {name: torch.from_numpy(file[name]) for name in file.files}
    width, height = int(case["width"]), int(case["height"])
    focal = [
        size / (2 * float(case[name])) for size, name in [(width, "tanfovx"), (height, "tanfovy")]
    ]
    camera = Camera(case["world_to_cam"], *focal, width / 2, height / 2, width, height)
    return case, camera, int(case["sh_degree"])


def relative_to_largest(got: Tensor, want: Tensor) -> float:
    return float((got.detach().double() - want).abs().max() / want.abs().max())


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_matches_published_numbers(path: Path) -> None:
    case, camera, degree = load(path)
    means, quats, scales, opacities, sh, features = (
        case[f"in_{name}"].requires_grad_() for name in INPUTS
    )
    size = (camera.height, camera.width)
    projected = project(means, quats, scales, camera)
    colors = spherical_harmonics(means, sh, camera.position, degree)
    values = torch.cat([colors, features], dim=1)
    splats = (projected.means2d, projected.conics, projected.depths, opacities)
    image, left = rasterize(*splats, values, *size)
    color = image[:3] + left * case["background"][:, None, None]

    # float32 with sums of up to a few hundred terms; measured worst 3e-6.
    assert relative_to_largest(color, case["color"]) < 1e-4
    assert relative_to_largest(image[3:], case["features"]) < 1e-4
    assert relative_to_largest(left, case["final_T"]) < 1e-4
    blended = blend_matrix(*splats, *size).blend(values)
    assert relative_to_largest(blended[3:], case["features"]) < 1e-4

    loss = (color * case["cot_color"]).sum() + (image[3:] * case["cot_features"]).sum()
    loss.backward()
    inputs = (means, quats, scales, opacities, sh, features)
    for name, tensor in zip(INPUTS, inputs, strict=True):
        want = case[f"grad_{name}"]
        error = (tensor.grad.double() - want).norm() / want.norm()
        # Measured worst 2.2e-6.
        assert error < 1e-3, f"{name}: {float(error):.1e}"
