"""New rooms from the furniture of labelled scans, so that few scans show many arrangements.

Walls and what hangs on them stay with some of a room's furniture; pieces of any room are stood on
the rest of its floor, and small things laid on what stands there. A scan of a table alone is a
room whose ground is the table. Mix3D (Nekrasov et al., 3DV 2021) joins whole scenes for the same
purpose; here nothing overlaps, so that places can be told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch

from detailbase.descriptions.facts import SURFACES, TOUCHING, Thing, colour_name, gap, is_over
from detailbase.scans.clouds import Cloud

SHELL = SURFACES | {"door", "window", "curtain", "blinds", "whiteboard", "shower curtain"}
"""Names of what belongs to the room rather than into it."""
LOW, LOW_ON_TABLE = 0.15, 0.03
"""Largest height above the floor, or above a table, of the lowest point of what stands there."""
APART = 0.03
"""Least distance in metres between the boxes of two pieces, seen from above."""
TOPS = (0.25, 1.3)
"""Heights of furniture that things are laid on, in metres."""
TOP = 0.05
"""Largest depth of a table's top below its upper end, in metres."""
TRIES = 10
"""Places that are tried for a piece."""


@dataclass(frozen=True, eq=False)
class Piece:
    """An object with its points."""

    name: str
    cloud: Cloud
    kind: Literal["shell", "stands", "lies", "hangs", "floats"] = "floats"
    """Its place; a piece floats where what carries it was not scanned or labelled."""
    support: Piece | None = None
    """What it lies on."""
    raised: float = 0.0
    """Height of its lowest point above the floor or its support, in metres."""

    @property
    def xyz(self) -> np.ndarray:  # [N, 3]
        """Its points."""
        return self.cloud.xyz.numpy()

    def thing(self, identity: int) -> Thing:
        """Returns what is told of it."""
        rgb = (self.cloud.rgb.numpy() + 1) / 2
        return Thing(identity, self.name, self.xyz.astype(float), colour_name(rgb))

    def box(self) -> tuple[np.ndarray, np.ndarray]:  # [2], [2]
        """Returns its corners, seen from above, without stray points."""
        low, high = np.percentile(self.xyz[:, :2], [2, 98], axis=0)
        return low, high


@dataclass(frozen=True)
class Room:
    """The pieces of a scan, and its ground."""

    pieces: tuple[Piece, ...]
    ground: np.ndarray
    """[N, 3] points of the floor, or of the table."""
    is_table: bool = False

    @property
    def height(self) -> float:
        """Height of the ground in metres."""
        return float(np.median(self.ground[:, 2]))


def take_apart(cloud: Cloud, things: Sequence[Thing]) -> Room | None:
    """Takes a scan apart.

    Args:
        cloud: The scan.
        things: Its objects.

    Returns:
        None where there is neither a floor nor a table that most things stand on.
    """
    grounds = [one for one in things if one.name == "floor"]
    is_table = not grounds
    if is_table:
        largest = max(things, key=lambda one: one.size, default=None)
        above = [one for one in things if largest and one.low[2] > largest.high[2] - TOP]
        carried = [one for one in above if largest and is_over(one, largest)]
        grounds = [largest] if largest and 2 * len(carried) > len(things) else []
    if not grounds:
        return None
    ground = np.concatenate([one.points for one in grounds])
    if is_table:  # its legs are no ground
        ground = ground[ground[:, 2] > grounds[0].high[2] - TOP]
    room = Room((), ground, is_table)
    shell = [one for one in things if one.name in SHELL or one in grounds]
    pieces: dict[int, Piece] = {}
    for one in sorted(things, key=lambda one: float(one.low[2])):  # supports come first
        piece = Piece(one.name, cloud.select(cloud.instances == one.identity))
        below = [s for s in things if s not in shell and is_carried(one, s)]
        if one in shell:
            piece = replace(piece, kind="shell")
        elif one.low[2] < room.height + (LOW_ON_TABLE if is_table else LOW):
            raised = max(0.0, float(one.low[2]) - room.height)
            piece = replace(piece, kind="stands", raised=raised)
        elif below and below[0].identity in pieces:
            piece = replace(piece, kind="lies", support=pieces[below[0].identity])
        elif any(gap(one, other) < TOUCHING for other in shell):
            piece = replace(piece, kind="hangs")
        pieces[one.identity] = piece
    return replace(room, pieces=tuple(pieces.values()))


def is_carried(one: Thing, other: Thing) -> bool:
    """Tells whether a thing lies on another, or in it, as books in a shelf."""
    is_higher = one.size < other.size and one.low[2] > other.low[2]
    return bool(is_higher and is_over(one, other) and gap(one, other) < TOUCHING)


