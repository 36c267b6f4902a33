"""A client: SPFormer's network of voxels and superpoints, after its paper, with published names."""

from collections import OrderedDict
from functools import partial

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import spconv.pytorch as spconv
from detailbase.model.backbone import SparseUNet, spatial_shape
from detailbase.model.weights import file_names
from detailbase.ops import segment_reduce, voxelize
from spconv.pytorch.modules import SparseModule

CHANNELS = (8, 12, 16)
norm = partial(nn.BatchNorm1d, eps=1e-4, momentum=0.1)


class ResidualBlock(SparseModule):
    """Two pre-activated convolutions beside the input, or beside a change of its width."""

    def __init__(self, channels, width, key):
        super().__init__()
        around = partial(spconv.SubMConv3d, kernel_size=3, padding=1, bias=False, indice_key=key)
        is_same = channels == width
        self.i_branch = spconv.SparseSequential(
            nn.Identity() if is_same else spconv.SubMConv3d(channels, width, 1, bias=False)
        )
        self.conv_branch = spconv.SparseSequential(
            *(norm(channels), nn.ReLU(), around(channels, width)),
            *(norm(width), nn.ReLU(), around(width, width)),
        )

    def forward(self, x):
        identity = spconv.SparseConvTensor(x.features, x.indices, x.spatial_shape, x.batch_size)
        out = self.conv_branch(x)
        return out.replace_feature(out.features + self.i_branch(identity).features)


class UBlock(nn.Module):
    """A level of the U-Net, with the coarser ones inside."""

    def __init__(self, channels, level=1):
        super().__init__()
        width, *coarser = channels
        block = partial(ResidualBlock, key=f"subm{level}")
        blocks = OrderedDict(block0=block(width, width), block1=block(width, width))
        self.blocks = spconv.SparseSequential(blocks)
        self.u = None
        if coarser:
            key, below = f"spconv{level}", coarser[0]
            self.conv = spconv.SparseSequential(
                norm(width),
                nn.ReLU(),
                spconv.SparseConv3d(width, below, 2, stride=2, bias=False, indice_key=key),
            )
            self.u = UBlock(coarser, level + 1)
            self.deconv = spconv.SparseSequential(
                norm(below),
                nn.ReLU(),
                spconv.SparseInverseConv3d(below, width, 2, bias=False, indice_key=key),
            )
            tail = OrderedDict(block0=block(2 * width, width), block1=block(width, width))
            self.blocks_tail = spconv.SparseSequential(tail)

    def forward(self, x):
        x = self.blocks(x)
        if self.u is None:
            return x
        back = self.deconv(self.u(self.conv(x)))
        return self.blocks_tail(x.replace_feature(torch.cat([x.features, back.features], dim=1)))


class Backbone(nn.Module):
    """Features of voxels."""

    def __init__(self):
        super().__init__()
        first = spconv.SubMConv3d(6, CHANNELS[0], 3, padding=1, bias=False, indice_key="subm1")
        self.input_conv = spconv.SparseSequential(first)
        self.unet = UBlock(CHANNELS)
        self.output_layer = spconv.SparseSequential(norm(CHANNELS[0]), nn.ReLU())

    def forward(self, features, voxels):
        x = spconv.SparseConvTensor(features, voxels.int(), spatial_shape(voxels), 2)
        return self.output_layer(self.unet(self.input_conv(x))).features


@pytest.fixture
def room(rng, device):
    """Voxels [M, 4] of two scenes from 0 on, and their features [M, 6]."""
    places = torch.randint(0, 9, (600, 3), generator=rng).to(device)
    scenes = torch.randint(0, 2, (600,), generator=rng).to(device)
    voxels, _ = voxelize(places, scenes)
    return voxels, torch.randn(len(voxels), 6, generator=rng).to(device)


@pytest.fixture
def net(device):
    torch.manual_seed(0)
    return Backbone().to(device)


def test_parameters_have_the_published_names(net):
    ours = file_names({f"backbone.{k}": v for k, v in SparseUNet(6, CHANNELS).state_dict().items()})
    got = net.state_dict()
    assert {name: value.shape for name, value in got.items()} == {
        name: value.shape for name, value in ours.items()
    }
    assert "unet.u.blocks_tail.block0.i_branch.0.weight" in got
    assert got["unet.conv.2.weight"].shape == (12, 2, 2, 2, 8)


def test_equals_our_backbone_under_the_same_weights(net, room):
    voxels, features = room
    ours = SparseUNet(6, CHANNELS).to(features.device)
    named = {f"backbone.{name}": name for name in ours.state_dict()}
    names = file_names(named)
    ours.load_state_dict({own: net.state_dict()[theirs] for theirs, own in names.items()})
    # The same sums in float32, normalised by their mean and variance; measured worst 3.4e-6.
    assert_close(net(features, voxels), ours(features, voxels), rtol=1e-6, atol=1.7e-5)
    net.eval(), ours.eval()
    with torch.no_grad():
        assert_close(net(features, voxels), ours(features, voxels), rtol=1e-6, atol=1.7e-5)


def test_superpoints_learn(net, room):
    """Steps on the mean features of superpoints, blocks of voxels, lower their loss."""
    voxels, features = room
    scenes, x, y, z = voxels.unbind(dim=1)
    superpoints = scenes * 8 + (x > 4) * 4 + (y > 4) * 2 + (z > 4)
    classes = torch.arange(16, device=voxels.device) % 3
    head = nn.Linear(CHANNELS[0], 3).to(features.device)
    steps = torch.optim.AdamW([*net.parameters(), *head.parameters()], lr=0.01)
    losses = []
    for _ in range(4):
        pooled = segment_reduce(net(features, voxels), superpoints, 16, "mean")
        loss = nn.functional.cross_entropy(head(pooled), classes)
        steps.zero_grad()
        loss.backward()
        steps.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
    assert all(weight.grad.abs().max() > 0 for weight in net.parameters())
