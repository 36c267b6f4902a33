"""Segments the phrases of a sentence in a scan of your own.

detailbase predict scan.ply "the gray armchair beside the white wardrobe" -o out/
"""

from __future__ import annotations

import argparse
import json
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2

from detailbase.command import read_predict
from detailbase.inference.drawing import draw_masks, tint
from detailbase.inference.referrer import DEMO, PhraseMask, Referrer
from detailbase.scans.export import WRITERS, require_writer, select_part, write_ply
from detailbase.scans.scan import Scan
from refer3d.native.start import start_program
from refer3d.runs.errors import run
from refer3d.runs.files import atomic_write
from refer3d.runs.records import read_json

log = logging.getLogger(__name__)

LONGEST_NAME = 60


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    predict(read_predict(argv))


def predict(args: argparse.Namespace) -> None:
    """Segments the phrases and writes the folder; see :func:`write`."""
    start_program("detailbase", precision=args.precision)
    for ending in args.export:
        require_writer(ending)
    referrer = Referrer.load(args.checkpoint or DEMO, args.config, args.device)
    scan = referrer.read(args.scan, args.unit, args.up, args.max_points)
    answers = referrer.mark(scan, args.sentence, args.phrases, args.turns)
    write(args.out, scan, args.sentence, answers, args.export)


def write(
    out: Path,
    scan: Scan,
    sentence: str,
    answers: Sequence[PhraseMask],
    endings: Sequence[str] = (),
) -> None:
    """Writes a coloured cloud for each phrase, all masks as JSON, and the picture.

    The files of an earlier answer are removed when this one is whole.

    Args:
        out: The folder.
        scan: The scan.
        sentence: The sentence.
        answers: Its phrases.
        endings: Formats of :data:`~detailbase.scans.export.WRITERS` to write the marked part of
            each phrase in, too.
    """
    earlier = _files_in(out)
    entries = [_write_phrase(out, scan, *pair, endings) for pair in enumerate(answers)]
    answer = {"sentence": sentence, "points": scan.total, "phrases": entries}
    answer["left_out"] = scan.total - len(scan.rows)
    with atomic_write(out / "masks.json") as file:
        file.write(json.dumps(answer).encode())
    masks = [one.mask for one in answers]
    names = [one.phrase + ("" if one.mask.any() else " (nothing found)") for one in answers]
    image = draw_masks(scan.cloud.xyz.numpy()[scan.owner], scan.colors, sentence, names, masks)
    with atomic_write(out / "picture.png") as file:
        file.write(cv2.imencode(".png", image[..., ::-1])[1].tobytes())
    for name in earlier - _files_in(out):
        (out / name).unlink(missing_ok=True)
    log.info("wrote %s and masks.json", out / "picture.png")


def _write_phrase(
    out: Path, scan: Scan, index: int, answer: PhraseMask, endings: Sequence[str]
) -> dict[str, Any]:
    """Writes the cloud and the parts of a phrase; returns its entry in masks.json."""
    phrase, word, score, mask = answer
    words = re.sub(r"[^a-z0-9]+", "_", phrase.lower()).strip("_")[:LONGEST_NAME] or "phrase"
    stem = f"{index:02d}_{words}"
    name = f"{stem}.ply"
    with atomic_write(out / name) as file:
        write_ply(file, scan.vertices, tint(scan.colors, [mask], index), selected=mask)
    parts = {f"{stem}_part.{ending}": ending for ending in endings if mask.any()}
    for part, ending in parts.items():
        with atomic_write(out / part) as file:
            WRITERS[ending](file, select_part(scan, mask))
    points = scan.rows[mask].tolist()
    result = f"{len(points):8d} points   score {score:.2f}" if points else "nothing found"
    log.info("%-30s %-28s   %s", phrase, result, ", ".join([str(out / name), *parts]))
    return {
        "phrase": phrase,
        "word": word,
        "score": round(score, 4),
        "file": name,
        "parts": [*parts],
        "count": len(points),
        "points": points,
    }


def _files_in(out: Path) -> set[str]:
    """Lists the clouds and parts of an answer, by its masks.json."""
    try:
        phrases = read_json(out / "masks.json", dict)["phrases"]
        files = [name for entry in phrases for name in (entry["file"], *entry.get("parts", ()))]
        names = {Path(name).name for name in files}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return set()
    return {name for name in names if name.rpartition(".")[2] in WRITERS}


if __name__ == "__main__":
    run(main)
