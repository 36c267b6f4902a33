"""Random Gaussians for the tests of rendering."""

from __future__ import annotations

import torch
from torch import Tensor

from refersplat.cameras import Camera
from refersplat.splats.gaussians import Gaussians

HEIGHT, WIDTH = 37, 51  # no multiples of a tile


def camera(device="cpu", dtype=torch.float32, **changes) -> Camera:
    """Looks along +z from a little off the origin, with an off-centre principal point."""
    view = torch.eye(4, dtype=dtype, device=device)
    view[:3, 3] = torch.tensor([0.1, -0.2, 0.3])
    values = {"fx": 40.0, "fy": 44.0, "cx": 22.0, "cy": 20.0, "width": WIDTH, "height": HEIGHT}
    return Camera(world_to_camera=view, **(values | changes))


def gaussians(rng, count, device="cpu", dtype=torch.float32) -> tuple[Tensor, ...]:
    """means, quats, scales, opacities, sh: some behind the camera, some far off the image."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng, dtype=torch.float64)

    means = normal(count, 3) * torch.tensor([1.5, 1.2, 1.5]) + torch.tensor([0.0, 0.0, 3.0])
    scales = 0.02 + 0.3 * torch.rand(count, 3, generator=rng, dtype=torch.float64)
    opacities = torch.rand(count, generator=rng, dtype=torch.float64)
    parts = (means, normal(count, 4), scales, opacities, normal(count, 16, 3))
    return tuple(part.to(device, dtype) for part in parts)


def random_gaussians(rng, count) -> Gaussians:
    """Parameters drawn from normal distributions."""
    shapes = {"means": (3,), "log_scales": (3,), "quats": (4,), "logit_opacities": ()}
    tensors = {name: torch.randn(count, *shape, generator=rng) for name, shape in shapes.items()}
    return Gaussians(**tensors, sh=torch.randn(count, 16, 3, generator=rng))


def assert_equal(got: Gaussians, want: Gaussians) -> None:
    """Asserts that all tensors have the same bits."""
    for name, tensor in want.tensors().items():
        assert torch.equal(getattr(got, name), tensor), name


def splats(
    rng, count, channels, device="cpu", dtype=torch.float32, size=(HEIGHT, WIDTH)
) -> tuple[Tensor, ...]:
    """means2d, conics, depths, opacities, values; some Gaussians off the image or behind it."""

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=rng, dtype=torch.float64)

    means2d = uniform(count, 2) * torch.tensor([size[1] + 20, size[0] + 20]) - 10
    deviations, slant = 0.6 + 6 * uniform(count, 2), 1.6 * uniform(count) - 0.8
    xx, yy = deviations.square().unbind(dim=1)
    xy = slant * (xx * yy).sqrt()
    conics = torch.stack([yy, -xy, xx], dim=1) / (xx * yy - xy * xy)[:, None]
    values = torch.randn(count, channels, generator=rng, dtype=torch.float64)
    parts = (means2d, conics, 4 * uniform(count), uniform(count), values)
    return tuple(part.to(device, dtype) for part in parts)
