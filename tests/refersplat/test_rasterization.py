"""The call with gsplat's arguments, against gsplat's arithmetic written out pixel by pixel."""

import math

import pytest
import torch
from torch.testing import assert_close

import refersplat
from refersplat.ops import reference
from tests.refersplat.splats import gaussians

HEIGHT, WIDTH, CAMERAS = 19, 23, 2
NAMES = ["means", "quats", "scales", "opacities", "colors", "viewmats"]


def scene(rng, count, *, degree=None, dtype=torch.float64):
    """Arguments up to Ks: Gaussians around a point, and cameras that look at it from two sides."""
    means, quats, scales, opacities, sh = gaussians(rng, count, dtype=dtype)
    means = means - torch.tensor([0.0, 0.0, 3.0])
    viewmats = torch.eye(4, dtype=dtype).repeat(CAMERAS, 1, 1)
    for view, angle in zip(viewmats, (0.3, -0.5), strict=True):
        sin, cos = math.sin(angle), math.cos(angle)
        view[:3, :3] = torch.tensor([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]])
        view[:3, 3] = torch.tensor([0.1, -0.2, 3.0])
    Ks = torch.tensor([[20.0, 0, 11.0], [0, 22.0, 9.0], [0, 0, 1]], dtype=dtype)
    colors = sh[:, 0] if degree is None else sh[:, : (degree + 1) ** 2]
    return [means, quats, scales, 0.9 * opacities, colors, viewmats, Ks.repeat(CAMERAS, 1, 1)]


def by_definition(means, quats, scales, opacities, values, view, K, near):
    """An image [H, W, X] and alpha [H, W] by gsplat's conventions: pixel centres at .5."""
    rotation, translation = view[:3, :3], view[:3, 3]
    x, y, z = (means @ rotation.T + translation).unbind(dim=1)
    (fx, _, cx), (_, fy, cy), _ = K.tolist()
    # Where the Jacobian is taken, at most 0.3 of half an image outside of it.
    x_far, y_far = 0.3 * WIDTH / (2 * fx), 0.3 * HEIGHT / (2 * fy)
    tx = z * (x / z).clamp(-cx / fx - x_far, (WIDTH - cx) / fx + x_far)
    ty = z * (y / z).clamp(-cy / fy - y_far, (HEIGHT - cy) / fy + y_far)
    zero = torch.zeros_like(z)
    rows = [fx / z, zero, -fx * tx / z**2, zero, fy / z, -fy * ty / z**2]
    jacobian = torch.stack(rows, dim=1).view(-1, 2, 3) @ rotation
    axes = reference.rotation(quats) * scales[:, None, :]
    covariance = jacobian @ axes @ axes.mT @ jacobian.mT + 0.3 * torch.eye(2, dtype=z.dtype)
    inverse = torch.linalg.inv(covariance)

    row, column = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    centres = torch.stack([column, row], dim=-1) + 0.5
    image = values.new_zeros(HEIGHT, WIDTH, values.shape[1])
    open_ = values.new_ones(HEIGHT, WIDTH)
    is_finished = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    for i in z.argsort(dim=0, stable=True).tolist():
        if z[i] <= near:
            continue
        offset = torch.stack([fx * x[i] / z[i] + cx, fy * y[i] / z[i] + cy]) - centres
        power = 0.5 * (offset @ inverse[i] * offset).sum(dim=-1)
        alpha = (opacities[i] * torch.exp(-power)).clamp_max(0.999)
        alpha = alpha.where(alpha >= 1 / 255, 0)
        is_finished = is_finished | ((alpha > 0) & (open_ * (1 - alpha) <= 1e-4))
        alpha = alpha.where(~is_finished, 0)
        image = image + (alpha * open_)[..., None] * values[i]
        open_ = open_ * (1 - alpha)
    return image, 1 - open_


@pytest.mark.parametrize(
    ("mode", "degree", "near", "has_background"),
    [
        ("RGB", None, 0.01, True),
        ("RGB", 3, 0.2, False),
        ("D", None, 2.5, False),
        ("ED", 1, 0.01, True),
        ("RGB+D", 0, 2.5, True),
        ("RGB+ED", 2, 0.05, False),
    ],
)
def test_matches_gsplats_arithmetic(rng, mode, degree, near, has_background):
    inputs = scene(rng, 120, degree=degree)
    means, quats, scales, opacities, colors, viewmats, Ks = inputs
    backgrounds = torch.rand(CAMERAS, 3, generator=rng, dtype=torch.float64)
    image, alphas, meta = refersplat.rasterization(
        *inputs,
        *(WIDTH, HEIGHT),
        near_plane=near,
        sh_degree=degree,
        backgrounds=backgrounds if has_background else None,
        render_mode=mode,
        packed=False,
    )
    for i in range(CAMERAS):
        depths = means @ viewmats[i, 2, :3] + viewmats[i, 2, 3]
        position = torch.linalg.inv(viewmats[i])[:3, 3]
        if degree is None:
            shades = colors
        else:
            shades = reference.spherical_harmonics(means, colors, position, degree)
        values = torch.cat([shades, depths[:, None]], dim=1)
        splats = (means, quats, scales, opacities, values, viewmats[i], Ks[i])
        expected, alpha = by_definition(*splats, near)
        color, depth = expected[..., :3], expected[..., 3:]
        if has_background:
            color = color + (1 - alpha)[..., None] * backgrounds[i]
        if "ED" in mode:
            depth = depth / alpha[..., None].clamp_min(1e-10)
        parts = [color] * ("RGB" in mode) + [depth] * ("D" in mode)
        assert_close(image[i], torch.cat(parts, dim=-1), rtol=1e-9, atol=1e-9)
        assert_close(alphas[i], alpha[..., None], rtol=1e-9, atol=1e-9)
        assert_close(meta["depths"][i], depths)
    assert alpha.max() > 0.9


