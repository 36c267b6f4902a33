"""Batches: what is in them, that they repeat, and that every description comes once."""

import dataclasses
import os
import pickle
import signal
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from detailbase.config import AugmentConfig, DataConfig
from detailbase.data.batches import (
    Batch,
    Batches,
    crop,
    deal,
    group,
    make_batch,
    name_killed_workers,
)
from detailbase.descriptions.datasets import DATASETS, read_references
from detailbase.descriptions.references import Phrase, Reference
from detailbase.scans.clouds import NONE, Cloud, load_cloud
from refer3d.runs.errors import InputError
from tests.errors import raises

from .conftest import BOX, DETAILREFER, FLOOR, cut

STILL = AugmentConfig(jitter_chance=0, flip=0, rotate=0, elastic=0, color_chance=0)
OPTIONS = DataConfig(max_sentences=2, scenes_per_batch=2, workers=0)


@pytest.fixture
def references(write_json):
    return read_references(write_json(DETAILREFER), DATASETS["detailrefer"])


def make_cloud(seed: int = 0, count: int = 300) -> Cloud:
    """Points in 20 superpoints and 6 objects, 10 to 15."""
    rng = torch.Generator().manual_seed(seed)
    superpoints = torch.randint(20, (count,), generator=rng).unique(return_inverse=True)[1]
    instances = torch.randint(10, 16, (count,), generator=rng)
    instances = torch.where(torch.rand(count, generator=rng) < 0.8, 10 + superpoints % 6, instances)
    instances[torch.rand(count, generator=rng) < 0.1] = NONE
    xyz = torch.rand(count, 3, generator=rng)
    return Cloud(xyz, xyz, superpoints, torch.full((count,), NONE), instances)


def describe(*object_ids: tuple[int, ...]) -> Reference:
    """A description whose words name some objects each."""
    phrases = tuple(Phrase(str(k), ids) for k, ids in enumerate(object_ids))
    return Reference("scene", "0", tuple("abcdefgh"), phrases)


def equal(one: object, other: object) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    return one == other


def assert_same(one: Batch, other: Batch) -> None:
    for field in dataclasses.fields(Batch):
        values = getattr(one, field.name), getattr(other, field.name)
        assert equal(*values), field.name


def test_a_batch_of_a_prepared_scan(prepared, references):
    batch = Batches(references, prepared, OPTIONS)[0]
    assert [r.ann_id for r in batch.references] == ["0", "1"]
    assert batch.scene_of_sentence == [0, 0]
    assert batch.sentence_of_phrase == [0, 0, 1, 1]
    assert batch.query_of_phrase == [2, 5, 2, 5]
    assert (batch.point_starts, batch.superpoint_starts) == ([0, FLOOR + BOX], [0, 3])
    is_box = torch.arange(FLOOR + BOX) >= FLOOR
    for mask, expected in zip(batch.point_targets, [is_box, ~is_box] * 2, strict=True):
        assert torch.equal(mask, expected)
    assert [target.tolist() for target in batch.targets] == [[0, 0, 1], [1, 1, 0]] * 2


def test_voxels_hold_the_means_of_their_points():
    cloud, options = make_cloud(), dataclasses.replace(OPTIONS, voxels_per_metre=4)
    batch = make_batch([cloud, make_cloud(1)], [[describe((10,))], [describe((11,))]], options)
    assert len(batch.voxels.unique(dim=0)) == len(batch.voxels)
    own = batch.voxels[batch.point_to_voxel[:300]]
    assert (own[:, 0] == 0).all()
    assert torch.equal(own[:, 1:], ((cloud.xyz - cloud.xyz.amin(dim=0)) * 4).floor().long())
    rows = torch.cat([cloud.rgb, cloud.xyz], dim=1)
    for voxel in (0, 5, 17):
        expected = rows[batch.point_to_voxel[:300] == voxel].mean(dim=0)
        assert_close(batch.features[voxel], expected)


def test_scans_stand_one_behind_the_other():
    clouds = [make_cloud(0), make_cloud(1, 200)]
    batch = make_batch(clouds, [[describe((10,))], [describe((11,))]], OPTIONS)
    first = clouds[0].num_superpoints
    assert batch.point_starts == [0, 300, 500]
    assert batch.superpoint_starts == [0, first, first + clouds[1].num_superpoints]
    expected = torch.cat([clouds[0].superpoints, first + clouds[1].superpoints])
    assert torch.equal(batch.superpoints, expected)
    assert torch.equal(batch.instances, torch.cat([cloud.instances for cloud in clouds]))
    scenes = batch.voxels[batch.point_to_voxel, 0]
    assert scenes.tolist() == [0] * 300 + [1] * 200


