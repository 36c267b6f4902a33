"""The rasterizer, called the way 3D Gaussian Splatting repositories call it."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch.testing import assert_close

from diff_gaussian_rasterization import (
    GaussianRasterizationSettings,
    GaussianRasterizer,
    SparseGaussianAdam,
    set_outputs,
)
from refersplat.ops import reference
from tests.errors import raises

WIDTH, HEIGHT, COUNT = 36, 28, 30


def make_viewpoint(dtype=torch.float32, principal=(0.0, 0.0)):
    """A camera with the attributes of a 3DGS repository's, its principal point moved (in NDC)."""
    angle = 0.3
    world_to_camera = torch.eye(4, dtype=dtype)
    world_to_camera[0, 0] = world_to_camera[2, 2] = math.cos(angle)
    world_to_camera[0, 2], world_to_camera[2, 0] = math.sin(angle), -math.sin(angle)
    world_to_camera[:3, 3] = torch.tensor([0.1, -0.2, 4.0], dtype=dtype)
    fov_x, fov_y, near, far = 0.9, 0.7, 0.01, 100.0
    projection = torch.zeros(4, 4, dtype=dtype)
    projection[0, 0], projection[0, 2] = 1 / math.tan(fov_x / 2), principal[0]
    projection[1, 1], projection[1, 2] = 1 / math.tan(fov_y / 2), principal[1]
    projection[2, 2], projection[2, 3] = far / (far - near), -far * near / (far - near)
    projection[3, 2] = 1
    return SimpleNamespace(
        FoVx=fov_x,
        FoVy=fov_y,
        image_width=WIDTH,
        image_height=HEIGHT,
        world_view_transform=world_to_camera.T,
        full_proj_transform=world_to_camera.T @ projection.T,
        camera_center=torch.linalg.inv(world_to_camera)[:3, 3],
    )


def make_gaussians(rng, dtype=torch.float32):
    def normal(*size):
        return torch.randn(*size, generator=rng, dtype=dtype)

    gaussians = SimpleNamespace(
        get_xyz=normal(COUNT, 3),
        get_opacity=torch.rand(COUNT, 1, generator=rng, dtype=dtype) * 0.9,
        get_scaling=torch.rand(COUNT, 3, generator=rng, dtype=dtype) * 0.4 + 0.02,
        get_rotation=torch.nn.functional.normalize(normal(COUNT, 4), dim=1),
        get_features=normal(COUNT, 16, 3) * 0.3,
        get_language_feature=normal(COUNT, 5),
    )
    gaussians.get_xyz[0] = torch.tensor([0.0, 0.0, -50.0])  # behind the camera
    for tensor in vars(gaussians).values():
        tensor.requires_grad_()
    return gaussians


def make_settings(viewpoint, bg_color, scaling_modifier=1.0, **family):
    return GaussianRasterizationSettings(
        image_height=int(viewpoint.image_height),
        image_width=int(viewpoint.image_width),
        tanfovx=math.tan(viewpoint.FoVx * 0.5),
        tanfovy=math.tan(viewpoint.FoVy * 0.5),
        bg=bg_color,
        scale_modifier=scaling_modifier,
        viewmatrix=viewpoint.world_view_transform,
        projmatrix=viewpoint.full_proj_transform,
        sh_degree=3,
        campos=viewpoint.camera_center,
        prefiltered=False,
        debug=False,
        **family,
    )


def call(pc, settings, **changes):
    """Calls the rasterizer as the ``render`` of other repositories does."""
    screenspace_points = torch.zeros_like(pc.get_xyz, requires_grad=True) + 0
    screenspace_points.retain_grad()
    arguments = {
        "means3D": pc.get_xyz,
        "means2D": screenspace_points,
        "shs": pc.get_features,
        "colors_precomp": None,
        "opacities": pc.get_opacity,
        "scales": pc.get_scaling,
        "rotations": pc.get_rotation,
        "cov3D_precomp": None,
    }
    rasterizer = GaussianRasterizer(raster_settings=settings)
    return rasterizer(**{**arguments, **changes}), screenspace_points