def test_gradients_are_those_of_finite_differences(rng):
    *leaves, Ks = (t.requires_grad_() for t in scene(rng, 3, degree=1))
    backgrounds = torch.rand(CAMERAS, 3, generator=rng, dtype=torch.float64, requires_grad=True)

    def render(*inputs):
        image, alphas, _ = refersplat.rasterization(
            *inputs[:6],
            Ks.detach(),
            *(5, 4),
            sh_degree=1,
            backgrounds=inputs[6],
            render_mode="RGB+ED",
        )
        return image, alphas

    leaves[2].data += 0.5  # wide enough to leave no pixel below 1/255
    assert torch.autograd.gradcheck(render, (*leaves, backgrounds))


def test_positions_on_the_image_keep_their_gradient(rng):
    """As densification reads it; a pixel's centre is at .5."""
    inputs = scene(rng, 20, dtype=torch.float32)
    inputs[0].requires_grad_()
    image, _, meta = refersplat.rasterization(*inputs, WIDTH, HEIGHT, render_mode="D")
    meta["means2d"].retain_grad()
    image.sum().backward()
    assert (meta["means2d"].grad.norm(dim=-1) > 0).any(dim=1).all()
    points = inputs[0] @ inputs[5][0, :3, :3].T + inputs[5][0, :3, 3]
    on_image = points @ inputs[6][0].T
    assert_close(meta["means2d"][0], on_image[:, :2] / on_image[:, 2:])
    assert meta["radii"].dtype == torch.int32
    assert (meta["n_cameras"], meta["width"], meta["height"]) == (CAMERAS, WIDTH, HEIGHT)


def test_far_and_small_gaussians_are_left_out(rng):
    inputs = scene(rng, 30)

    def alphas(**options):
        return refersplat.rasterization(*inputs, WIDTH, HEIGHT, **options)[1]

    _, everything, meta = refersplat.rasterization(*inputs, WIDTH, HEIGHT)
    for options, shown in (
        ({"far_plane": 3.0}, meta["depths"] <= 3.0),
        ({"radius_clip": 4.0}, meta["radii"] > 4),
    ):
        assert 0 < shown[0].sum() < 30
        some = [t[shown[0]] for t in inputs[:5]]
        few = refersplat.rasterization(*some, *inputs[5:], WIDTH, HEIGHT)[1]
        assert torch.equal(alphas(**options)[0], few[0])
        assert not torch.equal(few[0], everything[0])


@pytest.mark.parametrize(
    ("changes", "error", "argument"),
    [
        ({"viewmats": torch.eye(4)}, ValueError, "viewmats"),
        ({"viewmats": torch.zeros(0, 4, 4), "Ks": torch.zeros(0, 3, 3)}, ValueError, "viewmats"),
        ({"Ks": torch.eye(3)[None]}, ValueError, "Ks"),
        ({"Ks": torch.eye(3).repeat(2, 1, 1).requires_grad_()}, ValueError, "Ks"),
        ({"opacities": torch.zeros(5, 1)}, ValueError, "opacities"),
        ({"colors": torch.zeros(4, 3)}, ValueError, "colors"),
        ({"backgrounds": torch.zeros(2, 4)}, ValueError, "backgrounds"),
        ({"render_mode": "depth"}, ValueError, "render_mode"),
        ({"near_plane": 0.0}, ValueError, "planes"),
        ({"rasterize_mode": "antialiased"}, ValueError, "rasterize_mode"),
        ({"absgrad": True}, ValueError, "absgrad"),
        ({"shading": True}, TypeError, "shading"),
    ],
)
def test_names_what_does_not_fit(rng, changes, error, argument):
    arguments = dict(zip([*NAMES, "Ks"], scene(rng, 5, dtype=torch.float32), strict=True))
    with pytest.raises(error, match=argument):
        refersplat.rasterization(**(arguments | changes), width=4, height=4)
