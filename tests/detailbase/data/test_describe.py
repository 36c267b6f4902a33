"""Descriptions made from labels hold for the objects that they mean, and for no other."""

import dataclasses

import numpy as np
import pytest

from detailbase.__main__ import main
from detailbase.config import DataConfig
from detailbase.data.batches import Batches
from detailbase.descriptions.datasets import read_split
from detailbase.descriptions.describe import choose_facts, describe, plural
from detailbase.descriptions.facts import RELATIONS, Thing, colour_name, facts_of

NAMES = ["chair", "chair", "chair", "table", "table", "box", "lamp", "box", "file cabinet"]


def block(identity, name, low, high, colour="gray") -> Thing:
    """A box of points, every 20 cm at least and 6 on an edge."""
    edges = (np.linspace(0, 1, max(6, int(5 * (b - a)))) for a, b in zip(low, high, strict=True))
    grid = np.stack(np.meshgrid(*edges), axis=-1).reshape(-1, 3)
    return Thing(identity, name, np.asarray(low) + grid * (np.asarray(high) - low), colour)


@pytest.fixture
def room():
    """Two chairs at a table with a lamp, a box below it and a larger one far away, a picture."""
    return [
        block(0, "table", (0, 0, 0.7), (1.6, 0.8, 0.75), "brown"),
        block(1, "chair", (0.1, 0.9, 0), (0.5, 1.3, 0.9)),
        block(2, "chair", (4.0, 3.0, 0), (4.4, 3.4, 0.9), "red"),
        block(3, "lamp", (0.2, 0.2, 0.76), (0.4, 0.4, 1.2)),
        block(4, "box", (0.6, 0.2, 0), (1.0, 0.5, 0.3)),
        block(5, "box", (3.2, 0.0, 0), (4.0, 0.8, 0.6)),
        block(6, "picture", (0.3, 0.0, 1.5), (0.9, 0.05, 2.0)),
        block(7, "wall", (-0.1, -0.1, 0), (6, 0, 2.5)),
        block(8, "plant", (2.1, 0.2, 0), (2.4, 0.5, 1.0), "green"),
    ]


def test_known_facts(room):
    def told(thing):
        return {
            (fact.relation, *sorted(anchor.identity for anchor in fact.anchors)): fact.excludes
            for fact in facts_of(room[thing], room)
        }

    chair, box, far_box, plant = told(1), told(4), told(5), told(8)
    assert chair["near", 0] == {2}
    assert chair["closest", 0] == {2}
    assert chair["colour",] == {2}
    assert told(2)["farthest", 0] == {1}
    assert ("on", 0) in told(3)
    assert box["under", 0] == {5}
    assert box["smaller",] == {5}
    assert far_box["larger",] == {4}
    assert ("above", 0) in told(6)
    assert ("against", 7) in told(6)
    assert ("between", 0, 5) in plant
    assert ("near", 0) not in told(2)
    assert ("near", 0) not in told(3)  # it stands on it
    assert ("on", 0) not in chair


@pytest.mark.parametrize("seed", range(5))
def test_a_description_fits_no_other_thing_of_its_name(seed):
    """Each fact holds, and the facts of a description exclude all rivals, each for itself false."""
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 5, (len(NAMES), 3)) * [1, 1, 0.2]
    high = low + rng.uniform(0.2, 1.5, low.shape)
    colours = rng.choice(["red", "blue"], len(NAMES))
    rows = enumerate(zip(NAMES, low, high, colours, strict=True))
    things = [block(i, *row[:3], str(row[3])) for i, row in rows]
    relations = {name: (holds, clearly_not) for name, holds, clearly_not in RELATIONS}
    told = 0
    for thing in things:
        rivals = {t.identity for t in things if t.name == thing.name} - {thing.identity}
        facts = facts_of(thing, things)
        for fact in facts:
            assert fact.excludes <= rivals
            if fact.relation in relations:
                holds, clearly_not = relations[fact.relation]
                (anchor,) = fact.anchors
                assert holds(thing, anchor)
                for rival in fact.excludes:
                    assert clearly_not(things[rival], anchor)
                    assert not holds(things[rival], anchor)
        chosen = choose_facts(facts, rivals, rng)
        if chosen is not None:
            told += 1
            assert rivals == set().union(*(fact.excludes for fact in chosen))
    assert told >= 3


