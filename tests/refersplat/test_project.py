"""Projection and spherical harmonics: the compiled ops against their meaning."""

import dataclasses
import math

import pytest
import torch
from torch.testing import assert_close

from refersplat.cameras import Camera
from refersplat.ops import project, rasterize, reference, spherical_harmonics

GRADIENT_NAMES = ["means", "quats", "scales", "world_to_camera"]


def camera(width=64, height=48, cx=None, cy=None, dtype=torch.float32):
    view = torch.eye(4, dtype=dtype)
    cos, sin = math.cos(0.3), math.sin(0.3)
    view[:3, :3] = torch.tensor([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]], dtype=dtype)
    view[:3, 3] = torch.tensor([0.1, -0.2, 0.3], dtype=dtype)
    middle = (width / 2 if cx is None else cx, height / 2 if cy is None else cy)
    return Camera(view, 50.0, 45.0, *middle, width, height)


def random_gaussians(rng, count, dtype=torch.float32, device="cpu"):
    """Some behind the camera, some outside of the image, where the Jacobian is clamped."""
    means = 3 * torch.randn(count, 3, generator=rng, dtype=dtype) + torch.tensor([0.0, 0, 3])
    quats = 2 * torch.randn(count, 4, generator=rng, dtype=dtype)
    scales = 0.01 + 0.5 * torch.rand(count, 3, generator=rng, dtype=dtype)
    return [t.to(dtype).to(device) for t in (means, quats, scales)]


def reference_project(means, quats, scales, camera):
    lens, size = (camera.fx, camera.fy, camera.cx, camera.cy), (camera.width, camera.height)
    return reference.project(means, quats, scales, camera.world_to_camera.to(means), lens, *size)


@pytest.mark.parametrize(
    ("count", "centre"),
    [(0, (None, None)), (1, (10.0, 60.0)), (5_000, (None, None)), (5_000, (10.0, 60.0))],
)
def test_projection_matches_reference(rng, device, count, centre):
    gaussians = random_gaussians(rng, count, device=device)
    view = camera(cx=centre[0], cy=centre[1]).to(device)
    means2d, conics, depths, radii = project(*gaussians, view)
    expected = reference_project(*gaussians, view)
    seen = depths > 0.2
    # Some tens of roundings, the largest where depths are near 0.2; worst of 40 seeds 1.1e-5.
    assert_close(means2d[seen], expected[0][seen], rtol=1e-5, atol=5e-5)
    # A thin Gaussian's determinant loses digits to the product it is the rest of: worst 1e-4.
    assert_close(conics[seen], expected[1][seen], rtol=1e-3, atol=1e-4)
    assert_close(depths, expected[2], rtol=1e-6, atol=1e-6)
    assert radii.dtype == torch.int32
    # A radius is rounded up: what lies at an integer may fall to either side.
    assert ((radii - expected[3]).abs() <= 1).all()
    assert ((radii != expected[3]).sum() <= count / 1000).all()


@pytest.mark.parametrize("centre", [(None, None), (10.0, 60.0)])
def test_projection_gradients_match_reference(rng, device, centre):
    gaussians = random_gaussians(rng, 500, torch.float64, device)
    view = camera(cx=centre[0], cy=centre[1], dtype=torch.float64).to(device)
    leaves = [tensor.requires_grad_() for tensor in (*gaussians, view.world_to_camera)]
    seen = (project(*gaussians, view).depths > 0.2).double()
    weights = [
        torch.randn(500, *shape, generator=rng, dtype=torch.float64) for shape in [(2,), (3,), ()]
    ]
    weights = [w.to(device) * seen.view(-1, *[1] * (w.dim() - 1)) for w in weights]
    grads = [
        torch.autograd.grad(op(*gaussians, view)[:3], leaves, weights)
        for op in (project, reference_project)
    ]
    for name, got, want in zip(GRADIENT_NAMES, *grads, strict=True):
        assert want.abs().max() > 0, name
        assert_close(got, want, rtol=1e-9, atol=1e-9, msg=lambda m, name=name: f"{name}: {m}")


def test_projection_passes_gradcheck(rng):
    view = camera(dtype=torch.float64)
    means = torch.tensor([[0.2, 0.1, 3.0], [4.0, -3.0, 2.0]], dtype=torch.float64)
    _, quats, scales = random_gaussians(rng, 2, torch.float64)
    inputs = [t.requires_grad_() for t in (means, quats, scales, view.world_to_camera[:3].clone())]
    bottom = view.world_to_camera[3:]

    def outputs(means, quats, scales, rows):
        posed = dataclasses.replace(view, world_to_camera=torch.cat([rows, bottom]))
        return project(means, quats, scales, posed)[:3]

    assert torch.autograd.gradcheck(outputs, inputs)


