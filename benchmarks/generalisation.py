"""Scores sentences that were never taught, with each ingredient taken away in turn.

python benchmarks/generalisation.py --scene DIR --gaussians FILE.ply [--json FILE]
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from machine import describe, save
from torch import Tensor

from refersplat.checkpoint import load_gaussians
from refersplat.config import Config, DataConfig, MatchConfig, TrainConfig
from refersplat.data import Scene, load_scene
from refersplat.gaussians import Gaussians
from refersplat.metrics import iou
from refersplat.model.answer import NO_GROUP, Answer, Answerer, Language
from refersplat.model.groups import Groups, build_groups
from refersplat.supervision import Blends, Supervision, supervise
from refersplat.threshold import mask_probabilities
from refersplat.train_referring import RESULT_FILE, STATE_FILE, hold_out, train
from text_encoder import make_encoder

SWITCHES = [field.name for field in fields(MatchConfig) if field.type == "bool"]
"""Ingredients that can be taken away."""


class Pair(NamedTuple):
    """A sentence asked of a view, and what is right."""

    view: Any
    sentence: str
    mask: Tensor
    """[H, W] bool."""
    is_taught: bool


def pairs(scene: Scene) -> Iterator[Pair]:
    """Test views' sentences, and the training sentences of the objects in them."""
    taught: dict[str, dict[str, None]] = {}
    for view in scene.train:
        for item in view.objects:
            if item.category:
                taught.setdefault(item.category, {}).update(dict.fromkeys(item.sentences))
    for view in scene.test:
        for item in view.objects:
            mask = item.mask()
            if mask.any():
                yield from (Pair(view, text, mask, False) for text in item.sentences)
                old = taught.get(item.category or "", {})
                yield from (Pair(view, text, mask, True) for text in old)


def score(
    answerer: Answerer, threshold: float, asked: list[Pair], blends: Blends
) -> dict[str, float]:
    """Mean IoU over (view, sentence) pairs, and how many new sentences got no group."""
    sentences = list(dict.fromkeys(pair.sentence for pair in asked))
    answer: Answer = answerer.respond(sentences)
    found: dict[bool, list[float]] = {True: [], False: []}
    for view in {pair.view.name: pair.view for pair in asked}.values():
        blend = blends(view)
        here = [pair for pair in asked if pair.view.name == view.name]
        rows = [sentences.index(pair.sentence) for pair in here]
        logits = blend.blend(answer.logits[rows].T.contiguous())
        heat = mask_probabilities(logits, blend.transmittance)
        for pair, image in zip(here, heat, strict=True):
            found[pair.is_taught].append(float(iou(image >= threshold, pair.mask)))
    fresh = [sentences.index(pair.sentence) for pair in asked if not pair.is_taught]
    return {
        "miou_taught": sum(found[True]) / max(1, len(found[True])),
        "miou_unseen": sum(found[False]) / max(1, len(found[False])),
        "without_group": float((answer.groups[fresh] == NO_GROUP).float().mean()),
    }


class Trained(NamedTuple):
    """One run of the referring stage."""

    answerer: Answerer
    threshold: float
    held_out: dict[str, Tensor] | None
    """What the field answered to sentences before it was taught them."""


def trained(config: Config, scene: Scene, gaussians: Gaussians) -> Trained:
    """Runs the referring stage and reads what it wrote."""
    train(config, scene, gaussians)
    learned = torch.load(Path(config.model_path, RESULT_FILE), weights_only=True)
    trial = torch.load(Path(config.model_path, STATE_FILE), weights_only=True)["trial"]
    encoder = make_encoder(config.text.encoder, config.text.cache)
    answerer = Answerer.from_state(learned, gaussians.means, encoder)
    held_out = None
    if trial is not None:
        sentences = supervise(scene, config.train.keep_aside).sentences
        rows = hold_out(answerer.language.groups, config.seed)
        held_out = dict(zip((sentences[row] for row in rows), trial, strict=True))
    return Trained(answerer, learned["threshold"], held_out)


def variants(
    run: Trained, supervision: Supervision, lifted: Groups
) -> Iterator[tuple[str, Answerer]]:
    """The default, and the same trained field with one ingredient less."""
    yield "default", run.answerer
    language = run.answerer.language
    if language is None:
        return
    options = language.matcher.options
    for name in SWITCHES:
        less = replace(options, **{name: False})
        kept = None if name == "groups" else relearned(run, supervision, language.groups, less)
        yield f"without {name}", replace(run.answerer, language=kept)
    kept = relearned(run, supervision, lifted, replace(options, refine_steps=0))
    yield "without refine", replace(run.answerer, language=kept)
    kept = relearned(run, supervision, language.groups, replace(options, reject=float("inf")))
    yield "without reject", replace(run.answerer, language=kept)


def relearned(
    run: Trained, supervision: Supervision, groups: Groups, options: MatchConfig
) -> Language:
    """Another matching on the same field."""
    encoder = run.answerer.encoder
    return Language.learn(groups, supervision.sentences, encoder, options, run.held_out)


def main() -> None:
    """Prints the table, and writes it where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scene", required=True)
    parser.add_argument("--gaussians", required=True, help="a trained scene: .ply or chkpnt*.pth")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=TrainConfig().iterations)
    parser.add_argument("--masks", default=DataConfig().masks, help="folder of the training masks")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    machine = describe()
    print(", ".join(f"{key} {value}" for key, value in machine.items()))
    data = DataConfig(scene=args.scene, eval=True)
    scene = load_scene(replace(data, masks=args.masks))
    gaussians = load_gaussians(args.gaussians)
    asked = list(pairs(load_scene(data)))
    blends = Blends(gaussians)
    supervision = supervise(scene, TrainConfig().keep_aside)
    lifted = build_groups(supervision.lessons, gaussians, blends, refine_steps=0)
    rows = []
    for seed in range(args.seeds):
        for setting in ("published", "default"):
            with tempfile.TemporaryDirectory() as folder:
                options = TrainConfig(setting=setting, iterations=args.iterations)
                run = trained(
                    Config(model_path=folder, seed=seed, data=data, train=options),
                    scene,
                    gaussians,
                )
            for name, answerer in variants(run, supervision, lifted):
                label = setting if setting == "published" else name
                result = score(answerer, run.threshold, asked, blends)
                rows.append({"variant": label, "seed": seed, **result})
                print(f"{label:18} seed {seed}", *(f"{k} {v:.3f}" for k, v in result.items()))
    print(f"\n{'':18}{'taught':>8}{'unseen':>8}   means over {args.seeds} seeds")
    for label in dict.fromkeys(row["variant"] for row in rows):
        chosen = [row for row in rows if row["variant"] == label]
        means = [sum(r[k] for r in chosen) / len(chosen) for k in ("miou_taught", "miou_unseen")]
        print(f"{label:18}{means[0]:8.3f}{means[1]:8.3f}")
    scene_row = {"scene": Path(args.scene).resolve().name, "pairs": len(asked)}
    save(args.json, {**machine, **scene_row, "rows": rows})


if __name__ == "__main__":
    main()
