"""Descriptions made from the labels of scans, for training where people have written few."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from detailbase.command import read_describe
from detailbase.descriptions.compose import compose, join, take_apart
from detailbase.descriptions.facts import SURFACES, Fact, Thing, colour_name, facts_of
from detailbase.scans.clouds import SUFFIX, Cloud, save_cloud
from detailbase.scans.prepare import find_scans
from detailbase.scans.scannet import read_labels, read_scan
from refer3d.runs.errors import InputError
from refer3d.runs.progress import Progress
from refer3d.runs.results import save_results

UNCLEAR = frozenset({"", "object", "unknown", "remove", "otherfurniture", "other", "structure"})
"""Labels that name nothing."""
LEAST_POINTS = 8
COMPOSED = "composed{:04d}_00"
"""Names of composed rooms."""
MOST_CLAUSES = 4
OPENINGS = ("the", "a", "this is a", "there is a", "it is a", "find the", "the")
NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five"}
WORDING: Mapping[str, tuple[str, ...]] = {
    "near": ("next to {}", "near {}", "beside {}", "close to {}", "right next to {}", "by {}"),
    "on": (
        "on {}",
        "on top of {}",
        "standing on {}",
        "sitting on {}",
        "placed on {}",
        "lying on {}",
    ),
    "above": ("above {}", "over {}", "hanging above {}"),
    "under": ("under {}", "below {}", "underneath {}", "beneath {}"),
    "against": ("against {}", "along {}", "next to {}", "by {}"),
    "closest": ("closest to {}", "nearest to {}"),
    "farthest": ("farthest from {}", "furthest away from {}"),
    "between": ("between {} and {}", "in between {} and {}", "in the middle of {} and {}"),
    "largest": ("the largest one", "the biggest one"),
    "larger": ("the larger one", "the bigger one"),
    "smallest": ("the smallest one",),
    "smaller": ("the smaller one",),
}
"""Ways to say that a fact holds; braces stand for its anchors."""


class Word(NamedTuple):
    """A word of a sentence, with the objects of the phrase whose head it is."""

    text: str
    objects: tuple[int, ...] = ()


def read_things(folder: Path) -> tuple[Cloud, list[Thing]]:
    """Reads a scan in ScanNet's layout and its named objects; [] where it has no labels.

    Raises:
        InputError: A file is broken.
    """
    cloud, missing = read_scan(folder)
    if missing:
        return cloud, []
    xyz, rgb, owners = cloud.xyz.numpy(), (cloud.rgb.numpy() + 1) / 2, cloud.instances.numpy()
    things = []
    for identity, label in read_labels(folder).items():
        name, own = label.lower().strip(), owners == identity
        if name not in UNCLEAR and own.sum() >= LEAST_POINTS:
            things.append(Thing(identity, name, xyz[own].astype(float), colour_name(rgb[own])))
    return cloud, things


def describe(
    scene_id: str, things: Sequence[Thing], each: int, rng: np.random.Generator
) -> list[dict[str, Any]]:
    """Describes the things of a scan in records of DetailRefer's form.

    A thing's description holds for no other of its name. One that cannot be told apart from
    another, by anything that :func:`facts_of` knows, is left out.

    Args:
        scene_id: Name of the scan.
        things: Its objects.
        each: Descriptions of each.
        rng: Source of all choices.
    """
    records: list[dict[str, Any]] = []

    def add(name: str, ids: Sequence[int], words: Sequence[Word]) -> None:
        heads = {str(i): list(word.objects) for i, word in enumerate(words) if word.objects}
        tokens = [word.text for word in words]
        one = {"scene_id": scene_id, "ann_id": str(len(records)), "object_name": name}
        one |= {"object_id": ",".join(map(str, ids)), "token": tokens, "t2o": heads}
        records.append(one)

    named = [one for one in things if one.name not in SURFACES]
    for thing in named:
        facts = facts_of(thing, things)
        rivals = {one.identity for one in named if one.name == thing.name} - {thing.identity}
        said = set()
        for _ in range(each):
            chosen = choose_facts(facts, rivals, rng)
            if chosen is not None:
                words = sentence(thing, chosen, things, rng)
                if words not in said:
                    add(thing.name, [thing.identity], words)
                said.add(words)
    for name in sorted({one.name for one in named}):
        group = [one.identity for one in named if one.name == name]
        if len(group) > 1:
            add(name, group, plural_sentence(name, group, rng))
    return records


def choose_facts(
    facts: Sequence[Fact], rivals: set[int], rng: np.random.Generator
) -> list[Fact] | None:
    """Chooses facts at random that together exclude all rivals, and sometimes one more.

    Returns None if there are none.
    """
    chosen: list[Fact] = []
    left = set(rivals)
    for index in rng.permutation(len(facts)):
        fact = facts[index]
        if left & fact.excludes:
            chosen.append(fact)
            left -= fact.excludes
    if left or len(chosen) > MOST_CLAUSES:
        return None
    more = [fact for fact in facts if fact not in chosen]
    for _ in range(int(rng.integers(0 if chosen else 1, 3))):
        if more and len(chosen) < MOST_CLAUSES:
            chosen.append(more.pop(int(rng.integers(len(more)))))
    return chosen


def sentence(
    thing: Thing, facts: Sequence[Fact], things: Sequence[Thing], rng: np.random.Generator
) -> tuple[Word, ...]:
    """Says that some facts hold for a thing."""
    noun = name_words(thing.name, (thing.identity,))
    facts = [facts[index] for index in rng.permutation(len(facts))]
    with_colour = any(fact.relation == "colour" for fact in facts)
    facts = [fact for fact in facts if fact.relation != "colour"]
    late = with_colour and rng.random() < 0.3
    named = [*_words(thing.colour if with_colour and not late else ""), *noun]
    words = [*_words(_one_of(OPENINGS, rng)), *named]
    for place, fact in enumerate(facts):
        clause = say(fact, things, rng)
        if place == 0 and clause[0].text != "the":
            joint = _words(_one_of(("", "", "that is", "which is"), rng))
            words += [*joint, *clause]
        elif rng.random() < 0.5:
            words += [Word("."), Word("it"), Word("is"), *clause]
        elif rng.random() < 0.5:
            words += [*_words(". the"), *noun, Word("is"), *clause]
        else:
            words += [*(_words("and it is" if place else ". it is")), *clause]
    if late:
        words += [Word("."), *_words(f"it is {thing.colour}")]
    return (*words, Word("."))


def say(fact: Fact, things: Sequence[Thing], rng: np.random.Generator) -> list[Word]:
    """Puts a fact into words."""
    parts = _one_of(WORDING[fact.relation], rng).split("{}")
    words = _words(parts[0])
    for anchor, rest in zip(fact.anchors, parts[1:], strict=True):
        is_one = sum(one.name == anchor.name for one in things) == 1
        article = "the" if is_one or anchor.name.endswith("s") else "a"
        colour = anchor.colour if anchor.name not in SURFACES and rng.random() < 0.3 else ""
        if anchor.name in SURFACES:
            article, colour = "the", ""
        words += [*_words(f"{article} {colour}"), *name_words(anchor.name, (anchor.identity,))]
        words += _words(rest)
    return words


def plural_sentence(name: str, group: Sequence[int], rng: np.random.Generator) -> tuple[Word, ...]:
    """Names all things of a name."""
    count = NUMBERS.get(len(group), "")
    openings = ("all the", f"the {count}", "the", f"all {count}", f"there are {count}")
    opening = _one_of(openings, rng)
    *before, last = name.split()
    return (
        *_words(opening),
        *_words(" ".join(before)),
        Word(plural(last), tuple(group)),
        Word("."),
    )


def plural(noun: str) -> str:
    """Forms the plural of a noun, by the regular rules."""
    if noun.endswith("s"):
        return noun if not noun.endswith("ss") else f"{noun}es"
    if noun.endswith(("x", "ch", "sh")):
        return f"{noun}es"
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return f"{noun[:-1]}ies"
    return f"{noun[:-1]}ves" if noun.endswith("lf") else f"{noun}s"


def name_words(name: str, objects: tuple[int, ...]) -> list[Word]:
    """Splits a name; its last word is the head."""
    *before, last = name.split()
    return [*_words(" ".join(before)), Word(last, objects)]


def _one_of(texts: Sequence[str], rng: np.random.Generator) -> str:
    return texts[int(rng.integers(len(texts)))]


def _words(text: str) -> list[Word]:
    return [Word(word) for word in text.split()]


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    describe_all(read_describe(argv))


def describe_all(args: argparse.Namespace) -> None:
    """Describes the scans of a list and writes one file.

    Raises:
        InputError: A file is broken, or no scan has labels.
    """
    scans = find_scans(args.root, split=args.split)
    rng = np.random.default_rng(args.seed)
    records: list[dict[str, Any]] = []
    rooms, unlabelled = [], 0
    with Progress("scans", len(scans) + args.compose) as progress:
        for scan in scans:
            cloud, things = read_things(scan.folder)
            unlabelled += not things
            records += describe(scan.folder.name, things, args.each, rng)
            if args.compose and (room := take_apart(cloud, things)):
                rooms.append(room)
            progress.advance()
        if args.compose and not rooms:
            raise InputError(
                "--compose: expected scans with a labelled floor or table, got none in "
                f"{args.root}; leave it out"
            )
        for number in range(args.compose):
            cloud, things = join(compose(rooms, rng))
            name = COMPOSED.format(number)
            save_cloud(cloud, (args.prepared or args.root) / "train" / f"{name}{SUFFIX}")
            told = [one for one in things if len(one.points) >= LEAST_POINTS]
            records += describe(name, told, 1, rng)
            progress.advance()
    if not records:
        raise InputError(
            f"--root: {args.root}: none of its {len(scans)} scans has labelled objects; their "
            "segs.json, aggregation.json and labels.ply are needed"
        )
    out = args.out or args.root / "Described" / f"described_{args.split}.json"
    save_results(out, records)
    lacking = f"; {unlabelled} have no labels" if unlabelled else ""
    composed = f" and {args.compose} composed rooms" if args.compose else ""
    sys.stdout.write(
        f"{out}: {len(records)} descriptions of {len(scans)} scans{composed}{lacking}\n"
    )
