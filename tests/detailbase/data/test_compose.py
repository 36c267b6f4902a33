"""Composed rooms: nothing overlaps, everything stands or lies on something."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from detailbase.descriptions.compose import compose, is_free, join, move, take_apart
from detailbase.descriptions.facts import Thing, is_on
from detailbase.scans.clouds import Cloud

BOXES = {
    "floor": ((0, 0, 0), (5, 4, 0.01)),
    "wall": ((0, -0.1, 0), (5, 0, 2.5)),
    "table": ((1, 1, 0), (2.2, 1.8, 0.75)),
    "chair": ((3, 1, 0), (3.4, 1.4, 0.9)),
    "cup": ((1.3, 1.3, 0.76), (1.4, 1.4, 0.86)),
    "picture": ((3, 0, 1.4), (3.6, 0.05, 1.9)),
}


def make_room(shift: float):
    """A room of boxes, at any height; each has two superpoints of its own."""
    points = []
    for low, high in BOXES.values():
        sides = zip(low, high, strict=True)
        edges = [np.arange(a, b + 1e-9, max((b - a) / 24, 0.02)) for a, b in sides]
        grid = np.stack(np.meshgrid(*edges, indexing="ij"), axis=-1).reshape(-1, 3)
        points.append(grid + np.array([0, 0, shift]))
    sizes = torch.tensor([len(one) for one in points])
    owners = torch.arange(len(points)).repeat_interleave(sizes)
    xyz = torch.from_numpy(np.concatenate(points)).float()
    superpoints = 2 * owners + torch.arange(len(xyz)) % 2
    cloud = Cloud(xyz, torch.zeros(len(xyz), 3), superpoints, owners, owners)
    return cloud, [Thing(i, name, points[i], "gray") for i, name in enumerate(BOXES)]


@pytest.fixture(scope="module")
def rooms():
    return [take_apart(*make_room(shift)) for shift in (0.0, 1.0)]


def test_pieces_are_told_by_what_carries_them(rooms):
    kinds = {piece.name: piece.kind for piece in rooms[0].pieces}
    assert kinds == {
        "floor": "shell", "wall": "shell", "table": "stands", "chair": "stands", "cup": "lies",
        "picture": "hangs",
    }  # fmt: skip
    (cup,) = (piece for piece in rooms[0].pieces if piece.name == "cup")
    assert cup.support is not None
    assert cup.support.name == "table"


def test_a_scan_without_ground_is_no_room():
    cloud, things = make_room(0.0)
    assert take_apart(cloud, things[1:]) is None
    assert take_apart(cloud, []) is None


def test_things_of_a_table_alone_lie_in_rooms_and_the_other_way_round(rooms):
    cloud, things = make_room(0.0)
    table = take_apart(cloud, [one for one in things if one.name in ("table", "cup")])
    assert table is None  # half is not most
    cups = [Thing(9, "bowl", things[4].points + np.array([0.3, 0.2, 0]), "gray"), things[4]]
    cloud = replace(cloud, instances=torch.where(cloud.instances == 5, 9, cloud.instances))
    table = take_apart(cloud, [things[2], *cups])
    assert table is not None
    assert {one.name: one.kind for one in table.pieces} == {
        "table": "shell", "cup": "stands", "bowl": "stands",
    }  # fmt: skip
    rng = np.random.default_rng(0)
    for _ in range(8):
        pieces = compose([table, table], rng)
        assert {one.name for one in pieces} <= {"table", "cup", "bowl"}
        pieces = compose([rooms[0], table], rng)
        on_table = not any(one.name == "floor" for one in pieces)
        for one in pieces:
            if one.name in ("cup", "bowl"):
                assert one.kind == ("stands" if on_table else "lies")


@pytest.mark.parametrize("seed", range(6))
def test_nothing_overlaps_and_everything_is_carried(rooms, seed):
    pieces = compose(rooms, np.random.default_rng(seed))
    (floor,) = (piece for piece in pieces if piece.name == "floor")
    height, (lowest, highest) = float(np.median(floor.xyz[:, 2])), floor.box()
    standing = [piece for piece in pieces if piece.kind == "stands"]
    for index, piece in enumerate(standing):
        low, high = piece.box()
        assert is_free(low, high, [one.box() for one in standing[:index]])
        assert (low > lowest - 0.2).all()
        assert (high < highest + 0.2).all()
        assert abs(np.percentile(piece.xyz[:, 2], 2) - height) < 0.05
    for piece in pieces:
        if piece.kind == "lies":
            assert any(is_on(piece.thing(0), one.thing(1)) for one in standing)


def test_the_scan_holds_its_pieces(rooms):
    pieces = compose(rooms, np.random.default_rng(3))
    cloud, things = join(pieces)
    assert [thing.name for thing in things] == [piece.name for piece in pieces]
    assert cloud.superpoints.unique().tolist() == list(range(cloud.num_superpoints))
    for index, piece in enumerate(pieces):
        own = cloud.instances == index
        assert int(own.sum()) == len(piece.cloud) == len(things[index].points)
        assert len(cloud.superpoints[own].unique()) == 2
    again = join(compose(rooms, np.random.default_rng(3)))[0]
    other = join(compose(rooms, np.random.default_rng(4)))[0]
    assert torch.equal(cloud.xyz, again.xyz)
    assert cloud.xyz.shape != other.xyz.shape or not torch.equal(cloud.xyz, other.xyz)


def test_a_moved_piece_keeps_its_shape(rooms):
    (table,) = (piece for piece in rooms[0].pieces if piece.name == "table")
    moved = move(table, np.array([2.0, 3.0, 0.5]), np.random.default_rng(0))
    before, after = (torch.pdist(one.cloud.xyz[::50].double()) for one in (table, moved))
    torch.testing.assert_close(after, before, rtol=0, atol=1e-5)
    low, high = moved.box()
    assert abs((low + high) / 2 - [2, 3]).max() < 0.1
    assert abs(np.percentile(moved.xyz[:, 2], 2) - 0.5) < 1e-5
