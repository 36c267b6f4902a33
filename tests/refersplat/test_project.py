import math

import pytest
import torch
from torch.testing import assert_close

from refersplat.cameras import Camera
from refersplat.ops import project, reference, spherical_harmonics
from tests.refersplat.splats import camera, gaussians


def reference_project(means, quats, scales, seen_by):
    lens = (seen_by.fx, seen_by.fy, seen_by.cx, seen_by.cy, seen_by.width, seen_by.height)
    return reference.project(means, quats, scales, seen_by.world_to_camera, *lens)


@pytest.mark.parametrize("count", [0, 1, 500])
def test_projection_matches_reference(rng, device, count):
    means, quats, scales, _, _ = gaussians(rng, count, device, torch.float64)
    seen_by = camera(device, torch.float64)
    got = project(means, quats, scales, seen_by)
    want = reference_project(means, quats, scales, seen_by)
    in_front = want[2] > reference.NEAR
    for name, one, other in zip(got._fields[:3], got[:3], want[:3], strict=True):
        assert_close(one[in_front], other[in_front], rtol=1e-10, atol=1e-10, msg=name)
    assert torch.equal(got.radii, want[3])
    assert not got.radii[~in_front].any()


def test_projection_gradients_match_reference(rng, device):
    inputs = [t.requires_grad_() for t in gaussians(rng, 300, device, torch.float64)[:3]]
    seen_by = camera(device, torch.float64)
    results = []
    for op in (project, reference_project):
        means2d, conics, depths, _ = op(*inputs, seen_by)
        weights = (torch.arange(1, 7, dtype=torch.float64) / 7).to(device)
        # Behind the camera nothing is defined.
        loss = torch.cat([means2d, conics, depths[:, None]], dim=1)[depths > 0.2] @ weights
        results.append(torch.autograd.grad(loss.sum(), inputs))
    for name, got, want in zip(["means", "quats", "scales"], *results, strict=True):
        assert want.abs().max() > 0, name
        assert_close(got, want, rtol=1e-9, atol=1e-9, msg=name)


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_colors_match_reference(rng, device, degree):
    means, _, _, _, sh = gaussians(rng, 100, device, torch.float64)
    leaves = [means.requires_grad_(), sh.requires_grad_()]
    position = torch.tensor([0.5, 0.1, -1.0], dtype=torch.float64, device=device)
    results = []
    for op in (spherical_harmonics, reference.spherical_harmonics):
        colors = op(*leaves, position, degree)
        grads = torch.autograd.grad(
            (colors * colors.detach().cos()).sum(), leaves, allow_unused=True
        )
        results.append((colors, *(colors.new_zeros(()) if g is None else g for g in grads)))
    for got, want in zip(*results, strict=True):
        assert_close(got, want.expand_as(got), rtol=1e-10, atol=1e-10)
    assert (results[0][0] == 0).any(), "some colour should be clamped"


def test_gradcheck(rng):
    means, quats, scales, _, sh = gaussians(rng, 3, dtype=torch.float64)
    means = means / 5 + torch.tensor([0.0, 0.0, 3.0])
    leaves = [t.requires_grad_() for t in (means, quats, scales)]
    seen_by = camera(dtype=torch.float64)
    torch.autograd.gradcheck(lambda *inputs: project(*inputs, seen_by)[:3], leaves)
    torch.autograd.gradcheck(
        lambda m, h: spherical_harmonics(m, h, seen_by.position, 3),
        [means, (sh / 10).detach().requires_grad_()],
    )


def test_operators_are_registered_correctly(rng, device):
    means, quats, scales, _, sh = (t.requires_grad_() for t in gaussians(rng, 4, device))
    means.data[:, 2].abs_().add_(1)
    seen_by = camera(device)
    lens = [seen_by.fx, seen_by.fy, seen_by.cx, seen_by.cy]
    torch.library.opcheck(
        torch.ops.refersplat.project.default,
        (means, quats, scales, seen_by.world_to_camera, lens, seen_by.width, seen_by.height),
    )
    torch.library.opcheck(
        torch.ops.refersplat.spherical_harmonics.default, (means, sh, seen_by.position, 3)
    )