def test_what_cannot_be_told_apart_is_left_out(room):
    twin = dataclasses.replace(room[8], identity=9)
    records = describe("scene", [room[8], twin], 3, np.random.default_rng(0))
    assert [record["object_id"] for record in records] == ["8,9"]  # "the plants"
    head = next(iter(records[0]["t2o"]))
    assert records[0]["t2o"][head] == [8, 9]
    assert records[0]["token"][int(head)] == "plants"


def test_words_name_their_objects(room):
    records = describe("scene", room, 4, np.random.default_rng(1))
    assert {int(one) for record in records for one in record["object_id"].split(",")} == {
        thing.identity for thing in room if thing.name != "wall"
    }
    for record in records:
        for place, ids in record["t2o"].items():
            names = {room[index].name.split()[-1] for index in ids}
            assert record["token"][int(place)] in names | {plural(name) for name in names}
    assert records == describe("scene", room, 4, np.random.default_rng(1))
    assert records != describe("scene", room, 4, np.random.default_rng(2))


@pytest.mark.parametrize(
    ("rgb", "name"),
    [
        ((0.9, 0.1, 0.1), "red"), ((0.2, 0.3, 0.8), "blue"), ((0.1, 0.1, 0.1), "black"),
        ((0.95, 0.95, 0.93), "white"), ((0.5, 0.5, 0.52), "gray"), ((0.45, 0.3, 0.15), "brown"),
        ((0.85, 0.75, 0.6), "beige"), ((0.95, 0.85, 0.1), "yellow"), ((0.2, 0.6, 0.3), "green"),
        ((0.8, 0.1, 0.2), "red"), ((0.95, 0.5, 0.1), "orange"), ((0.5, 0.2, 0.7), "purple"),
    ],
)  # fmt: skip
def test_colours(rgb, name):
    assert colour_name(np.tile(rgb, (9, 1))) == name


@pytest.mark.parametrize(
    ("one", "several"),
    [("chair", "chairs"), ("box", "boxes"), ("shelf", "shelves"), ("books", "books"),
     ("glass", "glasses"), ("berry", "berries"), ("tray", "trays"), ("couch", "couches")],
)  # fmt: skip
def test_plurals(one, several):
    assert plural(one) == several


@pytest.mark.parametrize("place", ["root", "prepared"])
def test_the_program_writes_a_dataset(make_dataset, capsys, tmp_path, place):
    root = make_dataset()
    folder = {"root": root, "prepared": tmp_path / "prepared"}[place]
    out = folder / "Described/described_train.json"
    main(["describe", "--root", str(root), "--each", "3", "--out", str(out)])
    options = DataConfig(root=str(root), prepared=str(tmp_path / "prepared"))
    references = read_split(options, "described", "train")
    assert "descriptions of 2 scans" in capsys.readouterr().out
    assert {reference.scene_id for reference in references} == {"scene0000_00", "scene0001_00"}
    names = {reference.words[int(p.key)] for reference in references for p in reference.phrases}
    assert names == {"table", "floor"}


def test_composed_rooms_can_be_trained_on(make_dataset, tmp_path):
    root, prepared = make_dataset(), tmp_path / "prepared"
    main(["describe", "--root", str(root), "--compose", "2", "--prepared", str(prepared)])
    options = DataConfig(root=str(root), prepared=str(prepared), scenes=("composed*",))
    references = read_split(options, "described", "train")
    batch = Batches(references, prepared, options, epoch=0)[0]
    assert batch.phrases
    assert batch.left_out == 0