def expected(pc, viewpoint, values=None, principal=(0.0, 0.0)):
    """Image [C, H, W], transmittance [H, W] and screen positions [N, 2] by the reference."""
    projected = reference.project(
        pc.get_xyz,
        pc.get_rotation,
        pc.get_scaling,
        viewpoint.world_view_transform.T,
        [
            WIDTH / (2 * math.tan(viewpoint.FoVx / 2)),
            HEIGHT / (2 * math.tan(viewpoint.FoVy / 2)),
            (principal[0] + 1) * WIDTH / 2,
            (principal[1] + 1) * HEIGHT / 2,
        ],
        WIDTH,
        HEIGHT,
    )
    means2d, conics, depths, radii = projected
    if values is None:
        values = reference.spherical_harmonics(
            pc.get_xyz, pc.get_features, viewpoint.camera_center, 3
        )
    image, left = reference.rasterize(
        means2d, conics, depths, pc.get_opacity[:, 0], values, HEIGHT, WIDTH
    )
    return image, left, means2d, radii


def covariances(pc):
    """[N, 6], as a repository with ``compute_cov3D_python`` hands them over."""
    factor = reference.rotation(pc.get_rotation) * pc.get_scaling[:, None]
    full = factor @ factor.transpose(1, 2)
    return full[:, [0, 0, 0, 1, 1, 2], [0, 1, 2, 1, 2, 2]]


@pytest.mark.parametrize("principal", [(0.0, 0.0), (0.2, -0.1)])
def test_color_and_radii(rng, principal):
    pc, viewpoint = make_gaussians(rng), make_viewpoint(principal=principal)
    bg_color = torch.tensor([0.2, 0.5, 0.9])
    (rendered_image, radii), _ = call(pc, make_settings(viewpoint, bg_color))
    image, left, _, expected_radii = expected(pc, viewpoint, principal=principal)
    # float32 sums of 30 terms; measured worst 6e-7.
    assert_close(rendered_image, image + left * bg_color[:, None, None], rtol=1e-5, atol=3e-6)
    assert torch.equal(radii, expected_radii)
    assert radii[0] == 0


def test_screen_gradient_for_densification(rng):
    pc, viewpoint = make_gaussians(rng, torch.float64), make_viewpoint(torch.float64)
    weights = torch.randn(3, HEIGHT, WIDTH, generator=rng, dtype=torch.float64)
    settings = make_settings(viewpoint, torch.zeros(3, dtype=torch.float64))
    (rendered_image, radii), viewspace_points = call(pc, settings)
    (rendered_image * weights).sum().backward()

    image, _, means2d, _ = expected(pc, viewpoint)
    (by_pixel,) = torch.autograd.grad((image * weights).sum(), means2d)
    want = torch.linalg.vector_norm(by_pixel * torch.tensor([WIDTH / 2, HEIGHT / 2]), dim=1)
    norms = torch.norm(viewspace_points.grad[radii > 0, :2], dim=-1)
    assert want.max() > 0
    # float64; measured worst 2e-14.
    assert_close(norms, want[radii > 0], rtol=1e-9, atol=1e-11)
    assert (viewspace_points.grad[radii == 0] == 0).all()
    assert (viewspace_points.grad[:, 2] == 0).all()


def test_values_of_means2d_do_not_count(rng):
    pc, settings = make_gaussians(rng), make_settings(make_viewpoint(), torch.zeros(3))
    (image, _), _ = call(pc, settings)
    (moved, _), _ = call(pc, settings, means2D=torch.ones_like(pc.get_xyz))
    assert torch.equal(image, moved)


def test_every_parameter_is_trained(rng):
    pc, settings = make_gaussians(rng), make_settings(make_viewpoint(), torch.zeros(3))
    (image, features, _), _ = call(pc, settings, language_feature_precomp=pc.get_language_feature)
    (image.square().sum() + features.square().sum()).backward()
    for name, tensor in vars(pc).items():
        assert tensor.grad.isfinite().all(), name
        assert tensor.grad.abs().max() > 0, name


