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

import cv2
import numpy as np
from plyfile import PlyData, PlyElement

from detailbase.command import read_predict
from detailbase.inference.drawing import draw_masks, tint
from detailbase.inference.referrer import DEMO, PhraseMask, Referrer
from detailbase.scans.scan import Scan
from refer3d.native.start import start_program
from refer3d.runs.errors import run
from refer3d.runs.files import atomic_write

log = logging.getLogger(__name__)

LONGEST_NAME = 60


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    predict(read_predict(argv))


def predict(args: argparse.Namespace) -> None:
    """Segments the phrases and writes the folder; see :func:`write`."""
    start_program("detailbase", precision=args.precision)
    referrer = Referrer.load(args.checkpoint or DEMO, args.config, args.device)
    scan = referrer.read(args.scan, args.unit, args.up, args.max_points)
    write(
        args.out, scan, args.sentence, referrer.mark(scan, args.sentence, args.phrases, args.turns)
    )


def write(out: Path, scan: Scan, sentence: str, answers: Sequence[PhraseMask]) -> None:
    """Writes a coloured cloud for each phrase, all masks as JSON, and the picture.

    The clouds of an earlier answer are removed when this one is whole.
    """
    earlier, entries = _clouds_in(out), []
    for index, (phrase, word, score, mask) in enumerate(answers):
        words = re.sub(r"[^a-z0-9]+", "_", phrase.lower()).strip("_")[:LONGEST_NAME] or "phrase"
        name = f"{index:02d}_{words}.ply"
        write_cloud(out / name, scan.vertices, tint(scan.colors, [mask], index), mask)
        points = scan.rows[mask].tolist()
        entries.append(
            {
                "phrase": phrase,
                "word": word,
                "score": round(score, 4),
                "file": name,
                "count": len(points),
                "points": points,
            }
        )
        result = f"{len(points):8d} points   score {score:.2f}" if points else "nothing found"
        log.info("%-30s %-28s   %s", phrase, result, out / name)
    answer = {"sentence": sentence, "points": scan.total, "phrases": entries}
    answer["left_out"] = scan.total - len(scan.rows)
    with atomic_write(out / "masks.json") as file:
        file.write(json.dumps(answer).encode())
    masks = [one.mask for one in answers]
    names = [one.phrase + ("" if one.mask.any() else " (nothing found)") for one in answers]
    image = draw_masks(scan.cloud.xyz.numpy()[scan.owner], scan.colors, sentence, names, masks)
    with atomic_write(out / "picture.png") as file:
        file.write(cv2.imencode(".png", image[..., ::-1])[1].tobytes())
    for name in earlier.difference(entry["file"] for entry in entries):
        (out / name).unlink(missing_ok=True)
    log.info("wrote %s and masks.json", out / "picture.png")


def _clouds_in(out: Path) -> set[str]:
    """Lists the clouds of an earlier answer, by its masks.json."""
    try:
        earlier = json.loads((out / "masks.json").read_text(encoding="utf-8"))
        names = {Path(entry["file"]).name for entry in earlier["phrases"]}
    except (OSError, ValueError, KeyError, TypeError):
        return set()
    return {name for name in names if name.endswith(".ply")}


def write_cloud(
    path: Path,
    vertices: np.ndarray,  # [N, 3] float64
    colors: np.ndarray,  # [N, 3] uint8
    mask: np.ndarray,  # [N] bool
) -> None:
    """Writes a binary PLY file of coloured points, each with ``selected`` 0 or 1.

    Positions have 32 bits where those represent them exactly.
    """
    is_exact = (vertices.astype(np.float32) == vertices).all()
    names = [(axis, "f4" if is_exact else "f8") for axis in "xyz"]
    names += [(name, "u1") for name in ("red", "green", "blue", "selected")]
    rows = np.empty(len(vertices), dtype=names)
    for (name, _), column in zip(names, [*vertices.T, *colors.T, mask], strict=True):
        rows[name] = column
    with atomic_write(path) as file:
        PlyData([PlyElement.describe(rows, "vertex")]).write(file)


if __name__ == "__main__":
    run(main)