def test_superpoints_are_targets_by_majority():
    """Against counting, point by point."""
    clouds = [make_cloud(seed) for seed in range(2)]
    references = [[describe((10,), (11, 12), ()), describe((99,))], [describe((15, 10, 13))]]
    batch = make_batch(clouds, references, OPTIONS)
    assert len(batch.targets) == len(batch.point_targets) == 5
    rows = zip(batch.phrases, batch.sentence_of_phrase, batch.targets, strict=True)
    for index, (phrase, sentence, target) in enumerate(rows):
        cloud = clouds[batch.scene_of_sentence[sentence]]
        belongs = [int(i) in phrase.object_ids for i in cloud.instances]
        assert batch.point_targets[index].tolist() == belongs
        inside, total = Counter(), Counter()
        for superpoint, is_inside in zip(cloud.superpoints.tolist(), belongs, strict=True):
            inside[superpoint] += is_inside
            total[superpoint] += 1
        expected = [2 * inside[s] > total[s] for s in range(cloud.num_superpoints)]
        assert target.tolist() == expected
    assert batch.targets[1].any()


def test_superpoints_have_the_class_of_most_points():
    semantic = torch.tensor([3, 5, 5, NONE, NONE, 7])
    superpoints = torch.tensor([0, 0, 0, 1, 1, 1])
    cloud = Cloud(torch.rand(6, 3), torch.rand(6, 3), superpoints, semantic, semantic)
    assert make_batch([cloud], [[]], OPTIONS).classes.tolist() == [5, NONE]


def test_half_of_a_superpoint_is_not_enough():
    instances = torch.tensor([1, 1, 2, 2, 1, 1, 2])
    superpoints = torch.tensor([0, 0, 0, 0, 1, 1, 1])
    cloud = Cloud(torch.rand(7, 3), torch.rand(7, 3), superpoints, instances, instances)
    batch = make_batch([cloud], [[describe((1,), (1, 2))]], OPTIONS)
    assert [target.tolist() for target in batch.targets] == [[0, 1], [1, 1]]


def test_phrases_without_points_are_scored_but_not_trained_on():
    references = [[describe((10,), (99,)), describe((99,), ())], [describe((11, 99))]]
    clouds = [make_cloud(0), make_cloud(1)]
    trained = make_batch(clouds, references, OPTIONS, np.random.default_rng(0).spawn(len(clouds)))
    # A phrase without objects is trained on: its mask is empty.
    assert [phrase.object_ids for phrase in trained.phrases] == [(10,), (), (11, 99)]
    assert trained.sentence_of_phrase == [0, 1, 2]
    assert trained.scene_of_sentence == [0, 0, 1]
    assert trained.left_out == 2
    assert not trained.targets[1].any()
    scored = make_batch(clouds, references, OPTIONS)
    assert len(scored.phrases) == 5
    assert scored.left_out == 0
    assert not any(scored.point_targets[index].any() for index in (1, 2, 3))


def test_a_batch_may_be_left_without_phrases():
    batch = make_batch([make_cloud()], [[describe((99,))]], OPTIONS, [np.random.default_rng(0)])
    assert batch.references == batch.phrases == list(batch.targets) == batch.point_targets == []


def test_every_description_comes_once_an_epoch(prepared, references):
    def drawn(epoch):
        batches = Batches(references, prepared, OPTIONS, seed=5, epoch=epoch)
        return [r for index in range(len(batches)) for r in batches[index].references]

    assert Counter(drawn(0)) == Counter(drawn(1)) == Counter(references)
    assert drawn(0) == drawn(0)
    assert any(drawn(0) != drawn(epoch) for epoch in (1, 2, 3))


@given(st.integers(0, 40), st.integers(1, 5), st.integers(0, 100))
def test_dealt_batches_hold_everything_once(total, count, seed):
    sizes = np.random.default_rng(seed).integers(1, 1000, total)
    batches = deal(sizes, count, np.random.default_rng(seed))
    assert sorted(index for batch in batches for index in batch) == list(range(total))
    lengths = [len(batch) for batch in batches]
    assert not lengths or (max(lengths) <= count and max(lengths) - min(lengths) <= 1)


def test_no_small_scan_is_dealt_alone_or_with_small_ones_only():
    sizes = [46_000] * 21 + [7_500] * 12
    orders = set()
    for seed in range(20):
        batches = deal(sizes, 2, np.random.default_rng(seed))
        assert all(any(index < 21 for index in batch) for batch in batches)
        orders.add(tuple(map(tuple, batches)))
    assert len(orders) == 20  # scans meet others each time


def test_groups_are_of_one_scan_and_not_too_large(references):
    items = group(references, 2, np.random.default_rng(0))
    assert [(item[0].scene_id, len(item)) for item in items] == [
        *(("scene0000_00", 2), ("scene0000_00", 1)),
        *(("scene0001_00", 2), ("scene0001_00", 1)),
    ]
    assert all(r.scene_id == item[0].scene_id for item in items for r in item)


def test_workers_read_ahead(prepared, references, monkeypatch):
    counts = []
    loader = torch.utils.data.DataLoader
    monkeypatch.setattr(
        "detailbase.data.batches.DataLoader",
        lambda *args, **options: counts.append(options["num_workers"]) or loader(*args, **options),
    )
    for workers in (0, 1, 9):
        options = dataclasses.replace(OPTIONS, workers=workers)
        list(Batches(references[:3], prepared, options).loader())
    assert counts == [0, 1, 2]  # no more than there are batches


