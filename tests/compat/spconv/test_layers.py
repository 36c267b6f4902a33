"""Layers against dense convolutions in float64, which spconv 2.3.8 was found to equal."""

from collections import OrderedDict

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.testing import assert_close

import spconv.pytorch as spconv
from tests.errors import raises

SHAPE = (7, 8, 9)
KERNELS = [
    (3, 1, 0, 1),
    (3, 2, 1, 1),
    (2, 2, 0, 1),
    (5, 3, 2, 1),
    (3, 2, 2, 2),
    ((1, 3, 2), (1, 2, 3), (0, 1, 1), (1, 2, 1)),
    (1, 2, 0, 1),
]
"""Sizes, strides, paddings, dilations."""
# Up to 343 x 3 products of order 1, added in another order, and in gradients some hundred voxels;
# measured worst 1.5e-14.
EXACT = {"rtol": 1e-15, "atol": 7e-14}


@pytest.fixture
def cloud(rng, device):
    """Voxels of two grids in any order, with three channels in float64."""
    places = (torch.rand(2, *SHAPE, generator=rng) < 0.15).nonzero()
    places = places[torch.randperm(len(places), generator=rng)].to(device)
    features = torch.randn(len(places), 3, generator=rng, dtype=torch.float64).to(device)
    return spconv.SparseConvTensor(features.requires_grad_(), places.int(), SHAPE, 2)


def at(grids, x):
    """Rows of a dense result [B, C, X, Y, Z] at a tensor's voxels."""
    scenes, x, y, z = x.indices.long().unbind(dim=1)
    return grids[scenes, :, x, y, z]


def same_with_gradients(rng, got, expected, inputs):
    assert_close(got, expected, **EXACT)
    toward = torch.randn(got.shape, generator=rng, dtype=got.dtype).to(got.device)
    ours, theirs = (
        torch.autograd.grad((out * toward).sum(), inputs, retain_graph=True)
        for out in (got, expected)
    )
    for one, other in zip(ours, theirs, strict=True):
        assert other.abs().max() > 0
        assert_close(one, other, **EXACT)


def parameters(layer):
    weight = layer.weight.permute(0, 4, 1, 2, 3)
    return weight, layer.bias, [layer.weight] + [layer.bias] * (layer.bias is not None)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("sizes", KERNELS)
def test_strided_layer_is_a_dense_convolution_at_what_it_reaches(rng, cloud, sizes, bias):
    layer = spconv.SparseConv3d(3, 4, *sizes, bias=bias).to(cloud.features)
    out = layer(cloud)
    weight, vector, own = parameters(layer)
    expected = functional.conv3d(cloud.dense(), weight, vector, *sizes[1:])
    assert out.spatial_shape == list(expected.shape[2:])
    same_with_gradients(rng, out.features, at(expected, out), [cloud.features, *own])

    occupied = (cloud.dense().detach() != 0).any(dim=1, keepdim=True).double()
    met = functional.conv3d(occupied, torch.ones_like(weight[:1, :1]), None, *sizes[1:])
    assert sorted(out.indices.tolist()) == met[:, 0].nonzero().tolist()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("kernel", "dilation"), [(3, 1), (5, 1), ((1, 3, 5), 1), (3, 2), (7, (1, 2, 3))]
)
def test_submanifold_layer_is_a_dense_convolution_at_its_voxels(rng, cloud, kernel, dilation, bias):
    layer = spconv.SubMConv3d(3, 4, kernel, padding=1, dilation=dilation, bias=bias)
    out = layer.to(cloud.features)(cloud)
    assert out.indices is cloud.indices
    weight, vector, own = parameters(layer)
    centred = [
        size // 2 * step for size, step in zip(layer.kernel_size, layer.dilation, strict=True)
    ]
    expected = functional.conv3d(cloud.dense(), weight, vector, 1, centred, dilation)
    same_with_gradients(rng, out.features, at(expected, out), [cloud.features, *own])


@pytest.mark.parametrize("sizes", KERNELS)
def test_inverse_layer_is_a_dense_transposed_convolution(rng, cloud, sizes):
    below = spconv.SparseConv3d(3, 4, *sizes, indice_key="down").to(cloud.features)(cloud)
    layer = spconv.SparseInverseConv3d(4, 5, sizes[0], indice_key="down").to(cloud.features)
    out = layer(below)
    assert out.indices is cloud.indices
    assert out.spatial_shape == list(SHAPE)
    weight = layer.weight.permute(4, 0, 1, 2, 3)
    grids = torch.nn.grad.conv3d_input((2, 5, *SHAPE), weight, below.dense(), *sizes[1:])
    expected = at(grids, out) + layer.bias
    same_with_gradients(rng, out.features, expected, [below.features, layer.weight, layer.bias])