@pytest.mark.parametrize("family", [{}, {"include_feature": True}])
def test_language_features(rng, family):
    pc, viewpoint = make_gaussians(rng), make_viewpoint()
    settings = make_settings(viewpoint, torch.ones(3), **family)
    (rendered_image, language_feature_image, radii), _ = call(
        pc, settings, language_feature_precomp=pc.get_language_feature
    )
    assert rendered_image.shape == (3, HEIGHT, WIDTH)
    assert radii.shape == (COUNT,)
    want, *_ = expected(pc, viewpoint, pc.get_language_feature)
    assert_close(language_feature_image, want, rtol=1e-5, atol=5e-6)  # measured worst 1e-6


def test_without_language_features_langsplat_still_unpacks_three(rng):
    settings = make_settings(make_viewpoint(), torch.zeros(3), include_feature=False)
    (image, nothing, radii), _ = call(
        make_gaussians(rng), settings, language_feature_precomp=torch.zeros(1)
    )
    assert (image.shape, nothing.tolist(), radii.shape) == ((3, HEIGHT, WIDTH), [0], (COUNT,))


def test_given_colors_of_any_number(rng):
    pc, viewpoint = make_gaussians(rng), make_viewpoint()
    bg_color = torch.arange(5.0)
    (image, _), _ = call(
        pc, make_settings(viewpoint, bg_color), shs=None, colors_precomp=pc.get_language_feature
    )
    want, left, *_ = expected(pc, viewpoint, pc.get_language_feature)
    assert_close(image, want + left * bg_color[:, None, None], rtol=1e-5, atol=5e-6)


def test_scale_modifier(rng):
    pc, viewpoint = make_gaussians(rng), make_viewpoint()
    (shrunk, _), _ = call(pc, make_settings(viewpoint, torch.zeros(3), 0.5))
    (image, _), _ = call(pc, make_settings(viewpoint, torch.zeros(3)), scales=pc.get_scaling * 0.5)
    assert torch.equal(shrunk, image)


def test_given_covariances(rng):
    pc, viewpoint = make_gaussians(rng, torch.float64), make_viewpoint(torch.float64)
    settings = make_settings(viewpoint, torch.zeros(3, dtype=torch.float64))
    weights = torch.randn(3, HEIGHT, WIDTH, generator=rng, dtype=torch.float64)
    given = {"scales": None, "rotations": None, "cov3D_precomp": covariances(pc)}
    parameters = [pc.get_xyz, pc.get_scaling, pc.get_rotation]
    results = []
    for changes in ({}, given):
        (image, radii), _ = call(pc, settings, **changes)
        results.append((image, radii, torch.autograd.grad((image * weights).sum(), parameters)))
    (image, radii, gradients), (other_image, other_radii, other_gradients) = results
    # The same sums in another order, in float64; measured worst 1e-12.
    assert_close(other_image, image, rtol=1e-8, atol=1e-10)
    assert_close(other_gradients, gradients, rtol=1e-8, atol=1e-10)
    assert torch.equal(other_radii, radii)


def test_given_covariances_of_spheres_have_gradients(rng):
    pc = make_gaussians(rng)
    spheres = torch.tensor([0.01, 0, 0, 0.01, 0, 0.01]).repeat(COUNT, 1).requires_grad_()
    (image, _), _ = call(
        pc,
        make_settings(make_viewpoint(), torch.zeros(3)),
        scales=None,
        rotations=None,
        cov3D_precomp=spheres,
    )
    image.sum().backward()
    assert spheres.grad.isfinite().all()
    assert spheres.grad.abs().max() > 0