@pytest.mark.parametrize("epoch", [None, 3])
def test_workers_change_nothing(prepared, references, epoch):
    def batches(workers):
        options = dataclasses.replace(OPTIONS, workers=workers)
        return list(Batches(references, prepared, options, seed=7, epoch=epoch).loader())

    alone, helped = batches(0), batches(2)
    assert len(alone) == len(helped) == (4 if epoch is None else 2)
    for one, other in zip(alone, helped, strict=True):
        assert_same(one, other)


def test_seeds_and_epochs_differ(prepared, references):
    options = dataclasses.replace(OPTIONS, max_sentences=8)
    shapes = [
        Batches(references, prepared, options, seed, epoch)[0].features[:, 3:].abs().sum().item()
        for seed, epoch in [(1, 0), (1, 1), (2, 0), (1, 0)]
    ]
    assert len(set(shapes)) == 3
    assert shapes[0] == shapes[3]


def test_an_epoch_can_be_entered_later(prepared, references):
    whole = Batches(references, prepared, OPTIONS, seed=7, epoch=3)
    rest = Batches(references, prepared, OPTIONS, seed=7, epoch=3, first=1)
    assert (len(whole), len(rest)) == (2, 1)
    assert_same(whole[1], rest[0])


def test_evaluation_changes_nothing(prepared, references):
    batches = Batches(references, prepared, dataclasses.replace(OPTIONS, max_sentences=32))
    assert [len(batch.references) for batch in batches.loader()] == [3, 3]
    batch = batches[0]
    assert_same(batch, batches[0])
    xyz = load_cloud(prepared / "train" / "scene0000_00_refer.pth").xyz
    assert_close(batch.features[batch.point_to_voxel, 3:], xyz)  # nowhere two places in a voxel


def test_large_scans_are_cropped_in_training_and_refused_in_evaluation(prepared, references):
    options = dataclasses.replace(OPTIONS, max_points=10)
    batch = Batches(references, prepared, options, epoch=0)[0]
    assert batch.point_starts == [0, 10, 20]
    with pytest.raises(InputError, match=r"refer.pth: has 24 points, more than --data.max_points"):
        Batches(references, prepared, options)[0]


def test_a_crop_is_of_one_piece():
    cloud = make_cloud(count=1000)
    part = crop(cloud, 100, np.random.default_rng(0))
    assert len(part) == 100
    assert part.superpoints.unique().tolist() == list(range(part.num_superpoints))
    centre = cloud.xyz[int(np.random.default_rng(0).integers(1000)), :2]
    farthest = (part.xyz[:, :2] - centre).norm(dim=1).max()
    assert int(((cloud.xyz[:, :2] - centre).norm(dim=1) < farthest).sum()) == 99


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_scan_is_an_error_in_one_line(prepared, references, workers):
    cut(prepared / "train" / "scene0000_00_refer.pth", 500)
    options = dataclasses.replace(OPTIONS, workers=workers)
    with pytest.raises(InputError) as caught:
        list(Batches(references, prepared, options).loader())
    assert "scene0000_00_refer.pth: cannot be read" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_scan_is_an_error(prepared, references):
    unknown = dataclasses.replace(references[0], scene_id="scene0808_00")
    with pytest.raises(InputError, match=r"holds scene0808_00_refer.pth; run scripts/prepare_scan"):
        Batches([*references, unknown], prepared, OPTIONS)


def test_few_tensors_are_sent():
    """Each costs a worker a file descriptor; 32 sentences of 8 phrases would be 256."""
    cloud = make_cloud()
    few, many = (make_batch([cloud], [[describe(*[(10,)] * 8)] * n], OPTIONS) for n in (1, 32))

    def count(batch):
        return sum(
            isinstance(getattr(batch, f.name), torch.Tensor) for f in dataclasses.fields(batch)
        )

    assert count(few) == count(many) < 10
    assert len(many.targets) == 256
    assert_same(pickle.loads(pickle.dumps(many)), many)


def test_a_batch_goes_to_a_device():
    batch = make_batch([make_cloud()], [[describe((10,))]], OPTIONS).to("meta")
    tensors = [value for value in vars(batch).values() if isinstance(value, torch.Tensor)]
    assert {tensor.device.type for tensor in [*tensors, *batch.targets]} == {"meta"}


def test_a_killed_reading_process_is_told(prepared, references, monkeypatch):
    monkeypatch.setattr(Batches, "_read", lambda self, index: os.kill(os.getpid(), signal.SIGKILL))
    options = dataclasses.replace(OPTIONS, workers=1)
    with raises(InputError, "--data.workers", "0", "--resume"), name_killed_workers():
        list(Batches(references, prepared, options).loader())


def test_tensors_do_not_pass_through_shared_memory(prepared, references):
    assert isinstance(Batches(references, prepared, OPTIONS)._pack(0), bytes)
