"""Finds in a scan of one's own what the phrases of a sentence name.

python -m detailbase.predict scan.ply "the brown chair next to the two windows" -o out/
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

from detailbase.inference.drawing import draw_answer, marked
from detailbase.inference.referrer import DEMO, Marked, Referrer
from detailbase.scans.scan import UNITS, UPS, Scan
from refer3d.native.start import start_program
from refer3d.runs.errors import InputError, run
from refer3d.runs.files import atomic_write

log = logging.getLogger(__name__)

LONGEST_NAME = 60


def main(argv: Sequence[str]) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m detailbase.predict",
        description="Marks in a scan what the phrases of a sentence name.",
    )
    parser.add_argument("scan", type=Path, help="a PLY file, with or without faces")
    parser.add_argument("sentence")
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--checkpoint", type=Path, default=DEMO, help="best.pth of a training")
    parser.add_argument("--config", type=Path, help="of the network; by default the run's own")
    parser.add_argument("--phrases", nargs="+", help="phrases of the sentence, instead of finding")
    parser.add_argument("--unit", choices=UNITS, default="m", help="of the scan")
    parser.add_argument("--up", choices=UPS, default="z", help="--up=-y for negative axes")
    parser.add_argument("--max_points", type=int, default=1_000_000, help="of larger scans")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", choices=("highest", "high", "medium"), default="highest")
    args = parser.parse_args(argv)
    if args.max_points < 1:
        raise InputError(f"--max_points: expected at least 1, got {args.max_points}")
    if args.out.exists() and not args.out.is_dir():
        raise InputError(f"-o: expected a folder, got the file {args.out}; name another")
    start_program("detailbase", precision=args.precision)
    referrer = Referrer.load(args.checkpoint, args.config, args.device)
    scan = referrer.read(args.scan, args.unit, args.up, args.max_points)
    if len(scan.rows) < scan.total:
        log.warning(
            "%s: has %d points; %d are left out (--max_points)",
            *(args.scan, scan.total, scan.total - len(scan.rows)),
        )
    write(args.out, scan, args.sentence, referrer.mark(scan, args.sentence, args.phrases))


def write(out: Path, scan: Scan, sentence: str, found: Sequence[Marked]) -> None:
    """A coloured cloud for each phrase, all masks as JSON, and the picture.

    The clouds of an answer that lay there are removed when this one is whole.
    """
    former, entries = _clouds_in(out), []
    for index, (phrase, word, score, mask) in enumerate(found):
        words = re.sub(r"[^a-z0-9]+", "_", phrase.lower()).strip("_")[:LONGEST_NAME] or "phrase"
        name = f"{index:02d}_{words}.ply"
        write_cloud(out / name, scan.vertices, marked(scan.colors, [mask], [index]), mask)
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
        said = f"{len(points):8d} points   score {score:.2f}" if points else "nothing found"
        log.info("%-30s %-28s   %s", phrase, said, out / name)
    answer = {"sentence": sentence, "points": scan.total, "phrases": entries}
    answer["left_out"] = scan.total - len(scan.rows)
    with atomic_write(out / "masks.json") as file:
        file.write(json.dumps(answer).encode())
    masks = [one.mask for one in found]
    names = [one.phrase + ("" if one.mask.any() else " (nothing found)") for one in found]
    image = draw_answer(scan.cloud.xyz.numpy()[scan.owner], scan.colors, sentence, names, masks)
    with atomic_write(out / "picture.png") as file:
        file.write(cv2.imencode(".png", image[..., ::-1])[1].tobytes())
    for name in former.difference(entry["file"] for entry in entries):
        (out / name).unlink(missing_ok=True)
    log.info("%s shows them, masks.json beside it lists their points", out / "picture.png")


def _clouds_in(out: Path) -> set[str]:
    """The clouds of another answer, as the masks.json that lies there names them."""
    try:
        former = json.loads((out / "masks.json").read_text(encoding="utf-8"))
        names = {Path(entry["file"]).name for entry in former["phrases"]}
    except (OSError, ValueError, KeyError, TypeError):
        return set()
    return {name for name in names if name.endswith(".ply")}


def write_cloud(
    path: Path,
    vertices: np.ndarray,  # [N, 3] float64
    colors: np.ndarray,  # [N, 3] uint8
    mask: np.ndarray,  # [N] bool
) -> None:
    """A binary PLY file of coloured points, each with ``selected`` 0 or 1.

    Places are of 32 bits where these tell them exactly.
    """
    is_exact = (vertices.astype(np.float32) == vertices).all()
    names = [
        *((axis, "f4" if is_exact else "f8") for axis in "xyz"),
        *((c, "u1") for c in ("red", "green", "blue")),
    ]
    rows = np.empty(len(vertices), dtype=[*names, ("selected", "u1")])
    for index, axis in enumerate("xyz"):
        rows[axis] = vertices[:, index]
    for index, color in enumerate(("red", "green", "blue")):
        rows[color] = colors[:, index]
    rows["selected"] = mask
    with atomic_write(path) as file:
        PlyData([PlyElement.describe(rows, "vertex")]).write(file)


if __name__ == "__main__":
    run(main)