def test_antialiasing_keeps_the_light_of_small_gaussians():
    viewpoint = make_viewpoint()
    pixel = 4 * 2 * math.tan(viewpoint.FoVx / 2) / WIDTH  # in the world, at the middle's depth
    sigma = 0.1  # pixels
    pc = SimpleNamespace(
        get_xyz=torch.zeros(1, 3),
        get_opacity=torch.ones(1, 1) * 0.9,
        get_scaling=torch.full((1, 3), sigma * pixel),
        get_rotation=torch.tensor([[1.0, 0, 0, 0]]),
        get_features=torch.ones(1, 16, 3),
    )
    sums = {}
    for antialiasing in (False, True):
        settings = make_settings(viewpoint, torch.zeros(3), antialiasing=antialiasing)
        (image, radii, inverse_depth), _ = call(pc, settings)
        sums[antialiasing] = image.sum()
        assert inverse_depth.shape == (1, HEIGHT, WIDTH)
    # The footprint's variances grow from 0.01 to 0.31 along both axes (the vertical differs a
    # little, as does what falls below 1/255).
    assert 0.02 < sums[True] / sums[False] < 0.05
    assert radii[0] > 0


def test_inverse_depth_of_a_wall():
    pc = SimpleNamespace(
        get_xyz=torch.zeros(1, 3),
        get_opacity=torch.full((1, 1), 0.99),
        get_scaling=torch.full((1, 3), 50.0),
        get_rotation=torch.tensor([[1.0, 0, 0, 0]]),
        get_features=torch.ones(1, 16, 3),
    )
    settings = make_settings(make_viewpoint(), torch.zeros(3), antialiasing=False)
    (_, _, inverse_depth), _ = call(pc, settings)
    assert_close(inverse_depth[0, HEIGHT // 2, WIDTH // 2], torch.tensor(0.99 / 4))


@pytest.mark.parametrize("antialiasing", [False, True])
def test_what_reaches_the_image_by_less_than_its_radius(antialiasing):
    """Off the image by three standard deviations and a bit, where more than 1/255 is left."""
    viewpoint = make_viewpoint()
    right, _, forward = viewpoint.world_view_transform[:3, :3].T
    middle = viewpoint.camera_center + 4 * forward
    half_width = 4 * math.tan(viewpoint.FoVx / 2)
    pc = SimpleNamespace(
        get_xyz=(middle + (half_width + 3.8) * right)[None],  # seen aslant it is wider
        get_opacity=torch.full((1, 1), 0.99),
        get_scaling=torch.ones(1, 3),
        get_rotation=torch.tensor([[1.0, 0, 0, 0]]),
        get_features=None,
    )
    settings = make_settings(viewpoint, torch.zeros(1), antialiasing=antialiasing)
    white = {"shs": None, "colors_precomp": torch.ones(1, 1)}
    (image, radii, inverse_depth), _ = call(pc, settings, **white)
    assert radii.tolist() == [0]
    assert image.max() > 1 / 255
    assert_close(inverse_depth, image / 4)


def test_mark_visible():
    viewpoint = make_viewpoint()
    rasterizer = GaussianRasterizer(make_settings(viewpoint, torch.zeros(3)))
    axis = viewpoint.world_view_transform[:3, 2]  # the viewing direction, in the world
    points = viewpoint.camera_center + torch.tensor([[0.19], [0.21], [-1.0]]) * axis
    assert rasterizer.markVisible(points).tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"shs": None}, ("shs", "colors_precomp", "neither")),
        (
            {"colors_precomp": torch.zeros(COUNT, 3)},
            ("shs", "colors_precomp", "both"),
        ),
        ({"scales": None}, ("scales", "rotations", "cov3D_precomp", "neither")),
        ({"rotations": None}, ("scales", "rotations")),
        ({"opacities": torch.zeros(9)}, ("opacities", "[30, 1]", "[9]")),
        (
            {"scales": None, "rotations": None, "cov3D_precomp": torch.zeros(COUNT, 9)},
            ("cov3D_precomp", "[30, 6]", "[30, 9]"),
        ),
        (
            {"language_feature_precomp": torch.zeros(4, 2)},
            ("language_feature_precomp", "[30, *]", "[4, 2]"),
        ),
    ],
)
def test_errors_name_the_argument(rng, changes, names):
    with raises(ValueError, *names):
        call(make_gaussians(rng), make_settings(make_viewpoint(), torch.zeros(3)), **changes)