@pytest.mark.parametrize("sizes", [(2, None), (3, 2, 1), (3, 1, 1, 2), ((1, 2, 3), (2, 1, 1))])
def test_pool_is_a_dense_pool(rng, cloud, sizes):
    layer = spconv.SparseMaxPool3d(*sizes, indice_key="pool")
    cloud = cloud.replace_feature(cloud.features - 3)  # places without voxels do not count as 0
    out = layer(cloud)
    index = cloud.indices.long().unbind(dim=1)
    empty = torch.full((2, *SHAPE, 3), -torch.inf, dtype=torch.float64, device=out.features.device)
    grids = empty.index_put(index, cloud.features).permute(0, 4, 1, 2, 3)
    window = (layer.kernel_size, layer.stride, layer.padding, layer.dilation)
    expected = functional.max_pool3d(grids, *window)
    assert out.spatial_shape == list(expected.shape[2:])
    assert sorted(out.indices.tolist()) == expected[:, 0].isfinite().nonzero().tolist()
    same_with_gradients(rng, out.features, at(expected, out), [cloud.features])
    back = spconv.SparseInverseConv3d(3, 2, layer.kernel_size, indice_key="pool")
    assert back.to(out.features)(out).indices is cloud.indices


@pytest.mark.parametrize("layer", [spconv.SubMConv3d, spconv.SparseConv3d])
def test_weight_of_one_place_is_read_as_spconv_reads_it(cloud, layer):
    """Its memory is [in, out], whatever its shape says: published weights were trained so."""
    conv = layer(3, 2, 1).to(cloud.features)
    conv.weight.data = torch.arange(6.0).double().view(2, 1, 1, 1, 3).to(cloud.features)
    matrix = torch.tensor([[0.0, 1], [2, 3], [4, 5]]).to(cloud.features)
    assert_close(conv(cloud).features, cloud.features @ matrix + conv.bias)


def test_layer_adds_features(cloud):
    for conv in (spconv.SubMConv3d(3, 3, 3), spconv.SubMConv3d(3, 3, 1)):
        conv = conv.to(cloud.features)
        assert_close(conv(cloud, cloud).features, conv(cloud).features + cloud.features)


def test_order_of_voxels_is_of_no_effect(rng, cloud):
    net = spconv.SparseSequential(
        spconv.SparseConv3d(3, 4, 3, 2, 1, indice_key="down"),
        spconv.SubMConv3d(4, 4, 3),
        spconv.SparseInverseConv3d(4, 2, 3, indice_key="down"),
    ).to(cloud.features)
    order = torch.randperm(len(cloud.indices), generator=rng).to(cloud.indices.device)
    assert_close(net(cloud.select_by_index(order)).features, net(cloud).features[order])


def test_initial_weights_are_those_of_a_dense_layer():
    torch.manual_seed(0)
    ours = spconv.SubMConv3d(3, 4, 3)
    torch.manual_seed(0)
    theirs = nn.Conv3d(3, 4, 3)
    assert ours.weight.shape == (4, 3, 3, 3, 3)
    # The same numbers in another order; the bounds are computed in different ways.
    assert_close(ours.weight.flatten(), theirs.weight.flatten())
    assert_close(ours.bias, theirs.bias)


def test_tensor(cloud):
    grids = cloud.dense(channels_first=False)
    assert torch.equal(grids.permute(0, 4, 1, 2, 3), cloud.dense())
    assert torch.equal(spconv.ToDense()(cloud), cloud.dense())
    again = spconv.SparseConvTensor.from_dense(grids)
    assert torch.equal(again.dense(), cloud.dense())
    assert again.spatial_shape == list(SHAPE)
    assert again.spatial_size == 504
    some = cloud.select_by_index(cloud.indices[:, 0] == 1)
    assert torch.equal(some.dense()[1], cloud.dense()[1])
    assert not some.dense()[0].any()
    for twice in (cloud + cloud, cloud + cloud.features, cloud.features + cloud):
        assert torch.equal(twice.features, 2 * cloud.features)
    cloud.grid = torch.zeros(1)
    assert cloud.replace_feature(cloud.features).grid is cloud.grid
    assert spconv.RemoveGrid()(cloud).grid is None
    with raises(ValueError, "features", "replace_feature"):
        cloud.features = cloud.features


