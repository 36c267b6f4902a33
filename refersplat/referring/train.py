"""Teaches the Gaussians which sentences they answer; their geometry and colour stay as they are."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from refer3d.runs.device import to_device
from refer3d.runs.progress import Progress
from refer3d.runs.states import save_state
from refer3d.text_encoder import TextEncoder, TextFeatures, make_encoder
from refersplat.config import Config, TrainConfig
from refersplat.data import Scene
from refersplat.data.supervised import SupervisedView
from refersplat.field.losses import contrastive_loss, mask_loss, select_answering, selection_ratio
from refersplat.field.network import ReferringField
from refersplat.language.answer import Answerer, Language
from refersplat.language.groups import Groups, build_groups
from refersplat.ops import BlendMatrix
from refersplat.referring.state import (
    FEATURE_DIM,
    FORMAT,
    RESULT_FILE,
    STATE_FILE,
    Precomputed,
    ReferringState,
)
from refersplat.referring.supervision import BlendCache, Supervision
from refersplat.referring.threshold import choose_threshold, mask_probabilities
from refersplat.splats.checkpoints import ReferSplatField
from refersplat.splats.gaussians import Gaussians
from refersplat.splats.visibility import on_surface

log = logging.getLogger(__name__)

REPORT_EVERY = 25
FEW_VIEWS = 3


def train(
    config: Config,
    scene: Scene,
    supervision: Supervision,
    gaussians: Gaussians,
    published: ReferSplatField | None = None,
) -> None:
    """Learns the referring field on the training views and writes ``referring.pt``.

    ``referring_state.pt`` is written as it goes; with ``config.resume`` a stopped run goes on from
    there to the same result. In the published setting a ``published`` field needs no training.

    Args:
        config: All options.
        scene: Whose cameras tell what is ever seen.
        supervision: Its sentences and masks.
        gaussians: Fitted to it.
        published: What ReferSplat has trained.

    Raises:
        InputError: The state is of another run, or the published field of another encoder.
    """
    options, out = config.train, Path(config.model_path)
    encoder = make_encoder(config.text.encoder, config.text.cache, gaussians.means.device)
    precomputed = precompute(config, supervision, gaussians, encoder)
    identity = {
        "seed": config.seed,
        "setting": options.setting,
        "encoder": encoder.identity,
        "sentences": len(supervision.sentences),
        "Gaussians": gaussians.count,
    }
    state = begin(config, precomputed, identity, published)
    state, threshold, aside_iou = run_stages(config, state, precomputed, supervision, identity)
    field_threshold = threshold

    language = None
    if precomputed.groups:
        held_out = [supervision.sentences[row] for row in precomputed.held_out]
        trial = dict(zip(held_out, state.trial, strict=True)) if state.trial is not None else None
        language = Language.fit(
            precomputed.groups, supervision.sentences, encoder, config.match, trial
        )
        answerer = Answerer(
            state.field, state.features.detach(), gaussians.means, encoder, language
        )
        threshold, aside_iou = choose_threshold(
            answers(state, precomputed, supervision.held_out, answerer, supervision.sentences)
        )

    tell_threshold(threshold, aside_iou, len(supervision.held_out))
    result = {
        "format": FORMAT,
        **state.learned(),
        "setting": options.setting,
        "encoder": config.text.encoder,
        "encoder_name": encoder.name,
        "encoder_identity": encoder.identity,
        "text_dim": encoder.dim,
        "threshold": threshold,
        "field_threshold": field_threshold,
        "aside": [view.name for view in supervision.held_out],
        "aside_iou": aside_iou,
        "language": language.state_dict() if language else None,
        "is_surface": on_surface(gaussians, [view.camera for view in scene.train]).cpu(),
        "cameras": {view.name: vars(view.camera) for view in scene.views},
    }
    save_state(out / RESULT_FILE, result)


def begin(
    config: Config,
    precomputed: Precomputed,
    identity: dict[str, Any],
    published: ReferSplatField | None,
) -> ReferringState:
    """Where the training is: at its beginning, where it was stopped, or done by ReferSplat."""
    path = Path(config.model_path, STATE_FILE)
    state = ReferringState.start(config, precomputed)
    if config.resume and path.exists():
        state.load(path, identity)
        log.info("going on from step %d of %s", state.step, path)
    elif published and config.train.setting == "published":
        state.adopt(published, config)
        log.info("the field is that of %s", config.rgb.start_checkpoint)
    elif published:
        log.info(
            "%s: only its Gaussians are taken, sentences are learned anew; "
            "--train.setting published takes its field, too",
            config.rgb.start_checkpoint,
        )
    return state


def tell_threshold(threshold: float, aside_iou: float, count: int) -> None:
    """Says what was chosen, and on how much."""
    if not count:
        log.info("threshold %.2f: no views are kept aside to choose it on", threshold)
        return
    log.info("threshold %.2f, mean IoU %.3f on %d views kept aside", threshold, aside_iou, count)
    if count < FEW_VIEWS or not aside_iou:
        log.warning("these are too few views, or too bad masks, to choose a threshold by")


def precompute(
    config: Config, supervision: Supervision, gaussians: Gaussians, encoder: TextEncoder
) -> Precomputed:
    """Computes once what all steps need."""
    blends = BlendCache(gaussians, config.train.cache_gb)
    groups = None
    if config.match.groups and config.train.setting == "default":
        views, steps = supervision.views, config.match.refine_steps
        with Progress("groups", 2 * len(views) + steps) as progress:

            def drawn(view: SupervisedView) -> BlendMatrix:
                progress.advance()
                return blends(view)

            groups = build_groups(views, gaussians, drawn, steps, config.seed)
        if groups is None:
            log.warning(
                "every sentence is said of several objects of a view, so none tells them apart: "
                "the field answers alone"
            )
    return Precomputed(
        positions=gaussians.means,
        text=encoder(supervision.sentences).to(gaussians.means.device),
        blends=blends,
        groups=groups,
        held_out=hold_out(groups, config.seed) if groups and config.match.field else (),
    )


def run_stages(
    config: Config,
    state: ReferringState,
    precomputed: Precomputed,
    supervision: Supervision,
    identity: dict[str, Any],
) -> tuple[ReferringState, float, float]:
    """Goes through the stages that the training still has.

    Returns:
        state: The last stage's.
        threshold: The best for the field alone on the views kept aside.
        aside_iou: The mean IoU that it reaches there.
    """
    while True:
        run_stage(config, state, precomputed, supervision.views, identity)
        threshold, aside_iou = choose_threshold(answers(state, precomputed, supervision.held_out))
        if state.stage + 1 >= config.train.stages:
            return state, threshold, aside_iou
        teacher = {**state.learned(), "threshold": threshold}
        trial = state.trial
        state = ReferringState.start(config, precomputed, state.stage + 1)
        state.teacher, state.trial = teacher, trial


def run_stage(
    config: Config,
    state: ReferringState,
    precomputed: Precomputed,
    views: list[SupervisedView],
    identity: dict[str, Any],
) -> None:
    """Goes through the steps that a stage still has."""
    options, path = config.train, Path(config.model_path, STATE_FILE)
    if state.step >= options.iterations:
        return
    if state.teacher is not None:
        views = relabelled(state.teacher, precomputed, views)
    # What the field knows of new sentences is only seen on some that it was not taught.
    trial_steps = options.iterations // 2 if precomputed.held_out and state.stage == 0 else 0
    fewer = without(views, precomputed.held_out) if state.step < trial_steps else views
    label = "referring" if state.stage == 0 else f"referring {state.stage + 1}"
    with Progress(label, options.iterations, state.step, events=path.parent) as progress:
        while state.step < options.iterations:
            is_trial = state.step < trial_steps
            taught = fewer if is_trial else views
            view, chosen = pick(config, state.stage, state.step, taught)
            losses = train_step(state, precomputed, view, chosen, options)
            state.step += 1
            if is_trial and state.step == trial_steps:
                asked = precomputed.text[list(precomputed.held_out)]
                responses = state.field.respond(state.features, precomputed.positions, asked)
                state.trial = precomputed.groups.mean(responses).cpu()
            progress.advance()
            if state.step % REPORT_EVERY == 0:
                progress.report(state.step, **{name: float(x) for name, x in losses.items()})
            if state.step % options.checkpoint_every == 0 or state.step == options.iterations:
                state.save(path, identity)


def pick(
    config: Config, stage: int, step: int, views: list[SupervisedView]
) -> tuple[SupervisedView, list[tuple[int, int]]]:
    """A step's view, and (target, sentence) pairs of it.

    All views come once before one comes again. The choice depends on nothing but the seed and the
    step, so a stopped run needs no memory of it.
    """
    epoch, turn = divmod(step, len(views))
    order = np.random.default_rng((config.seed, stage, epoch)).permutation(len(views))
    view = views[order[turn]]
    rng = np.random.default_rng((config.seed, stage, 0, step))
    count = min(len(view.targets), config.train.sentences_per_step)
    targets = rng.permutation(len(view.targets))[:count]
    return view, [(int(index), int(rng.choice(view.targets[index].sentences))) for index in targets]


def train_step(
    state: ReferringState,
    precomputed: Precomputed,
    view: SupervisedView,
    chosen: list[tuple[int, int]],
    options: TrainConfig,
) -> dict[str, Tensor]:
    """One step of the optimizer; returns the losses, none where the view sees no Gaussian."""
    positions, text = precomputed.positions, precomputed.text
    blend = precomputed.blends(view)
    # What the view does not show, often more than half, need not respond.
    visible, _ = blend.seen
    if not len(visible):
        return {}
    targets, rows = zip(*chosen, strict=True)
    asked = text[list(rows)]
    words = state.field.embed_words(asked)
    met = state.field.interact(state.features, positions, words, asked.mask, blend.seen)
    responses = positions.new_zeros(len(positions), len(rows)).index_copy(
        0, visible, met.responses.T
    )
    masks = view.masks(targets, positions.device)
    losses = {"bce": mask_loss(blend.blend(responses), masks)}
    if options.contrastive_weight:
        said = [row for target in view.targets for row in target.sentences]
        owner = [index for index, target in enumerate(view.targets) for _ in target.sentences]
        is_published = options.setting == "published"
        if is_published:  # its selection sorts along an axis of length one: always the first
            selected = positions.new_zeros(len(rows), 1, dtype=torch.int64)
        else:
            ratio = selection_ratio(state.step)
            selected = visible[select_answering(met.responses, ratio)]
        losses["contrastive"] = contrastive_loss(
            met.mean(selected),
            sentence_means(state.field, text[said], counts_padding=is_published),
            to_device(torch.tensor(targets)[:, None] == torch.tensor(owner), positions.device),
        )
    loss = losses["bce"] + options.contrastive_weight * losses.get("contrastive", 0)
    state.optimizer.zero_grad()
    loss.backward()
    state.optimizer.step()
    return {name: value.detach() for name, value in losses.items()}


def sentence_means(
    field: ReferringField, text: TextFeatures, counts_padding: bool
) -> Tensor:  # [M, D]
    """The mean of each sentence's embedded words.

    The published code counts a padded batch's padding too; there the language model's features of
    padding are what is averaged, here they are zeros.
    """
    if counts_padding:
        return field.mlp1(text.words).mean(dim=1)
    words = field.embed_words(text)
    return words.sum(dim=1) / text.mask.sum(dim=1, keepdim=True)


def hold_out(groups: Groups, seed: int) -> tuple[int, ...]:
    """One sentence of each object of which enough is said without it."""
    rng = np.random.default_rng((seed, 1))
    return tuple(int(rng.choice(rows)) for rows in groups.sentences if len(rows) > 2)


def without(views: list[SupervisedView], rows: tuple[int, ...]) -> list[SupervisedView]:
    """The views as if some sentences had not been said."""
    remaining = []
    for view in views:
        targets = []
        for target in view.targets:
            if kept := [row for row in target.sentences if row not in rows]:
                targets.append(target._replace(sentences=kept))
        if targets:
            remaining.append(replace(view, targets=targets))
    return remaining


@torch.no_grad()
def answers(
    state: ReferringState,
    precomputed: Precomputed,
    views: list[SupervisedView],
    answerer: Answerer | None = None,
    sentences: Sequence[str] = (),
) -> Iterator[tuple[Tensor, Tensor]]:
    """For each (view, object, sentence): probabilities [H, W] and the mask [H, W].

    The field answers by itself unless there is an ``answerer``, which needs the ``sentences``.
    """
    for view in views:
        blend = precomputed.blends(view)
        for index, target in enumerate(view.targets):
            (mask,) = view.masks([index], "cpu")
            if answerer:
                responses = answerer.respond([sentences[row] for row in target.sentences]).logits
            else:
                asked = precomputed.text[target.sentences]
                responses = state.field.respond(state.features, precomputed.positions, asked)
            logits = blend.blend(responses.T)
            for rendered in mask_probabilities(logits, blend.transmittance):
                yield rendered.cpu(), mask


@torch.no_grad()
def relabelled(
    teacher: dict[str, Any], precomputed: Precomputed, views: list[SupervisedView]
) -> list[SupervisedView]:
    """The views with the masks that the teacher renders, averaged over an object's sentences."""
    positions = precomputed.positions
    field = ReferringField(precomputed.text.words.shape[-1], FEATURE_DIM).to(positions.device)
    field.load_state_dict(teacher["field"])
    responses = field.respond(teacher["features"].to(positions.device), positions, precomputed.text)
    renewed = []
    for view in views:
        blend = precomputed.blends(view)
        targets = []
        for target in view.targets:
            logits = blend.blend(responses[target.sentences].T)
            probabilities = mask_probabilities(logits, blend.transmittance).mean(dim=0)
            mask = probabilities >= teacher["threshold"]
            if mask.any():
                targets.append(target._replace(mask=np.packbits(mask.cpu().numpy(), axis=1)))
        if targets:
            renewed.append(replace(view, targets=targets))
    return renewed or views