def compose(rooms: Sequence[Room], rng: np.random.Generator) -> list[Piece]:
    """Furnishes one of the rooms with pieces of all of them.

    What stands on a table alone can lie on a room's furniture, and the other way round.
    """
    room = rooms[int(rng.integers(len(rooms)))]
    standing, small = [], []
    for other in rooms:
        for one in other.pieces:
            if one.kind == "stands" and not other.is_table:
                standing.append(one)
            elif one.kind in ("stands", "lies"):
                small.append(one)
    lying = [replace(one, kind="lies", raised=0.0) for one in small]
    if room.is_table:
        standing, lying = [replace(one, kind="stands", raised=0.0) for one in small], []
    share = rng.uniform(0.2, 0.8)
    kept = [one for one in room.pieces if one.kind == "stands" and rng.random() < share]
    on_it = [one for one in room.pieces if one.support in kept and rng.random() < share]
    pieces = [one for one in room.pieces if one.kind in ("shell", "hangs")] + kept + on_it
    boxes, laid = [one.box() for one in kept], [one.box() for one in on_it]
    lowest, highest = room.ground[:, :2].min(axis=0), room.ground[:, :2].max(axis=0)

    def add_standing(piece: Piece) -> None:
        for _ in range(TRIES):
            place = room.ground[int(rng.integers(len(room.ground)))]
            moved = move(piece, np.array([*place[:2], room.height + piece.raised]), rng)
            low, high = moved.box()
            if (low > lowest).all() and (high < highest).all() and is_free(low, high, boxes):
                boxes.append((low, high))
                kept.append(moved)
                pieces.append(moved)
                return

    def add_lying(piece: Piece, support: Piece) -> None:
        xyz, (lowest, highest) = support.xyz, support.box()
        for _ in range(TRIES):
            place = xyz[int(rng.integers(len(xyz)))]
            top = float(xyz[np.abs(xyz[:, :2] - place[:2]).max(axis=1) < 0.06, 2].max())
            moved = move(piece, np.array([*place[:2], top + 0.005]), rng)
            low, high = moved.box()
            is_inside = (low > lowest - 0.05).all() and (high < highest + 0.05).all()
            if is_inside and top >= np.percentile(xyz[:, 2], 60) and is_free(low, high, laid):
                laid.append((low, high))
                pieces.append(moved)
                return

    for _ in range(int(rng.integers(4, 12)) if standing else 0):
        piece = standing[int(rng.integers(len(standing)))]
        for _ in range(2 if rng.random() < 0.35 else 1):  # two of a kind are told apart by places
            add_standing(piece)
    low, high = TOPS
    tops = [o for o in kept if low < np.percentile(o.xyz[:, 2], 98) - room.height < high]
    for _ in range(int(rng.integers(3, 10)) if tops and lying else 0):
        add_lying(lying[int(rng.integers(len(lying)))], tops[int(rng.integers(len(tops)))])
    return pieces


def is_free(
    low: np.ndarray, high: np.ndarray, boxes: Sequence[tuple[np.ndarray, np.ndarray]]
) -> bool:
    """Tells whether a box, [2] and [2], is apart from others, seen from above."""
    return not any((low < b + APART).all() and (high > a - APART).all() for a, b in boxes)


def move(piece: Piece, place: np.ndarray, rng: np.random.Generator) -> Piece:
    """Sets a piece's lowest point to a place [3], turned by any angle, in other light."""
    xyz = piece.xyz.astype(float)
    low, high = piece.box()
    angle = rng.uniform(0, 2 * np.pi)
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])
    base = np.array([*(low + high) / 2, np.percentile(xyz[:, 2], 2)])
    gain = np.exp(rng.normal(0, 0.15) + rng.normal(0, 0.06, 3))
    rgb = np.clip((piece.cloud.rgb.numpy() + 1) * gain - 1, -1, 1)
    moved = replace(
        piece.cloud,
        xyz=torch.from_numpy((xyz - base) @ turn + place).float(),
        rgb=torch.from_numpy(rgb).float(),
    )
    return replace(piece, cloud=moved)


def join(pieces: Sequence[Piece]) -> tuple[Cloud, list[Thing]]:
    """Joins pieces to a scan, centred on its mean; its objects are numbered in their order."""
    xyz = torch.cat([one.cloud.xyz for one in pieces])
    owners = torch.arange(len(pieces)).repeat_interleave(
        torch.tensor([len(one.cloud) for one in pieces])
    )
    starts = np.cumsum([0, *(one.cloud.num_superpoints for one in pieces)])
    superpoints = [
        one.cloud.superpoints + int(start) for one, start in zip(pieces, starts, strict=False)
    ]
    cloud = Cloud(
        xyz=xyz - xyz.mean(dim=0),
        rgb=torch.cat([one.cloud.rgb for one in pieces]),
        superpoints=torch.cat(superpoints),
        semantic=torch.cat([one.cloud.semantic for one in pieces]),
        instances=owners,
    )
    return cloud, [one.thing(index) for index, one in enumerate(pieces)]