def test_a_gaussian_on_the_axis():
    view = Camera(torch.eye(4), 100.0, 50.0, 32.0, 24.0, 64, 48)
    means = torch.tensor([[0.0, 0.0, 2.0]])
    quats = torch.tensor([[3.0, 0.0, 0.0, 0.0]])  # any length
    scales = torch.tensor([[0.1, 0.2, 5.0]])
    means2d, conics, depths, radii = project(means, quats, scales, view)
    # The image's centre lies between pixels 31 and 32; standard deviations are 5 in both axes.
    assert_close(means2d, torch.tensor([[31.5, 23.5]]))
    assert_close(conics, torch.tensor([[1 / 25.3, 0.0, 1 / 25.3]]))
    assert_close(depths, torch.tensor([2.0]))
    # The two variances are told apart by at least sqrt(0.1), as in Kerbl et al.
    assert radii.tolist() == [math.ceil(3 * math.sqrt(25.3 + math.sqrt(0.1)))]


def test_an_off_centre_principal_point_shifts_the_image():
    rng = torch.Generator().manual_seed(3)
    means, quats, scales = random_gaussians(rng, 50)
    means[:, 2] = means[:, 2].abs() + 2
    centred, shifted = camera(), camera(cx=32 + 3.0, cy=24 - 2.0)
    got, want = project(means, quats, scales, shifted), project(means, quats, scales, centred)
    front = want.depths > 0.2
    assert_close(
        got.means2d[front], want.means2d[front] + torch.tensor([3.0, -2.0]), rtol=0, atol=2e-4
    )
    # Both cameras see what is near the axis with the same Jacobian.
    near = front & ((want.means2d - torch.tensor([31.5, 23.5])).abs() < 20).all(dim=1)
    assert near.any()
    assert_close(got.conics[near], want.conics[near])


def test_what_is_behind_or_beside_is_culled():
    view = Camera(torch.eye(4), 50.0, 50.0, 32.0, 24.0, 64, 48)
    means = torch.tensor([[0.0, 0, 3], [0, 0, 0.2], [0, 0, -3], [50, 0, 3], [0, 0, 0.21]])
    quats, scales = torch.tensor([[1.0, 0, 0, 0]]).expand(5, 4), torch.full((5, 3), 0.1)
    projected = project(means, quats, scales, view)
    assert (projected.radii > 0).tolist() == [True, False, False, False, True]
    assert all(tensor.isfinite().all() for tensor in projected)


def test_colors_of_degree_zero_do_not_depend_on_direction(rng):
    sh = torch.randn(20, 1, 3, generator=rng)
    for _ in range(3):
        means, position = torch.randn(20, 3, generator=rng), torch.randn(3, generator=rng)
        want = (0.28209479177387814 * sh[:, 0] + 0.5).clamp_min(0)
        assert_close(spherical_harmonics(means, sh, position, 0), want)


@pytest.mark.parametrize(
    ("degree", "count"), [(0, 3_000), (1, 3_000), (2, 3_000), (3, 3_000), (2, 0), (3, 1)]
)
def test_colors_match_reference(rng, device, degree, count):
    means = torch.randn(count, 3, generator=rng).to(device)
    sh = torch.randn(count, 16, 3, generator=rng).to(device)
    position = torch.tensor([0.1, 0.2, -0.3], device=device)
    got = spherical_harmonics(means, sh, position, degree)
    # 16 terms of size 1 in float32; measured worst 1.5e-6.
    assert_close(
        got, reference.spherical_harmonics(means, sh, position, degree), rtol=1e-5, atol=8e-6
    )


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_color_gradients_match_reference(rng, device, degree):
    means = torch.randn(200, 3, generator=rng, dtype=torch.float64).to(device).requires_grad_()
    sh = torch.randn(200, 16, 3, generator=rng, dtype=torch.float64).to(device).requires_grad_()
    position = torch.tensor([0.1, 0.2, -0.3], device=device, dtype=torch.float64)
    weights = torch.randn(200, 3, generator=rng, dtype=torch.float64).to(device)
    (got_means, got_sh), (want_means, want_sh) = (
        torch.autograd.grad(
            op(means, sh, position, degree), (means, sh), weights, materialize_grads=True
        )
        for op in (spherical_harmonics, reference.spherical_harmonics)
    )
    assert_close(got_means, want_means, rtol=1e-9, atol=1e-12)
    assert_close(got_sh, want_sh, rtol=1e-9, atol=1e-12)
    assert (got_sh[:, (degree + 1) ** 2 :] == 0).all()


