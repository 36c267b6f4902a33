"""A camera's picture, from Gaussians to pixels."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from refersplat.cameras import Camera
from refersplat.splats.gaussians import Gaussians
from refersplat.splats.render import frozen_blend, render

CAMERA = Camera(torch.eye(4), 40.0, 40.0, 20.0, 15.0, width=40, height=30)


@pytest.fixture
def gaussians(rng):
    count = 50
    means = torch.randn(count, 3, generator=rng) * torch.tensor([1.0, 1, 0.5])
    means[:, 2] += 3
    sh = 0.3 * torch.randn(count, 16, 3, generator=rng)
    quats = torch.randn(count, 4, generator=rng)
    log_scales = torch.full((count, 3), 0.15).log()
    return Gaussians(means, log_scales, quats, torch.randn(count, generator=rng), sh)


def test_features_are_drawn_with_the_colours_weights(gaussians, rng):
    features = torch.randn(50, 5, generator=rng)
    plain, both = render(gaussians, CAMERA), render(gaussians, CAMERA, features=features)
    assert plain.features is None
    # Channels are added up alike in any company.
    assert_close(both.color, plain.color, rtol=1e-6, atol=1e-6)
    assert_close(both.features, frozen_blend(gaussians, CAMERA).blend(features), atol=1e-5, rtol=0)
    assert plain.color.shape == (3, 30, 40)
    assert plain.color.std() > 0.01


def test_the_background_shows_where_light_is_left(gaussians):
    plain = render(gaussians, CAMERA)
    background = torch.tensor([0.1, 0.5, 0.9])
    other = render(gaussians, CAMERA, background=background)
    assert_close(other.color, plain.color + plain.transmittance * background[:, None, None])


def test_colours_of_degree_0_do_not_depend_on_the_direction(gaussians):
    flat = render(gaussians, CAMERA, sh_degree=0).color
    gaussians.sh[:, 1:] = 0
    assert_close(render(gaussians, CAMERA).color, flat)


def test_densification_finds_the_gradients_of_the_centres(gaussians):
    gaussians.means.requires_grad_()
    rendering = render(gaussians, CAMERA)
    rendering.color.sum().backward()
    is_seen = rendering.radii > 0
    assert rendering.means2d.grad[is_seen].abs().max() > 0
    assert rendering.means2d.grad.shape == (50, 2)


def test_a_selection_is_drawn_as_if_the_others_were_not_there(gaussians):
    selected = torch.arange(50) % 3 == 0
    part = frozen_blend(gaussians, CAMERA, selected)
    alone = frozen_blend(gaussians.select(selected), CAMERA)
    assert part.count == int(selected.sum())
    assert torch.equal(part.transmittance, alone.transmittance)
