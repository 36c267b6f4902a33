from __future__ import annotations

import copy

import pytest
import torch
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from torch import Tensor
from torch.testing import assert_close

from detailbase.config import NetworkConfig
from detailbase.model.backbone import SparseUNet
from detailbase.model.build import build
from detailbase.model.decoder import Decoder
from detailbase.model.descriptors import POSITION, describe, moments
from detailbase.model.grouping import ObjectGrouping, fourier_features, link, squared_distances
from detailbase.model.network import SIMILAR, DetailBase, similar
from detailbase.training.losses import mask_loss, pair_loss
from refer3d.text_encoder import HashTextEncoder

SENTENCES = [["a", "chair"], ["the", "table", "beside", "a", "lamp"], ["one", "lamp"]]
SCENES = [0, 1, 0]


def make_scene(generator: torch.Generator, size: int, count: int) -> tuple[Tensor, ...]:
    """Random voxels of one scene with their features, points and superpoints."""
    grid = torch.randperm(14**3, generator=generator)[:size]
    voxels = torch.stack([grid // 196, grid // 14 % 14, grid % 14], dim=1)
    features = torch.randn(size, 6, generator=generator)
    points = torch.randint(0, size, (2 * size,), generator=generator)
    superpoints = torch.cat(
        [torch.arange(count), torch.randint(0, count, (2 * size - count,), generator=generator)]
    )
    return features, voxels, points, superpoints


def make_batch(*scenes: tuple[Tensor, ...]) -> dict[str, Tensor | list[int]]:
    """Scenes numbered together, as the network takes them."""
    features, voxels, points, superpoints, starts = [], [], [], [], [0]
    for scene, (feature, voxel, point, superpoint) in enumerate(scenes):
        points.append(point + sum(map(len, features)))
        features.append(feature)
        voxels.append(torch.nn.functional.pad(voxel, (1, 0), value=scene))
        superpoints.append(superpoint + starts[-1])
        starts.append(starts[-1] + int(superpoint.max()) + 1)
    return {
        "features": torch.cat(features),
        "voxels": torch.cat(voxels),
        "point_to_voxel": torch.cat(points),
        "superpoints": torch.cat(superpoints),
        "superpoint_starts": starts,
    }


def encode(sentences: list[list[str]]) -> dict[str, Tensor]:
    text = HashTextEncoder(16, is_framed=True)(sentences)
    return {"words": text.words, "mask": text.mask}


BOTH = pytest.mark.parametrize(
    "extras",
    [
        {},
        {"cross_attn_norm": True, "descriptors": True, "objects": 4, "classes": 5},
        {"objects": 4, "choice": True, "relations": True},
    ],
    ids=["published", "default", "choice"],
)


def make_network(**options) -> DetailBase:
    sizes = {"channels": (8, 12, 16), "width": 32, "heads": 4, "hidden": 48, "layers": 2}
    published = {"cross_attn_norm": False, "descriptors": False, "objects": 0, "classes": 0}
    return build(NetworkConfig(**{**sizes, **published, **options}), text_dim=16)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def scenes(rng):
    return make_scene(rng, 300, 20), make_scene(rng, 500, 35)


@torch.no_grad()
def test_every_word_has_a_mask_of_its_scene_after_every_round(scenes):
    predictions = make_network().eval()(
        **make_batch(*scenes), **encode(SENTENCES), scene_of_sentence=SCENES
    )
    assert [tuple(masks.shape) for masks in predictions.masks] == [
        (3, 4, 20),  # as many queries as the longest sentence beside it has
        (3, 7, 35),
        (3, 4, 20),
    ]
    assert predictions.scores.shape == (3, 3, 7)


@BOTH
@torch.no_grad()
def test_neighbours_in_a_batch_change_nothing(scenes, extras):
    # A longer sentence pads the words; a bigger scene and another sentence stand beside.
    network = make_network(**extras).eval()
    together = network(**make_batch(*scenes), **encode(SENTENCES), scene_of_sentence=SCENES)
    for index, scene in enumerate(SCENES):
        sentence = SENTENCES[index]
        alone = network(**make_batch(scenes[scene]), **encode([sentence]), scene_of_sentence=[0])
        words = len(sentence) + 2
        # float32 sums of other blocks; measured 5e-7 of values up to 1.
        assert_close(together.masks[index][:, :words], alone.masks[0], rtol=0, atol=3e-6)
        assert_close(together.scores[:, index, :words], alone.scores[:, 0], rtol=0, atol=3e-6)


@BOTH
@torch.no_grad()
def test_renumbered_superpoints_renumber_the_masks(scenes, extras):
    network = make_network(**extras).eval()
    features, voxels, points, superpoints = scenes[0]
    order = torch.randperm(20)
    first = network(**make_batch(scenes[0]), **encode(SENTENCES[:1]), scene_of_sentence=[0])
    renumbered = make_batch((features, voxels, points, order[superpoints]))
    second = network(**renumbered, **encode(SENTENCES[:1]), scene_of_sentence=[0])
    assert_close(second.masks[0][..., order], first.masks[0], rtol=0, atol=3e-6)
    assert_close(second.scores, first.scores, rtol=0, atol=3e-6)


def test_scene_without_sentences_is_left_out(scenes):
    predictions = make_network()(
        **make_batch(*scenes), **encode(SENTENCES[:1]), scene_of_sentence=[1]
    )
    assert predictions.masks[0].shape == (3, 4, 35)


@BOTH
@pytest.mark.parametrize("size", [1, 2])
def test_training_on_scans_of_a_voxel_or_two(rng, extras, size):
    network = make_network(**extras)
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    scene = make_scene(rng, size, 1)
    predictions = network(**make_batch(scene), **encode(SENTENCES[:1]), scene_of_sentence=[0])
    mask_loss(predictions, [0], [2], [torch.ones(1)]).total.backward()
    assert all(p.grad.isfinite().all() for p in network.parameters() if p.grad is not None)
    if size == 1:  # one row has no variance
        for name, buffer in network.named_buffers():
            assert torch.equal(buffer, before[name])


def test_the_network_overfits_two_samples(scenes):
    network = make_network(width=64)
    batch, text = make_batch(*scenes), encode(SENTENCES[:2])
    queries, sentences = [2, 0, 2, 5], [0, 0, 1, 1]
    sizes = [20, 20, 35, 35]
    generator = torch.Generator().manual_seed(1)
    targets = [(torch.rand(size, generator=generator) < 0.3).float() for size in sizes]
    optimizer = torch.optim.AdamW(network.parameters(), lr=4e-3)
    for _ in range(40):
        predictions = network(**batch, **text, scene_of_sentence=[0, 1])
        losses = mask_loss(predictions, sentences, queries, targets)
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
    for sentence, query, target in zip(sentences, queries, targets, strict=True):
        assert torch.equal(predictions.masks[sentence][-1, query] > 0, target > 0)
        # Good masks train the score; all are good now.
        assert abs(predictions.scores[-1, sentence, query].item() - 1) < 0.2


def test_descriptors_are_those_of_the_points(rng):
    points, superpoints = torch.randn(50, 6, generator=rng), torch.arange(50) // 17
    descriptors = describe(moments(points, superpoints, 3))
    own = points[superpoints == 1]
    assert_close(descriptors[1, :6], own.mean(dim=0))
    assert_close(descriptors[1, 6:12], own.std(dim=0, correction=0))
    assert_close(descriptors[1, 12], torch.tensor(17.0).log() / 10)
    assert_close(descriptors[1, POSITION], own[:, 3:].mean(dim=0))


@pytest.fixture
def unmoved() -> ObjectGrouping:
    """Superpoints stay where they are, so only those near each other are together."""
    objects = ObjectGrouping(4, 2).eval()
    for layer in (objects.move[0], objects.move[2]):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    return objects


@torch.no_grad()
def test_near_superpoints_form_one_object(unmoved):
    # The first and the second at one place, the third far from both; 1, 3 and 2 points.
    points = torch.zeros(6, 6)
    points[4:, 3] = 30.0
    points[1:4, 0] = 1.0
    sums = moments(points, torch.tensor([0, 1, 1, 1, 2, 2]), 3)
    features = torch.randn(3, 4)
    seen, _, _, nothing = unmoved(features, sums, [0, 3])
    assert nothing is None
    *_, ((rows, logits),) = copy.deepcopy(unmoved).train()(features, sums, [0, 3])
    assert rows.tolist() == [0, 1, 2]
    assert_close(logits[:2, :2], torch.full((2, 2), unmoved.nearness.item()))
    assert logits[2, :2].amax() < -800

    share = torch.sigmoid(unmoved.nearness)
    assert_close(seen[:, :4], features)
    assert_close(seen[0, 4:8], (features[0] + 3 * features[1]) / 4)
    assert_close(seen[0, 4:8], seen[1, 4:8])
    assert_close(seen[2, 4:8], features[2])
    whole = describe(share * (sums[:1] + sums[1:2]))
    inputs = torch.cat([whole, fourier_features(whole[:, POSITION])], dim=1)
    assert_close(seen[0, 8:], unmoved.descriptors(inputs)[0])


def test_objects_do_not_depend_on_the_chunk_size(rng, monkeypatch):
    objects = ObjectGrouping(4, 2)
    features = torch.randn(50, 4, generator=rng, requires_grad=True)
    sums = moments(torch.randn(200, 6, generator=rng), torch.arange(200) % 50, 50)
    whole, *_, all_pairs = objects(features, sums, [0, 30, 50])
    (gradient,) = torch.autograd.grad(whole.square().sum(), features)
    monkeypatch.setattr("detailbase.model.grouping.ROWS", 7)
    parts, *_, pairs = objects(features, sums, [0, 30, 50])
    assert_close(parts, whole)
    assert_close(torch.autograd.grad(parts.square().sum(), features)[0], gradient)
    assert [one.rows.tolist() for one in pairs] == [[*range(0, 30, 5)], [*range(0, 20, 3)]]
    for some, every in zip(pairs, all_pairs, strict=True):
        assert_close(some.logits, every.logits[some.rows])


@torch.no_grad()
def test_mixed_precision_keeps_the_digits_of_places(unmoved, rng):
    """Descriptors are differences of squares, of which bfloat16's eight bits leave nothing."""
    points = torch.cat(
        [torch.rand(300, 3, generator=rng), 8 * torch.rand(300, 3, generator=rng)], 1
    )
    sums = moments(points, torch.arange(300) // 10, 30)
    features = torch.randn(30, 4, generator=rng)
    exact, *_ = unmoved(features, sums, [0, 30])
    with torch.autocast("cpu", torch.bfloat16):
        rounded, *_ = unmoved(features, sums, [0, 30])
    assert_close(rounded[:, :8].float(), exact[:, :8])
    # The descriptors go through two layers in bfloat16; measured 0.01.
    assert (rounded[:, 8:] - exact[:, 8:]).abs().max() < 0.05


@torch.no_grad()
def test_superpoints_are_linked_as_by_average_linkage(rng):
    places = torch.rand(60, 5, generator=rng)
    apart = squared_distances(places, places).double().clamp(min=0).fill_diagonal_(0)
    for limit in (0.0, 0.2, 0.5, 10.0):
        tree = linkage(squareform((apart + apart.T) / 2, checks=False), "average")
        want = torch.from_numpy(fcluster(tree, limit, "distance"))
        got = link(places, torch.ones(60), limit)
        assert torch.equal(got[:, None] == got, want[:, None] == want)
        assert got.unique().tolist() == list(range(int(got.max()) + 1))


@torch.no_grad()
def test_linking_weighs_superpoints_by_their_points():
    # The mean squared distance between {0 and 1} and 3 is 6.5, or (9 + 4 * 100) / 101 = 4.05.
    places = torch.tensor([[0.0], [1.0], [3.0]])
    assert link(places, torch.tensor([1.0, 1.0, 1.0]), 5.0).tolist() == [0, 0, 1]
    assert link(places, torch.tensor([1.0, 100.0, 1.0]), 5.0).tolist() == [0, 0, 0]


def test_only_the_pair_loss_trains_the_grouping(rng):
    objects = ObjectGrouping(4, 2)
    sums = moments(torch.randn(30, 6, generator=rng), torch.arange(30) % 5, 5)
    seen, *_, pairs = objects(torch.randn(5, 4, generator=rng), sums, [0, 5])
    seen.square().sum().backward()
    assert objects.move[0].weight.grad is None
    pair_loss(pairs, torch.tensor([0, 0, 1, 1, -1])).backward()
    assert objects.move[0].weight.grad.abs().sum() > 0


def make_decoder(**options) -> Decoder:
    return Decoder(text_dim=16, channels=8, width=32, heads=4, hidden=48, layers=1, **options)


@torch.no_grad()
@pytest.mark.parametrize("case", ["one", "none"])
def test_words_attend_within_their_last_mask_and_everywhere_if_it_is_empty(case, monkeypatch):
    decoder = make_decoder().eval()
    superpoints, words = torch.randn(5, 8), torch.randn(1, 1, 16)
    other = superpoints.clone()
    other[1:] += 1
    first = torch.full((1, 1, 5), -1.0)
    first[..., 0] = 0.0 if case == "one" else -1.0  # a sigmoid of 0.5 is inside
    answers = []
    own = Decoder._predict
    for features in (superpoints, other):
        guesses = iter([(first, torch.zeros(1, 1), None)])
        monkeypatch.setattr(
            Decoder, "_predict", lambda *inputs, g=guesses: next(g, None) or own(*inputs)
        )
        answers.append(decoder(features, words, torch.ones(1, 1, dtype=torch.bool)).scores[-1])
    assert torch.equal(*answers) == (case == "one")


@torch.no_grad()
def test_the_norm_behind_the_cross_attention_is_optional():
    superpoints, words = torch.randn(5, 8), torch.randn(1, 3, 16)
    mask = torch.ones(1, 3, dtype=torch.bool)
    for is_on in (False, True):
        decoder = make_decoder(cross_attn_norm=is_on)
        before = decoder(superpoints, words, mask).scores
        decoder.cross_attn_layers[0].norm.bias += torch.linspace(-2, 2, 32)
        assert torch.equal(decoder(superpoints, words, mask).scores, before) != is_on


@torch.no_grad()
def test_attention_is_pytorchs():
    layer = make_decoder().self_attn_layers[0]
    queries, keys = torch.randn(2, 3, 32), torch.randn(1, 6, 32)
    mask = torch.rand(2, 3, 6) < 0.7
    mask[..., 0] = True
    same = keys.expand(2, -1, -1)
    want, _ = layer.attn(queries, same, same, attn_mask=~mask.repeat_interleave(4, dim=0))
    # float32; measured 1.2e-7 of values up to 0.5.
    want = layer.norm(queries + want)
    assert_close(layer(queries, keys, mask), want, rtol=0, atol=5e-7)


def test_norms_are_the_published_ones():
    norms = [m for m in SparseUNet().modules() if isinstance(m, torch.nn.BatchNorm1d)]
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-4, 0.1)}


def test_sentences_of_similar_length_are_decoded_together():
    lengths = torch.tensor([6, 3, 9, 7, 5, 11, 2, 10, 8, 4])
    mask = torch.arange(12) < lengths[:, None]
    assert SIMILAR == 6
    assert similar(range(1, 10), mask) == [([6, 1, 9, 4, 3, 8], 8), ([2, 7, 5], 11)]
    assert similar([], mask) == []