def test_colors_pass_gradcheck(rng):
    means = torch.randn(3, 3, generator=rng, dtype=torch.float64, requires_grad=True)
    sh = 0.1 * torch.randn(3, 16, 3, generator=rng, dtype=torch.float64)
    position = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda *inputs: spherical_harmonics(*inputs, 3), (means, sh.requires_grad_(), position)
    )


def test_operators_are_registered_correctly(rng, device):
    ops = torch.ops.refersplat
    gaussians = random_gaussians(rng, 5, device=device)
    view = camera().to(device)
    pose = (view.world_to_camera, [view.fx, view.fy, view.cx, view.cy], view.width, view.height)
    torch.library.opcheck(ops.project.default, (*gaussians, *pose))
    grads = [torch.randn(5, *shape, generator=rng).to(device) for shape in [(2,), (3,), ()]]
    for has_view in (True, False):
        arguments = (*gaussians, *pose, *grads, has_view)
        torch.library.opcheck(ops.project_backward.default, arguments)

    sh = torch.randn(5, 16, 3, generator=rng).to(device)
    position = torch.zeros(3, device=device)
    arguments = (gaussians[0], sh, position, 3)
    torch.library.opcheck(ops.spherical_harmonics.default, arguments)
    colors = spherical_harmonics(*arguments)
    backward = (*arguments, colors, torch.ones_like(colors))
    torch.library.opcheck(ops.spherical_harmonics_backward.default, backward)


def test_results_do_not_depend_on_the_number_of_threads(rng):
    gaussians = [tensor.requires_grad_() for tensor in random_gaussians(rng, 10_000)]
    sh = torch.randn(10_000, 16, 3, generator=rng)

    def compute():
        projected = project(*gaussians, camera())
        colors = spherical_harmonics(gaussians[0], sh, torch.zeros(3), 3)
        loss = sum(tensor.square().sum() for tensor in (projected.means2d, colors))
        return *projected, colors, *torch.autograd.grad(loss, gaussians, materialize_grads=True)

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = compute()
        torch.set_num_threads(3)
        together = compute()
    finally:
        torch.set_num_threads(before)
    for one, many in zip(alone, together, strict=True):
        assert torch.equal(one, many)


def test_names_what_does_not_fit(rng):
    means, quats, scales = random_gaussians(rng, 3)
    with pytest.raises(ValueError, match=r"quats must have shape \[3, 4\], got \[2, 4\]"):
        project(means, quats[:2], scales, camera())
    with pytest.raises(
        ValueError, match=r"scales must match means \(cpu, float32\), got cpu, float64"
    ):
        project(means, quats, scales.double(), camera())
    sh = torch.zeros(3, 4, 3)
    with pytest.raises(
        ValueError, match="sh must have at least 9 coefficients for degree 2, got 4"
    ):
        spherical_harmonics(means, sh, torch.zeros(3), 2)
    with pytest.raises(ValueError, match="degree must lie between 0 and 3, got 4"):
        spherical_harmonics(means, sh, torch.zeros(3), 4)
    with pytest.raises(ValueError, match=r"camera_position must have shape \[3\], got \[4\]"):
        spherical_harmonics(means, sh, torch.zeros(4), 0)
    with pytest.raises(ValueError, match="means must be float32 or float64, got bfloat16"):
        project(means.bfloat16(), quats.bfloat16(), scales.bfloat16(), camera())


@pytest.mark.parametrize(("thin", "length"), [(0.001, 10.0), (0.001, 1000.0), (0.05, 1000.0)])
def test_needles_in_float32_look_as_in_float64(rng, thin, length):
    """Their determinant is the difference of numbers 1e10 times as large."""
    means, quats = torch.rand(8, 3, generator=rng) - 0.5, torch.randn(8, 4, generator=rng)
    means[:, 2] += 3
    scales = torch.tensor([length, thin, thin]).repeat(8, 1)
    shares = []
    for dtype in (torch.float32, torch.float64):
        camera = Camera(torch.eye(4, dtype=dtype), 300.0, 300.0, 40.0, 30.0, 80, 60)
        projected = project(means.to(dtype), quats.to(dtype), scales.to(dtype), camera)
        means2d, conics, depths, _ = projected
        assert (conics[:, 0] * conics[:, 2] > conics[:, 1] ** 2).all()
        opacity, white = torch.full((1,), 0.9, dtype=dtype), torch.ones(1, 1, dtype=dtype)
        left = [
            rasterize(*(t[i : i + 1] for t in (means2d, conics, depths)), opacity, white, 60, 80)[1]
            for i in range(8)
        ]
        shares.append((1 - torch.stack(left)).mean(dim=(1, 2)).double())
    assert (shares[1] > 0.002).any()
    # Rounding the form changes alpha by some percent along the needle; before, most vanished.
    assert_close(shares[0], shares[1], rtol=0.05, atol=2e-4)
