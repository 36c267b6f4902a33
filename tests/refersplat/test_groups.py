"""Groups of Gaussians from masks, on three heaps seen from a ring of cameras."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from refersplat.cameras import Camera
from refersplat.data.supervised import SupervisedView, Target
from refersplat.language.groups import SURE, Groups, build_groups, join_sentences
from refersplat.splats.gaussians import Gaussians
from refersplat.splats.render import frozen_blend

NUM_VIEWS, HEAP = 8, 20
WIDTH, HEIGHT = 40, 30


class View:
    def __init__(self, index: int) -> None:
        angle = 0.6 * math.sin(2 * math.pi * index / NUM_VIEWS)
        pose = torch.eye(4)
        pose[0, 0] = pose[2, 2] = math.cos(angle)
        pose[0, 2], pose[2, 0] = math.sin(angle), -math.sin(angle)
        pose[2, 3] = 3.0
        self.name = str(index)
        self.camera = Camera(pose, 40.0, 40.0, WIDTH / 2, HEIGHT / 2, WIDTH, HEIGHT)


def gaussians() -> Gaussians:
    """Three heaps in a row, red, green and blue."""
    rng = torch.Generator().manual_seed(0)
    centres = torch.tensor([[-0.8, 0.0, 0.0], [0.0, 0.0, 0.0], [0.8, 0.0, 0.0]])
    means = centres.repeat_interleave(HEAP, dim=0)
    means = means + 0.12 * torch.randn(3 * HEAP, 3, generator=rng)
    sh = torch.zeros(3 * HEAP, 16, 3)
    sh[:, 0] = (torch.eye(3).repeat_interleave(HEAP, dim=0) - 0.5) / 0.2821
    log_scales = torch.full((3 * HEAP, 3), math.log(0.08))
    quats = torch.tensor([[1.0, 0, 0, 0]]).repeat(3 * HEAP, 1)
    return Gaussians(means, log_scales, quats, torch.full((3 * HEAP,), 2.0), sh)


def blends(view: View):
    return frozen_blend(gaussians(), view.camera)


def heap(index: int):  # [N] bool
    return torch.arange(3 * HEAP) // HEAP == index


def supervised(entries, wrong=()):
    """Views with masks of heaps.

    ``entries(view)`` lists (heap, sentences); ``wrong`` views mark another heap's pixels.
    """
    made = []
    for number in range(NUM_VIEWS):
        view = View(number)
        targets = []
        for index, rows in entries(number):
            marked = (index + 1) % 3 if number in wrong else index
            mask = blends(view).blend(heap(marked).float()[:, None])[0] > 0.4
            targets.append(Target(list(rows), np.packbits(mask.numpy(), axis=1)))
        made.append(SupervisedView(view.name, view.camera, targets))
    return made


def assert_heaps(groups: Groups, order=(0, 1, 2)) -> None:
    assert groups.count == len(order)
    for group, index in enumerate(order):
        right = (groups.logits[:, group] > 0) == heap(index)
        # The outermost of a heap lie mostly beside its mask: up to 3 of 60.
        assert right.float().mean() >= 0.94, (group, (~right).nonzero())


@pytest.mark.parametrize("refine_steps", [0, 16])
def test_finds_the_gaussians_of_each_object(refine_steps):
    views = supervised(lambda _: [(0, [0, 1]), (1, [2, 3]), (2, [4, 5])])
    groups = build_groups(views, gaussians(), blends, refine_steps)
    assert groups.sentences == ((0, 1), (2, 3), (4, 5))
    assert_heaps(groups)


def test_joins_entries_of_one_sentence_by_their_masks():
    views = supervised(lambda _: [(0, [0]), (1, [2]), (0, [1]), (1, [3]), (2, [4])])
    groups = build_groups(views, gaussians(), blends, 0)
    assert groups.sentences == ((0, 1), (2, 3), (4,))
    assert_heaps(groups)


def test_a_sentence_of_several_objects_makes_no_group():
    views = supervised(lambda _: [(0, [0]), (1, [1]), (2, [2])])
    both = views[0].masks([0, 1], "cpu").any(dim=0)
    views[0].targets.append(Target([3], np.packbits(both.numpy(), axis=1), count=2))
    groups = build_groups(views, gaussians(), blends, 0)
    assert groups.sentences == ((0,), (1,), (2,))
    assert_heaps(groups)


def test_joins_sentences_that_no_view_shows_together():
    views = supervised(lambda view: [(0, [view % 2]), (1, [2 + view % 2]), (2, [4 + view % 2])])
    assert build_groups(views, gaussians(), blends, 0).sentences == ((0, 1), (2, 3), (4, 5))


def test_a_view_without_a_mask_of_the_object_has_no_vote():
    views = supervised(lambda view: [(0, [0]), (1, [1])] + ([(2, [2])] if view in (1, 6) else []))
    assert_heaps(build_groups(views, gaussians(), blends, 0))


def test_a_mask_that_contradicts_the_others_counts_little():
    views = supervised(lambda _: [(0, [0]), (1, [1]), (2, [2])], wrong=(1, 4, 6))
    assert_heaps(build_groups(views, gaussians(), blends, 0))


def test_gaussians_outside_all_masks_belong_to_no_group():
    views = supervised(lambda _: [(0, [0]), (1, [1])])
    groups = build_groups(views, gaussians(), blends, 8)
    assert_heaps(groups, order=(0, 1))
    far = Gaussians(**{name: value.clone() for name, value in vars(gaussians()).items()})
    far.means[heap(2), 2] = -50.0  # behind every camera
    groups = build_groups(views, far, lambda view: frozen_blend(far, view.camera), 8)
    assert (groups.logits[heap(2)] == -SURE).all()


def test_attributes_are_the_heaps_places_and_colors():
    attributes = build_groups(
        supervised(lambda _: [(0, [0]), (1, [1]), (2, [2])]), gaussians(), blends, 0
    ).attributes
    centres = (attributes.low + attributes.high) / 2
    ways = torch.cdist(centres, centres)
    assert_close(ways[0, 1], torch.tensor(0.8), atol=0.15, rtol=0)
    assert_close(ways[0, 2], torch.tensor(1.6), atol=0.15, rtol=0)
    assert attributes.colors.argmax(dim=1).tolist() == [0, 3, 4]  # red, green, blue
    assert_close(attributes.colors.sum(dim=1), torch.ones(3))


def test_mean_and_state():
    groups = build_groups(
        supervised(lambda _: [(0, [0]), (1, [1]), (2, [2])]), gaussians(), blends, 0
    )
    means = groups.mean(torch.stack([heap(0), heap(2)]).float())
    assert_close(means, torch.eye(3)[[0, 2]], atol=0.1, rtol=0)
    again = Groups.from_state(groups.state_dict())
    assert again.sentences == groups.sentences
    # Halves have 11 bits; logits reach 12.
    assert_close(again.logits, groups.logits, atol=0.01, rtol=1e-3)
    assert_close(again.attributes.low, groups.attributes.low, atol=0, rtol=0)


@pytest.mark.parametrize(
    ("views", "expected"),
    [
        ([[[0, 1], [2]]], ((0, 1), (2,))),
        ([[[0, 1]], [[1, 2]], [[3]]], ((0, 1, 2), (3,))),
        ([[[0], [1]], [[0, 1]]], ((0, 1),)),
        ([[[0, 9], [1, 9]]], ((0,), (1,))),  # "a cup" of two cups
        ([[[0, 9], [1, 9]], [[0, 9]]], ((0,), (1,))),
    ],
)
def test_join_sentences(views, expected):
    assert join_sentences(views) == expected