def test_takes_what_the_original_takes(rng):
    """A batch of one matrix, opacities without a second dimension, a background of doubles."""
    viewpoint, gaussians = make_viewpoint(), make_gaussians(rng)
    (color, *_), _ = call(gaussians, make_settings(viewpoint, torch.zeros(3)))
    viewpoint.world_view_transform = viewpoint.world_view_transform[None]
    viewpoint.full_proj_transform = viewpoint.full_proj_transform[None]
    settings = make_settings(viewpoint, torch.zeros(3, dtype=torch.float64))
    (other, *_), _ = call(gaussians, settings, opacities=gaussians.get_opacity[:, 0])
    assert torch.equal(color, other)
    assert other.dtype == torch.float32


@pytest.fixture
def outputs():
    """Sets the outputs for one test."""
    yield set_outputs
    set_outputs()


def test_forks_with_depth_and_alpha(rng, outputs):
    pc, viewpoint = make_gaussians(rng), make_viewpoint()
    settings = make_settings(viewpoint, torch.zeros(3))
    (color, radii), _ = call(pc, settings)
    outputs("color", "radii", "depth", "alpha")
    (same, same_radii, depth, alpha), _ = call(pc, settings)
    assert torch.equal(same_radii, radii)
    depths = pc.get_xyz @ viewpoint.world_view_transform[:3, 2] + 4.0
    want, left, *_ = expected(pc, viewpoint, depths[:, None])
    assert_close(same, color, rtol=1e-5, atol=3e-6)
    assert_close(depth, want, rtol=1e-5, atol=1e-5)  # depths up to 7; measured worst 2e-6
    assert_close(alpha, 1 - left[None], rtol=1e-5, atol=3e-6)
    outputs("color", "depth", "radii")
    assert torch.equal(call(pc, settings)[0][1], depth)
    with raises(ValueError, "outputs", "'deep'", "alpha"):
        outputs("deep")


def test_features_of_other_forks(rng):
    pc, settings = make_gaussians(rng), make_settings(make_viewpoint(), torch.zeros(3))
    feature = pc.get_language_feature
    (color, want, radii), _ = call(pc, settings, language_feature_precomp=feature)
    (_, features, _, depth), _ = call(pc, settings, semantic_feature=feature[:, None])
    (same, same_radii, objects), _ = call(pc, settings, sh_objs=feature[:, None])
    assert torch.equal(features, want)
    assert torch.equal(objects, want)
    assert torch.equal(same, color)
    assert torch.equal(same_radii, radii)
    assert depth.shape == (1, HEIGHT, WIDTH)


def test_harmonics_in_two_parts(rng):
    pc, settings = make_gaussians(rng), make_settings(make_viewpoint(), torch.zeros(3))
    (color, _), _ = call(pc, settings)
    parts = {"dc": pc.get_features[:, :1], "shs": pc.get_features[:, 1:]}
    assert torch.equal(call(pc, settings, **parts)[0][0], color)


def test_arguments_in_the_forms_that_circulate(rng):
    pc, viewpoint = make_gaussians(rng), make_viewpoint()
    settings = make_settings(viewpoint, torch.ones(3))
    (color, radii), _ = call(pc, settings)
    batched = {name: getattr(settings, name)[None] for name in ("viewmatrix", "campos")}
    others = settings._replace(bg=[1, 1, 1], **batched)
    (same, _), _ = call(pc, others, means2D=None)
    assert torch.equal(same, color)
    assert GaussianRasterizer(others).markVisible(pc.get_xyz).sum() == COUNT - 1
    shape = {"means3D": pc.get_xyz, "scales": pc.get_scaling, "rotations": pc.get_rotation}
    assert torch.equal(GaussianRasterizer(settings).visible_filter(**shape), radii)
    half = {name: getattr(pc, name).half() for name in vars(pc)}
    (coarse, _), _ = call(SimpleNamespace(**half), settings)
    assert coarse.dtype == torch.float32
    assert_close(coarse, color, rtol=0, atol=0.03)  # half's rounding; measured worst 0.007