def test_layers_of_a_key_share_a_map(cloud):
    first = spconv.SubMConv3d(3, 4, 3, indice_key="fine").to(cloud.features)(cloud)
    assert cloud.find_indice_pair("fine") is None
    assert first.find_indice_pair(None) is None
    data = first.find_indice_pair("fine")
    assert data.indices is data.out_indices is cloud.indices
    assert data.ksize == [3, 3, 3]
    second = spconv.SubMConv3d(4, 2, 3, indice_key="fine").to(cloud.features)(first)
    assert second.indice_dict == {"fine": data}
    below = spconv.SparseConv3d(2, 2, 3, 2, indice_key="down").to(cloud.features)(second)
    assert list(below.indice_dict) == ["fine", "down"]
    assert below.find_indice_pair("down").out_indices is below.indices


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda x: spconv.SubMConv3d(3, 4, 5, indice_key="fine"), ("kernel_size", "fine")),
        (lambda x: spconv.SubMConv3d(3, 4, 3, dilation=2, indice_key="fine"), ("dilation",)),
        (lambda x: spconv.SparseConv3d(3, 4, 3, indice_key="fine"), ("indice_key", "taken")),
        (lambda x: spconv.SparseMaxPool3d(2, indice_key="fine"), ("indice_key", "taken")),
        (lambda x: spconv.SparseInverseConv3d(3, 4, 3, "fine"), ("fine", "SparseConv3d")),
        (lambda x: spconv.SparseInverseConv3d(3, 4, 3, "other"), ("other", "fine")),
        (lambda x: spconv.SparseInverseConv3d(3, 4, 2, "down"), ("kernel_size", "down")),
        (lambda x: spconv.SparseInverseConv3d(3, 4, 3, "down"), ("spatial_shape", "down")),
        (lambda x: spconv.SubMConv3d(5, 4, 3), ("features", 5, 3)),
        (lambda x: spconv.SparseConv3d(3, 4, 10), ("spatial_shape", "kernel_size", "padding")),
        (lambda x: spconv.SubMConv3d(3, 4, 2), ("kernel_size", "odd")),
        (lambda x: spconv.SparseConv3d(3, 4, 3, 0), ("stride", "1..32768")),
        (lambda x: spconv.SparseConv3d(3, 4, 1, padding=1), ("padding", 0, 1)),
        (lambda x: spconv.SparseInverseConv3d(3, 4, 2, indice_key=None), ("indice_key",)),
    ],
)
def test_errors_name_the_argument(cloud, make, names):
    cloud = spconv.SubMConv3d(3, 3, 3, indice_key="fine").to(cloud.features)(cloud)
    down = spconv.SparseConv3d(3, 3, 3, 2, indice_key="down").to(cloud.features)
    cloud.indice_dict.update(down(cloud).indice_dict)
    with raises(ValueError, *names):
        make(cloud).to(cloud.features)(cloud)


def test_a_key_is_not_taken_for_other_voxels(cloud):
    first = spconv.SubMConv3d(3, 3, 3, indice_key="fine").to(cloud.features)(cloud)
    first.indices = first.indices.flip(0)
    with raises(ValueError, "fine", "voxels"):
        spconv.SubMConv3d(3, 3, 3, indice_key="fine").to(cloud.features)(first)


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"features": torch.zeros(2)}, ("features",)),
        ({"indices": torch.zeros(3, 4).int()}, ("indices", "[2, 4]", "[3, 4]")),
        ({"indices": torch.zeros(2, 4).long()}, ("indices", "int32", "int64", "indices.int()")),
        ({"spatial_shape": (4, 4)}, ("spatial_shape", "(4, 4)")),
        ({"batch_size": 0}, ("batch_size", 0)),
    ],
)
def test_errors_of_a_tensor_name_the_argument(change, names):
    given = {
        "features": torch.zeros(2, 3),
        "indices": torch.zeros(2, 4).int(),
        "spatial_shape": (4, 4, 4),
        "batch_size": 1,
    }
    with raises(ValueError, *names):
        spconv.SparseConvTensor(**{**given, **change})


@pytest.mark.parametrize(
    "name", ["SparseConv2d", "SubMConv1d", "SparseConvTranspose3d", "SparseMaxPool4d"]
)
def test_absent_layers_can_be_imported_but_not_made(name):
    layer = getattr(spconv, name)
    with raises(NotImplementedError, name, "spconv"):
        layer(3, 4, 3)


def test_absent_options_are_refused():
    assert not hasattr(spconv, "SparseConv5d")
    for options in ({"groups": 2}, {"record_voxel_count": True}):
        with raises(NotImplementedError, next(iter(options))):
            spconv.SparseConv3d(3, 4, 3, **options)
    with raises(NotImplementedError, "ndim", 2):
        spconv.SparseConvolution(2, 3, 4, 3)


def test_sequence(cloud):
    cloud = cloud.replace_feature(cloud.features.float())
    conv, norm = spconv.SubMConv3d(3, 4, 3), nn.BatchNorm1d(4)
    names = OrderedDict(conv=conv, norm=norm)
    nets = [
        spconv.SparseSequential(conv, norm, nn.ReLU()),
        spconv.SparseSequential(names),
        spconv.SparseSequential(
            conv=conv, norm=spconv.SparseBatchNorm(4), relu=spconv.SparseReLU()
        ),
    ]
    assert [next(iter(net.state_dict())) for net in nets] == [
        "0.weight",
        "conv.weight",
        "conv.weight",
    ]
    nets[1].add(nn.ReLU())
    assert list(nets[1]._modules) == ["conv", "norm", "2"]
    for net in nets:
        net = net.to(cloud.features.device)
        assert torch.equal(net(cloud).features, nn.ReLU()(norm(conv(cloud).features)))
        assert net[-1] is list(net)[2]
    with raises(ValueError, "name", "conv"):
        nets[1].add(conv, "conv")


def test_modules_of_features_are_left_out_without_voxels(cloud):
    class Rows(nn.Module):
        def forward(self, features):
            assert len(features)
            return features

    net = spconv.SparseSequential(spconv.SubMConv3d(3, 4, 3).to(cloud.features), Rows())
    assert net(cloud).features.shape == (len(cloud.indices), 4)
    assert net(cloud.select_by_index(slice(0))).features.shape == (0, 4)
