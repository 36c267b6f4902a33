"""Scores unseen sentences, with each scorer of groups ablated in turn.

python benchmarks/generalisation.py OUT [OUT ...] [--json FILE]

Each OUT is a folder that train.py --eval wrote, with any seed and setting.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from machine import describe, save
from torch import Tensor

from refer3d.runs.folder import RunFolder
from refer3d.runs.states import load_state
from refer3d.text_encoder import make_encoder
from refersplat.config import SCORERS, Config, MatchConfig
from refersplat.data import Scene, load_scene
from refersplat.language.answer import Answerer, Language
from refersplat.language.groups import Groups, build_groups
from refersplat.metrics import iou
from refersplat.referring.state import FORMAT, RESULT, RESULT_FILE
from refersplat.referring.supervision import (
    BlendCache,
    Supervision,
    supervise,
)
from refersplat.referring.threshold import mask_probabilities
from refersplat.splats.checkpoints import trained_gaussians
from refersplat.splats.gaussians import Gaussians

SWITCHES = ["groups", *SCORERS, "decomposition", "fitted_weights"]
"""Names of the ablations."""


class Pair(NamedTuple):
    """A sentence, a view and the true mask."""

    view: Any
    sentence: str
    mask: Tensor
    """[H, W] bool."""
    is_training: bool


def pairs(scene: Scene) -> Iterator[Pair]:
    """Test views' sentences, and the training sentences of the objects in them."""
    training: dict[str, dict[str, None]] = {}
    for view in scene.train:
        for item in view.objects:
            if item.category:
                training.setdefault(item.category, {}).update(dict.fromkeys(item.sentences))
    for view in scene.test:
        for item in view.objects:
            mask = item.mask()
            yield from (Pair(view, text, mask, False) for text in item.sentences)
            old = training.get(item.category or "", {})
            yield from (Pair(view, text, mask, True) for text in old)


def score(
    answerer: Answerer, threshold: float, samples: list[Pair], blends: BlendCache
) -> dict[str, float]:
    """Mean IoU over (view, sentence) pairs, and how many new sentences got no group."""
    sentences = list(dict.fromkeys(pair.sentence for pair in samples))
    answer = answerer.respond(sentences)
    ious: dict[bool, list[float]] = {True: [], False: []}
    for view in {pair.view.name: pair.view for pair in samples}.values():
        blend = blends(view)
        here = [pair for pair in samples if pair.view.name == view.name]
        rows = [sentences.index(pair.sentence) for pair in here]
        logits = blend.blend(answer.logits[rows].T.contiguous())
        heat = mask_probabilities(logits, blend.transmittance)
        for pair, image in zip(here, heat, strict=True):
            ious[pair.is_training].append(float(iou(image >= threshold, pair.mask)))
    unseen = {sentences.index(pair.sentence) for pair in samples if not pair.is_training}
    results = [answer.results[row] for row in unseen]
    return {
        "miou_training": sum(ious[True]) / max(1, len(ious[True])),
        "miou_unseen": sum(ious[False]) / max(1, len(ious[False])),
        "without_group": float(np.mean([not (r and r.groups) for r in results])),
    }


class Run(NamedTuple):
    """A trained run, read from its folder."""

    config: Config
    gaussians: Gaussians
    answerer: Answerer
    threshold: float


def load_run(folder: Path, supervision: Supervision, config: Config) -> Run:
    """Reads the trained scene in a folder."""
    gaussians = trained_gaussians(folder)
    learned = load_state(folder / RESULT_FILE, FORMAT, RESULT)
    encoder = make_encoder(config.text.encoder, config.text.cache)
    answerer = Answerer.from_state(learned, gaussians.means, encoder)
    return Run(config, gaussians, answerer, learned["threshold"])


def variants(
    run: Run, supervision: Supervision, blends: BlendCache
) -> Iterator[tuple[str, Answerer]]:
    """The run as it is, and the same trained field with one ablation."""
    yield run.config.train.setting, run.answerer
    language = run.answerer.language
    if language is None:
        return
    lifted = build_groups(supervision.views, run.gaussians, blends, refine_steps=0)
    options = language.options
    for name in SWITCHES:
        changes = {"groups": False} if name == "groups" else {"without": (name,)}
        less = replace(options, **changes)
        kept = None if name == "groups" else relearned(run, supervision, language.groups, less)
        yield f"without {name}", replace(run.answerer, language=kept)
    kept = lifted and relearned(run, supervision, lifted, replace(options, refine_steps=0))
    yield "without refine", replace(run.answerer, language=kept)
    kept = relearned(run, supervision, language.groups, replace(options, reject=float("inf")))
    yield "without reject", replace(run.answerer, language=kept)


def relearned(run: Run, supervision: Supervision, groups: Groups, options: MatchConfig) -> Language:
    """Another matching on the same field."""
    encoder = run.answerer.encoder
    return Language.fit(groups, supervision.sentences, encoder, options)


def main() -> None:
    """Prints the table, and writes it where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", metavar="OUT")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    machine = describe()
    print(", ".join(f"{key} {value}" for key, value in machine.items()))
    rows = []
    for folder in args.runs:
        config = RunFolder(folder, Config).config()
        scene = load_scene(config.data)
        supervision = supervise(scene, config.train.hold_out_every)
        run = load_run(folder, supervision, config)
        blends, samples = BlendCache(run.gaussians), list(pairs(scene))
        for name, answerer in variants(run, supervision, blends):
            result = score(answerer, run.threshold, samples, blends)
            rows.append({"variant": name, "seed": config.seed, "pairs": len(samples), **result})
            print(f"{name:18} seed {config.seed}", *(f"{k} {v:.3f}" for k, v in result.items()))
    print(f"\n{'means':18}{'runs':>6}{'training':>9}{'unseen':>8}")
    for label in dict.fromkeys(row["variant"] for row in rows):
        chosen = [row for row in rows if row["variant"] == label]
        means = [sum(r[k] for r in chosen) / len(chosen) for k in ("miou_training", "miou_unseen")]
        print(f"{label:18}{len(chosen):6}{means[0]:9.3f}{means[1]:8.3f}")
    save(args.json, {**machine, "rows": rows})


if __name__ == "__main__":
    main()
