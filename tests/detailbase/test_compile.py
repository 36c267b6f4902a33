"""The whole network under torch.compile and without compiled ops."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from detailbase.config import NetworkConfig
from detailbase.model.build import build
from detailbase.model.network import DetailBase
from detailbase.ops import voxelize
from detailbase.training.losses import class_loss, mask_loss, pair_loss

pytestmark = pytest.mark.slow  # torch.compile takes seconds a graph

POINTS, SUPERPOINTS, WORDS, TEXT_DIM = 600, 20, 7, 24


@pytest.fixture
def network() -> DetailBase:
    torch.manual_seed(0)
    options = NetworkConfig(
        channels=(8, 16), width=32, heads=4, hidden=64, layers=2, objects=4, classes=5
    )
    return build(options, TEXT_DIM)


@pytest.fixture
def arguments(rng):
    coords = torch.randint(0, 12, (POINTS, 3), generator=rng)
    voxels, point_to_voxel = voxelize(coords, torch.zeros(POINTS, dtype=torch.int64))
    features = torch.randn(len(voxels), 6, generator=rng)
    superpoints = torch.arange(POINTS) * SUPERPOINTS // POINTS
    words = torch.randn(2, WORDS, TEXT_DIM, generator=rng)
    mask = torch.arange(WORDS) < torch.tensor([[WORDS], [WORDS - 2]])
    places = (features, voxels, point_to_voxel, superpoints, [0, SUPERPOINTS])
    return *places, words, mask, [0, 0]


def test_compiled_answers_are_the_same(network, arguments):
    network.eval()
    compiled = torch.compile(network, backend="aot_eager")
    with torch.no_grad():
        got, want = compiled(*arguments), network(*arguments)
    assert got.masks[0].shape == (3, WORDS, SUPERPOINTS)
    assert_close(got.masks, want.masks)
    assert_close(got.scores, want.scores)


def test_training_steps_have_the_same_gradients(network, arguments):
    got = gradients(network, torch.compile(network, backend="aot_eager"), arguments)
    want = gradients(network, network, arguments)
    assert len(want) > 50
    assert_close(got, want)


def test_reference_ops_give_the_same_gradients(network, arguments, without_compiled_ops):
    # float64: in float32 the order of sums, which depends on the threads, moves small gradients.
    network.double()
    arguments = [
        a.double() if torch.is_tensor(a) and a.is_floating_point() else a for a in arguments
    ]
    want = gradients(network, network, arguments)
    without_compiled_ops()
    assert_close(gradients(network, network, arguments), want, rtol=1e-9, atol=1e-11)


def gradients(network, call, arguments) -> dict[str, Tensor]:
    network.zero_grad()
    targets = [torch.arange(SUPERPOINTS) < 5, torch.arange(SUPERPOINTS) > 14]
    classes = torch.arange(SUPERPOINTS) % 5
    predictions = call(*arguments)
    total = mask_loss(predictions, [0, 1], [1, 2], targets, pos_weight=0.5).total
    total = total + class_loss(predictions.classes, classes)
    total = total + pair_loss(predictions.pairs, classes)
    total.backward()
    return {n: p.grad.clone() for n, p in network.named_parameters() if p.grad is not None}
