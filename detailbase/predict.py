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
import torch
from plyfile import PlyData, PlyElement

from detailbase import answering
from detailbase.checkpoint import load_network
from detailbase.command import RESOLVED, check, check_backend
from detailbase.config import Config
from detailbase.data.dataset import make_batch
from detailbase.data.references import Phrase, Reference, split_words
from detailbase.data.scan import UNITS, UPS, Scan, read_scan_file
from detailbase.phrases import find_phrases
from detailbase.pictures import draw_answer, marked
from detailbase.sentences import Sentences
from runs.config import load_yaml
from runs.device import choose_device
from runs.errors import InputError, run
from runs.files import write_whole

log = logging.getLogger(__name__)

DEMO = Path(__file__).parents[1] / "data" / "demo" / "room" / "best.pth"
"""The checkpoint that comes with the repository: a small network, for synthetic rooms."""
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
    torch.set_float32_matmul_precision(args.precision)
    if args.out.exists() and not args.out.is_dir():
        raise InputError(f"-o: expected a folder, got the file {args.out}; name another")
    check_backend()
    config = options_of(args.checkpoint, args.config)
    for text in (args.sentence, *(args.phrases or ())):
        if any(not (c.isprintable() or c.isspace()) for c in text):  # bytes that are no text
            raise InputError(f"sentence: expected words, got {text!a}; write it as plain text")
    words = split_words(args.sentence)
    phrases = given_phrases(words, args.phrases) if args.phrases else find_phrases(words)
    if not phrases:
        raise InputError(
            f"sentence: found no noun phrase in {args.sentence!r}; give them by --phrases"
        )
    rule = config.data.superpoints
    scan = read_scan_file(args.scan, args.unit, args.up, args.max_points, rule)
    if len(scan.rows) < scan.total:
        log.warning(
            "%s: has %d points; %d are left out (--max_points)",
            *(args.scan, scan.total, scan.total - len(scan.rows)),
        )
    masks, scores = predict(scan, words, phrases, args.checkpoint, config, args.device)
    write(args.out, scan, args.sentence, phrases, masks, scores)


def given_phrases(words: Sequence[str], phrases: Sequence[str]) -> list[tuple[int, str]]:
    """Where each phrase stands in the sentence; its last word is its head.

    Raises:
        InputError: One is not in the sentence, or not so often.
    """
    found: list[tuple[int, str]] = []
    for phrase in phrases:
        wanted = split_words(phrase)
        places = [
            start
            for start in range(len(words) - len(wanted) + 1)
            if wanted and list(words[start : start + len(wanted)]) == wanted
        ]
        said = sum(split_words(other) == wanted for _, other in found)  # the same words again
        if len(places) <= said:
            often = f"only {said} times" if said else "not"
            raise InputError(
                f"--phrases: {phrase!r} is {often} in the sentence {' '.join(words)!r}; "
                "give it as it stands there"
            )
        found.append((places[said] + len(wanted) - 1, phrase))
    return found


@torch.no_grad()
def predict(
    scan: Scan,
    words: Sequence[str],
    phrases: Sequence[tuple[int, str]],
    checkpoint: Path,
    config: Config,
    device: str = "auto",
) -> tuple[list[np.ndarray], list[float]]:
    """For each phrase the points [N] bool that it names, and how well the mask is thought to fit.

    Raises:
        InputError: The checkpoint cannot be read or does not fit the config.
    """
    asked = [Phrase(str(head), ()) for head, _ in phrases]
    reference = Reference("scan", "0", tuple(words), tuple(asked))
    on = choose_device(device)
    sentences = Sentences.encode(config.text, [reference], on)
    for phrase, (_, text) in zip(asked, phrases, strict=True):
        if not sentences.reaches(reference.words, phrase.query):
            log.warning("%r stands behind what the language model reads: nothing is marked", text)
    network = load_network(config, sentences.encoder, checkpoint, on)
    batch = make_batch([scan.cloud], [[reference]], config.data).to(on)
    answers = list(answering.answer(network, batch, sentences))
    masks = [(probability >= answering.THRESHOLD).cpu().numpy() for probability, _ in answers]
    return masks, [float(score) for _, score in answers]


def options_of(checkpoint: Path, config: Path | None = None) -> Config:
    """The options that a checkpoint was trained with: those of ``config``, else of its run.

    Raises:
        InputError: A file is absent or wrong.
    """
    if not checkpoint.is_file():
        advice = "name the best.pth of a training"
        if checkpoint == DEMO:
            advice += ", or install by pip install -e: the repository has one"
        raise InputError(f"--checkpoint: {checkpoint}: no such file; {advice}")
    path = config or checkpoint.with_name(RESOLVED)
    if not path.is_file():
        raise InputError(
            f"--config: {path}: no such file, so nothing says how the network of {checkpoint} is "
            "built; name the config that it was trained with"
        )
    options = load_yaml(path, Config)
    check(options)
    return options


def write(
    out: Path,
    scan: Scan,
    sentence: str,
    phrases: Sequence[tuple[int, str]],
    masks: Sequence[np.ndarray],
    scores: Sequence[float],
) -> None:
    """A coloured cloud for each phrase, all masks as JSON, and the picture."""
    _remove_former(out)
    entries = []
    for index, ((head, text), mask, score) in enumerate(zip(phrases, masks, scores, strict=True)):
        words = re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")[:LONGEST_NAME] or "phrase"
        name = f"{index:02d}_{words}.ply"
        write_cloud(out / name, scan.vertices, marked(scan.colors, [mask], [index]), mask)
        points = scan.rows[mask].tolist()
        score = score if points else 0.0  # which is learned from masks that are not empty
        entries.append(
            {
                "phrase": text,
                "word": head,
                "score": round(score, 4),
                "file": name,
                "count": len(points),
                "points": points,
            }
        )
        found = f"{len(points):8d} points   score {score:.2f}" if points else "nothing found"
        log.info("%-30s %-28s   %s", text, found, out / name)
    answer = {"sentence": sentence, "points": scan.total, "phrases": entries}
    answer["left_out"] = scan.total - len(scan.rows)
    with write_whole(out / "masks.json") as file:
        file.write(json.dumps(answer).encode())
    names = [
        text if mask.any() else f"{text} (nothing found)"
        for (_, text), mask in zip(phrases, masks, strict=True)
    ]
    image = draw_answer(scan.cloud.xyz.numpy(), scan.colors, sentence, names, masks)
    with write_whole(out / "picture.png") as file:
        file.write(cv2.imencode(".png", image[..., ::-1])[1].tobytes())
    log.info("%s shows them, masks.json beside it lists their points", out / "picture.png")


def _remove_former(out: Path) -> None:
    """Removes the clouds of another answer, as the masks.json that lies there names them."""
    try:
        former = json.loads((out / "masks.json").read_text(encoding="utf-8"))
        names = [Path(entry["file"]).name for entry in former["phrases"]]
    except (OSError, ValueError, KeyError, TypeError):
        return
    for name in names:
        if name.endswith(".ply"):
            (out / name).unlink(missing_ok=True)


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
    with write_whole(path) as file:
        PlyData([PlyElement.describe(rows, "vertex")]).write(file)


if __name__ == "__main__":
    run(main)