def test_a_sphere_ahead_by_hand():
    seen_by = Camera(torch.eye(4), fx=10.0, fy=20.0, cx=8.0, cy=6.0, width=16, height=12)
    ball = project(
        torch.tensor([[1.0, -0.5, 5.0]]),
        torch.tensor([[2.0, 0.0, 0.0, 0.0]]),
        torch.tensor([[0.5, 0.5, 0.5]]),
        seen_by,
    )
    assert_close(ball.means2d, torch.tensor([[10 * 0.2 + 7.5, -20 * 0.1 + 5.5]]))
    assert_close(ball.depths, torch.tensor([5.0]))
    # J = [[2, 0, -0.4], [0, 4, 0.4]] / 1, covariance = 0.25 J J^T + 0.3.
    covariance = torch.tensor([[0.25 * 4.16 + 0.3, -0.04], [-0.04, 0.25 * 16.16 + 0.3]])
    inverse = torch.linalg.inv(covariance)
    assert_close(ball.conics[0], torch.stack([inverse[0, 0], inverse[0, 1], inverse[1, 1]]))
    largest = float(torch.linalg.eigvalsh(covariance)[-1])
    assert int(ball.radii[0]) == math.ceil(3 * math.sqrt(largest))


def test_moving_everything_moves_nothing(rng):
    means, quats, scales, _, sh = gaussians(rng, 50, dtype=torch.float64)
    turn = reference.rotation(torch.randn(1, 4, generator=rng, dtype=torch.float64))[0]
    shift = torch.randn(3, generator=rng, dtype=torch.float64)
    here = camera(dtype=torch.float64)
    there = here.world_to_camera.clone()
    there[:3, :3] = here.world_to_camera[:3, :3] @ turn.T
    there[:3, 3] = here.world_to_camera[:3, 3] - there[:3, :3] @ shift
    moved = Camera(there, here.fx, here.fy, here.cx, here.cy, here.width, here.height)
    # Isotropic, so that the Gaussians' own rotations need not be turned.
    round_scales = scales[:, :1].expand(-1, 3)
    before = project(means, quats, round_scales, here)
    after = project(means @ turn.T + shift, quats, round_scales, moved)
    in_front = before.depths > 0.2
    for one, other in zip(before[:3], after[:3], strict=True):
        assert_close(one[in_front], other[in_front], rtol=1e-8, atol=1e-8)
    flat = sh[:, :1]
    assert_close(
        spherical_harmonics(means, flat, here.position, 0),
        spherical_harmonics(means @ turn.T + shift, flat, moved.position, 0),
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"means": torch.ones(3, 2)}, r"means must have shape \[\*, 3\], got \[3, 2\]"),
        ({"quats": torch.ones(3, 3)}, r"quats must have shape \[3, 4\], got \[3, 3\]"),
        ({"scales": torch.ones(2, 3)}, r"scales must have shape \[3, 3\], got \[2, 3\]"),
        ({"scales": torch.ones(3, 3).double()}, r"scales must match means \(cpu, float32\)"),
    ],
)
def test_refuses_what_does_not_fit(change, message):
    inputs = {"means": torch.ones(3, 3), "quats": torch.ones(3, 4), "scales": torch.ones(3, 3)}
    with pytest.raises(ValueError, match=message):
        project(**(inputs | change), camera=camera())


@pytest.mark.parametrize(
    ("coefficients", "degree", "message"),
    [
        (16, 4, "degree must lie between 0 and 3, got 4"),
        (4, 2, "sh must have at least 9 coefficients for degree 2, got 4"),
    ],
)
def test_refuses_a_degree_without_coefficients(coefficients, degree, message):
    with pytest.raises(ValueError, match=message):
        spherical_harmonics(torch.ones(3, 3), torch.ones(3, coefficients, 3), torch.ones(3), degree)