@pytest.mark.parametrize("count", [1, 8])
def test_one_gray_serves_any_number_of_colors(rng, count):
    pc, viewpoint = make_gaussians(rng), make_viewpoint()
    given = {"shs": None, "colors_precomp": torch.rand(COUNT, count, generator=rng)}
    (color, _), _ = call(pc, make_settings(viewpoint, torch.full((3,), 0.5)), **given)
    want, left, *_ = expected(pc, viewpoint, given["colors_precomp"])
    assert_close(color, want + 0.5 * left, rtol=1e-5, atol=5e-6)
    with raises(ValueError, "bg", f"{count} colours"):
        call(pc, make_settings(viewpoint, torch.tensor([0, 0.5, 1])), **given)


def test_parallel_projection(rng):
    """Of a small ball: the same size at any depth, where the matrix puts it."""
    viewpoint, sigma = make_viewpoint(), 0.5
    world_to_camera = viewpoint.world_view_transform.T
    projection = torch.diag(torch.tensor([0.25, 0.25, 0.1, 1]))
    projection[0, 3] = 0.5
    viewpoint.full_proj_transform = viewpoint.world_view_transform @ projection.T
    images = []
    for depth in (2.0, 20.0):
        local = torch.tensor([-1.0, 0.5, depth, 1.0])
        pc = SimpleNamespace(
            get_xyz=(torch.linalg.inv(world_to_camera) @ local)[None, :3].requires_grad_(),
            get_opacity=torch.full((1, 1), 0.5),
            get_scaling=torch.full((1, 3), sigma),
            get_rotation=torch.tensor([[1.0, 0, 0, 0]]),
            get_features=torch.ones(1, 16, 3),
        )
        settings = make_settings(viewpoint, torch.zeros(1))
        white = {"shs": None, "colors_precomp": torch.ones(1, 1)}
        (image, _), _ = call(pc, settings, **white)
        image.sum().backward()
        assert pc.get_xyz.grad.isfinite().all()
        images.append(image.detach()[0])
    assert_close(*images, rtol=1e-4, atol=1e-4)
    u, v = (0.25 * -1 + 0.5 + 1) * WIDTH / 2 - 0.5, (0.25 * 0.5 + 1) * HEIGHT / 2 - 0.5
    x, y = torch.arange(WIDTH), torch.arange(HEIGHT)[:, None]
    sides = [(sigma * 0.25 * side / 2) ** 2 + 0.3 for side in (WIDTH, HEIGHT)]
    want = 0.5 * torch.exp(-((x - u) ** 2 / sides[0] + (y - v) ** 2 / sides[1]) / 2)
    assert_close(images[0], want.where(want >= 1 / 255, 0), rtol=1e-3, atol=2e-3)


def test_sparse_adam_moves_what_is_visible(rng):
    parameter = torch.nn.Parameter(torch.zeros(4, 3))
    optimizer = SparseGaussianAdam([{"params": [parameter], "name": "xyz"}], lr=0.1, eps=1e-15)
    parameter.grad = torch.tensor([[1.0], [2], [3], [0]]).expand(4, 3).clone()
    visibility = torch.tensor([True, False, True, True])
    optimizer.step(visibility, 4)
    step = 0.1 * 0.1 / 0.001**0.5  # first moment over the root of the second, uncorrected
    want = torch.tensor([[-step], [0], [-step], [0]]).expand(4, 3)
    assert_close(parameter.detach(), want, rtol=1e-5, atol=0)
    assert (optimizer.state[parameter]["exp_avg"][1] == 0).all()
    with raises(ValueError, "visibility", "[4]", "'xyz'", "[3]"):
        optimizer.step(torch.ones(3), 3)
