import math

import pytest
import torch
from torch.testing import assert_close

from refersplat.cameras import Camera
from refersplat.config import RgbConfig
from refersplat.rgb.densify import (
    DensificationStatistics,
    densify,
    gaussian_limit,
    is_densified,
    split,
)
from refersplat.rgb.optimizer import Adam
from refersplat.splats.gaussians import Gaussians
from refersplat.splats.render import Rendering

CONFIG = RgbConfig(iterations=30_000)
EXTENT = 1.0
SMALL, LARGE = 0.5 * CONFIG.percent_dense, 5 * CONFIG.percent_dense


def gaussians_of(scales, opacities=None):
    count = len(scales)
    opacities = torch.full((count,), 0.5) if opacities is None else torch.tensor(opacities)
    return Gaussians(
        means=torch.arange(count, dtype=torch.float32)[:, None].repeat(1, 3),
        log_scales=torch.tensor(scales).log()[:, None].repeat(1, 3),
        quats=torch.tensor([1.0, 0, 0, 0]).repeat(count, 1),
        logit_opacities=opacities.logit(),
        sh=torch.ones(count, 16, 3),
    )


def densified(gaussians, gradients, limit=math.inf, prune_large=False, seed=0):
    adam = Adam.start(gaussians)
    adam.first = adam.first.map(torch.ones_like)
    statistics = DensificationStatistics.start(gaussians)
    statistics.gradient += torch.tensor(gradients)
    statistics.views += 1
    generator = torch.Generator().manual_seed(seed)
    fresh = densify(adam, statistics, CONFIG, EXTENT, limit, prune_large, generator)
    assert len(fresh.gradient) == adam.gaussians.count
    assert not fresh.gradient.any()
    return adam


def test_small_gaussians_are_cloned_and_large_ones_split():
    adam = densified(gaussians_of([SMALL, SMALL, LARGE, LARGE]), [0.0, 1.0, 0.0, 1.0])
    scales = adam.gaussians.scales[:, 0].detach()
    part = LARGE / 1.6
    assert_close(scales, torch.tensor([SMALL, SMALL, LARGE, SMALL, part, part]))
    assert_close(adam.gaussians.means[3].detach(), torch.ones(3))
    near_parent = (adam.gaussians.means[4:] - 3).norm(dim=1)
    assert (near_parent > 0).all()
    assert (near_parent < 6 * LARGE).all()


def test_new_gaussians_start_without_moments():
    adam = densified(gaussians_of([SMALL, LARGE]), [1.0, 1.0])
    for tensor in adam.first.tensors().values():
        assert tensor[0].all()
        assert not tensor[1:].any()
    assert adam.gaussians.means.is_leaf
    assert adam.gaussians.means.requires_grad


def test_faint_gaussians_are_removed():
    adam = densified(gaussians_of([SMALL] * 3, [0.004, 0.006, 0.5]), [0.0] * 3)
    assert_close(adam.gaussians.means[:, 0].detach(), torch.tensor([1.0, 2.0]))


@pytest.mark.parametrize(("prune_large", "left"), [(False, 2), (True, 1)])
def test_large_gaussians_are_removed_only_after_a_reset(prune_large, left):
    adam = densified(gaussians_of([0.05, 0.2]), [0.0, 0.0], prune_large=prune_large)
    assert adam.gaussians.count == left


def test_nothing_is_added_below_the_threshold():
    below = CONFIG.densify_gradient * 0.99
    assert densified(gaussians_of([SMALL, LARGE]), [below, below]).gaussians.count == 2


def test_the_strongest_come_first_where_room_is_short():
    adam = densified(gaussians_of([SMALL] * 3), [1.0, 3.0, 2.0], limit=4)
    assert_close(adam.gaussians.means[:, 0].detach(), torch.tensor([0.0, 1.0, 2.0, 1.0]))
    full = densified(gaussians_of([SMALL] * 5), [1.0] * 5, limit=4)
    assert full.gaussians.count == 5


@pytest.mark.parametrize(("option", "limit"), [(-1, 200), (0, math.inf), (7, 7)])
def test_limit_follows_the_photos_where_none_is_given(option, limit):
    camera = Camera(torch.eye(4), 10.0, 10.0, 10.0, 5.0, width=20, height=10)
    small = Camera(torch.eye(4), 10.0, 10.0, 2.0, 2.0, width=4, height=4)
    assert gaussian_limit(RgbConfig(max_gaussians=option), [camera, small]) == limit


def test_split_keeps_the_mean_and_follows_the_shape():
    count = 4_000
    one = gaussians_of([1.0])
    one.log_scales = torch.tensor([[2.0, 0.5, 0.1]]).log()
    half_turn = math.pi / 4  # turns x toward y by 90 degrees
    one.quats = torch.tensor([[math.cos(half_turn), 0.0, 0.0, math.sin(half_turn)]])
    many = one.map(lambda tensor: tensor.repeat(count, *[1] * (tensor.dim() - 1)))
    parts = split(many, torch.Generator().manual_seed(0))
    assert parts.count == 2 * count
    # Standard errors are 2 / sqrt(8000) = 0.022 for the mean and 0.016 for the deviation.
    assert_close(parts.means.mean(dim=0), torch.zeros(3), atol=0.1, rtol=0)
    assert_close(parts.means.std(dim=0), torch.tensor([0.5, 2.0, 0.1]), atol=0.08, rtol=0)


def test_split_is_repeatable():
    many = gaussians_of([LARGE] * 9)
    first, second = (split(many, torch.Generator().manual_seed(3)).means for _ in range(2))
    assert torch.equal(first, second)


def test_statistics_average_over_the_views_that_saw_it():
    camera = Camera(torch.eye(4), 10.0, 10.0, 10.0, 5.0, width=20, height=10)
    statistics = DensificationStatistics.start(gaussians_of([1.0] * 3))
    for radii, gradient in (([4, 0, 0], 3.0), ([2, 7, 0], 1.0)):
        means2d = torch.zeros(3, 2, requires_grad=True)
        means2d.grad = torch.tensor([gradient, 0.0]).repeat(3, 1)
        color, radii = torch.zeros(3, 10, 20), torch.tensor(radii, dtype=torch.int32)
        statistics.observe(Rendering(color, None, color[0], radii, means2d), camera)
    # A pixel is 2 / 20 of the image's width in normalised coordinates.
    assert_close(statistics.mean_gradient(), torch.tensor([20.0, 10.0, 0.0]))
    assert_close(statistics.max_radii, torch.tensor([4.0, 7.0, 0.0]))


def test_opacity_reset_lowers_and_forgets():
    adam = Adam.start(gaussians_of([SMALL] * 2, [0.9, 0.005]))
    adam.first = adam.first.map(torch.ones_like)
    adam.limit_opacities(0.01)
    assert_close(adam.gaussians.opacities.detach(), torch.tensor([0.01, 0.005]))
    assert not adam.first.logit_opacities.any()
    assert adam.first.means.all()


def test_schedule():
    iterations = [i for i in range(20_000) if is_densified(i, CONFIG)]
    assert (iterations[0], iterations[1], iterations[-1]) == (600, 700, 14_900)
