"""Training of the referring field; the Gaussians' geometry and colour stay as they are."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from refer3d.runs.progress import Progress
from refer3d.runs.ranks import rank, share, sum_gradients
from refer3d.runs.states import save_state
from refer3d.text_encoder import TextEncoder, make_encoder
from refersplat.config import Config, TrainConfig
from refersplat.data import Scene
from refersplat.data.supervised import SupervisedView
from refersplat.field.losses import Step, weighted_losses, weights_of
from refersplat.field.network import ReferringField
from refersplat.language.answer import Answerer, Language
from refersplat.language.groups import build_groups
from refersplat.ops import BlendMatrix
from refersplat.referring.state import (
    FEATURE_DIM,
    FORMAT,
    RESULT_FILE,
    STATE_FILE,
    Precomputed,
    ReferringState,
)
from refersplat.referring.supervision import (
    BlendCache,
    Supervision,
    hold_out_sentences,
    sample_batch,
    without_sentences,
)
from refersplat.referring.threshold import choose_threshold, mask_probabilities
from refersplat.splats.checkpoints import ReferSplatField
from refersplat.splats.gaussians import Gaussians
from refersplat.splats.visibility import on_surface

log = logging.getLogger(__name__)

REPORT_EVERY = 25
FEW_VIEWS = 3

Respond = Callable[[list[int]], Tensor]
"""From rows of B training sentences to the Gaussians' responses [B, N]."""


def train(
    config: Config,
    scene: Scene,
    supervision: Supervision,
    gaussians: Gaussians,
    published: ReferSplatField | None = None,
) -> None:
    """Trains the referring field and writes ``referring.pt``.

    It writes ``referring_state.pt`` on the way, from which a run with ``config.resume`` continues
    to the same result. In the published setting a ``published`` field needs no training.

    Args:
        config: All options.
        scene: Its cameras tell which Gaussians are visible at all.
        supervision: Sentences and masks of the scene.
        gaussians: Gaussians of the scene.
        published: A field that ReferSplat has trained.

    Raises:
        InputError: The state is of another run, or the published field of another encoder.
    """
    encoder = make_encoder(config.text.encoder, config.text.cache, gaussians.means.device)
    precomputed = precompute(config, supervision, gaussians, encoder)
    state = begin(config, precomputed, published)
    state, threshold, held_out_iou = run_stages(config, state, precomputed, supervision)
    field_threshold = threshold
    if rank():  # the first process alone writes
        return

    sentences, language = supervision.sentences, None
    if precomputed.groups:
        language = Language.fit(
            precomputed.groups, sentences, encoder, config.match, supervision.categories
        )
        answerer = Answerer(
            state.field, state.features.detach(), gaussians.means, encoder, language
        )
        threshold, held_out_iou = choose_threshold(
            predictions(
                precomputed,
                supervision.held_out,
                lambda rows: answerer.respond([sentences[row] for row in rows]).logits,
            )
        )

    log_threshold(threshold, held_out_iou, len(supervision.held_out))
    result = {
        "format": FORMAT,
        **state.learned(),
        "setting": config.train.setting,
        "encoder": config.text.encoder,
        "encoder_name": encoder.name,
        "encoder_identity": encoder.identity,
        "text_dim": encoder.dim,
        "threshold": threshold,
        "field_threshold": field_threshold,
        "aside": [view.name for view in supervision.held_out],
        "aside_iou": held_out_iou,
        "training_views": [view.name for view in scene.train],
        "language": language.state_dict() if language else None,
        "is_surface": on_surface(gaussians, [view.camera for view in scene.train]).cpu(),
        "cameras": {view.name: vars(view.camera) for view in scene.views},
    }
    save_state(Path(config.model_path, RESULT_FILE), result)


def begin(
    config: Config, precomputed: Precomputed, published: ReferSplatField | None
) -> ReferringState:
    """Returns the state to train from: a new one, a stopped run's, or ReferSplat's."""
    path = Path(config.model_path, STATE_FILE)
    state = ReferringState.start(config, precomputed)
    if config.resume and path.exists():
        state.load(path, precomputed.identity)
        log.info("resuming from step %d of %s", state.step, path)
    elif published and config.train.setting == "published":
        state.adopt(published, config)
        log.info("the field is that of %s", config.rgb.start_checkpoint)
    elif published:
        log.info(
            "%s: only its Gaussians are used, the field is trained anew; "
            "--train.setting published uses its field, too",
            config.rgb.start_checkpoint,
        )
    return state


def precompute(
    config: Config, supervision: Supervision, gaussians: Gaussians, encoder: TextEncoder
) -> Precomputed:
    """Computes the inputs that all steps share."""
    blends = BlendCache(gaussians, config.train.cache_gb)
    groups = None
    if config.match.groups and config.train.setting == "default":
        views, steps = supervision.views, config.match.refine_steps
        with Progress("groups", 2 * len(views) + steps) as progress:

            def blend_of(view: SupervisedView) -> BlendMatrix:
                progress.advance()
                return blends(view)

            groups = build_groups(views, gaussians, blend_of, steps, config.seed)
        if groups is None:
            log.warning(
                "no groups: every sentence belongs to several objects of a view, so the field "
                "answers alone"
            )
    return Precomputed(
        positions=gaussians.means,
        text=encoder(supervision.sentences).to(gaussians.means.device),
        blends=blends,
        groups=groups,
        held_out=hold_out_sentences(groups, config.seed)
        if groups and "field" not in config.match.without
        else (),
        identity={
            "seed": config.seed,
            "setting": config.train.setting,
            "encoder": encoder.identity,
            "sentences": len(supervision.sentences),
            "Gaussians": gaussians.count,
            "training views": " ".join(
                view.name for view in (*supervision.views, *supervision.held_out)
            ),
        },
    )


def run_stages(
    config: Config, state: ReferringState, precomputed: Precomputed, supervision: Supervision
) -> tuple[ReferringState, float, float]:
    """Runs the remaining stages.

    Returns:
        state: State of the last stage.
        threshold: Best threshold of the field's responses on the held-out views.
        held_out_iou: Mean IoU at that threshold.
    """
    while True:
        run_stage(config, state, precomputed, supervision.views)
        respond = field_respond(state.field, state.features, precomputed)
        pairs = predictions(precomputed, supervision.held_out, respond)
        threshold, held_out_iou = choose_threshold(pairs)
        if state.stage + 1 >= config.train.stages:
            return state, threshold, held_out_iou
        teacher, scores = {**state.learned(), "threshold": threshold}, state.held_out_scores
        state = ReferringState.start(config, precomputed, state.stage + 1)
        state.teacher, state.held_out_scores = teacher, scores


def run_stage(
    config: Config, state: ReferringState, precomputed: Precomputed, views: list[SupervisedView]
) -> None:
    """Runs the remaining steps of a stage."""
    options, path = config.train, Path(config.model_path, STATE_FILE)
    if state.step >= options.iterations:
        return
    if state.teacher is not None:
        views = relabel(state.teacher, precomputed, views)
    # Sentences left out at first show how well the field does on new ones.
    groups, held_out = precomputed.groups, precomputed.held_out
    held_out_until = options.iterations // 2 if held_out and state.stage == 0 else 0
    fewer = without_sentences(views, held_out) if state.step < held_out_until else views
    label = "referring" if state.stage == 0 else f"referring {state.stage + 1}"
    with Progress(label, options.iterations, state.step, events=path.parent) as progress:
        while state.step < options.iterations:
            training = fewer if state.step < held_out_until else views
            first = state.step * options.views_per_step
            batch = [
                sample_batch(config, state.stage, first + place, training)
                for place in range(options.views_per_step)
            ]
            losses = train_step(state, precomputed, batch, options)
            state.step += 1
            if groups and state.step == held_out_until:
                respond = field_respond(state.field, state.features, precomputed)
                state.held_out_scores = groups.mean(respond(list(held_out))).cpu()
            progress.advance()
            if state.step % REPORT_EVERY == 0:
                progress.report(state.step, "", **{k: float(loss) for k, loss in losses.items()})
            is_due = state.step % options.checkpoint_every == 0
            if (is_due or state.step == options.iterations) and not rank():
                state.save(path, precomputed.identity)


def train_step(
    state: ReferringState,
    precomputed: Precomputed,
    batch: Sequence[tuple[SupervisedView, list[tuple[int, int]]]],
    options: TrainConfig,
) -> dict[str, Tensor]:
    """Takes one step of the optimizer on views with (target, sentence) pairs of each.

    All pairs weigh the same; of several processes, each takes its share of them.

    Returns:
        The losses by name; none where no view shows a Gaussian.
    """
    pairs = [(place, pair) for place, (_, chosen) in enumerate(batch) for pair in chosen]
    names = list(weights_of(options))
    numbers = precomputed.positions.new_zeros(1 + len(names))  # trained pairs, losses
    is_trained = False
    state.optimizer.zero_grad()
    for place, own in groupby(share(pairs), key=itemgetter(0)):
        view, chosen = batch[place][0], [pair for _, pair in own]
        losses = add_gradients(state, precomputed, view, chosen, options, len(chosen) / len(pairs))
        if losses:
            is_trained = True
            numbers[0] += len(chosen)
            numbers[1:] += torch.stack([losses[name] for name in names])
    sum_gradients((state.features, *state.field.parameters()), numbers)
    if not (is_trained or numbers[0]):  # reads the number, which waits for a GPU, only if it must
        return {}
    state.optimizer.step()
    return dict(zip(names, numbers[1:].unbind(), strict=True))


def add_gradients(
    state: ReferringState,
    precomputed: Precomputed,
    view: SupervisedView,
    chosen: list[tuple[int, int]],
    options: TrainConfig,
    weight: float,
) -> dict[str, Tensor]:
    """Adds the gradients of a view's (target, sentence) pairs to those of the field.

    Args:
        state: Its gradients change.
        precomputed: Inputs that all steps share.
        view: The view.
        chosen: Pairs of the view.
        options: Weights of the losses.
        weight: Share of the step's pairs that these are.

    Returns:
        The losses by name, times ``weight``; none where the view shows no Gaussian.
    """
    field, blend = state.field, precomputed.blends(view)
    # The Gaussians that the view does not show, often more than half, need not respond.
    visible, _ = blend.seen
    if not len(visible):
        return {}
    targets, rows = zip(*chosen, strict=True)
    text = precomputed.text[list(rows)]
    interaction = field.interact(
        state.features, precomputed.positions, field.embed_words(text), text.mask, blend.seen
    )
    responses = precomputed.positions.new_zeros(len(precomputed.positions), len(rows))
    responses = responses.index_copy(0, visible, interaction.responses.T)
    step = Step(
        index=state.step,
        options=options,
        view=view,
        targets=targets,
        text=precomputed.text,
        field=field,
        interaction=interaction,
        visible=visible,
        logits=blend.blend(responses),
        masks=view.masks(targets, visible.device),
    )
    total, losses = weighted_losses(step)
    (weight * total).backward()
    return {name: weight * loss.detach() for name, loss in losses.items()}


def field_respond(field: ReferringField, features: Tensor, precomputed: Precomputed) -> Respond:
    """Makes a function that returns the field's responses."""
    return lambda rows: field.respond(features, precomputed.positions, precomputed.text[rows])


@torch.no_grad()
def target_probabilities(
    precomputed: Precomputed, view: SupervisedView, respond: Respond
) -> Iterator[Tensor]:  # [B, H, W]
    """Renders the probabilities of each target's sentences in a view."""
    blend = precomputed.blends(view)
    for target in view.targets:
        yield mask_probabilities(blend.blend(respond(target.sentences).T), blend.transmittance)


def predictions(
    precomputed: Precomputed, views: list[SupervisedView], respond: Respond
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields probabilities [H, W] and the mask [H, W] of each (view, target, sentence)."""
    for view in views:
        for index, images in enumerate(target_probabilities(precomputed, view, respond)):
            (mask,) = view.masks([index], "cpu")
            for image in images:
                yield image.cpu(), mask


def relabel(
    teacher: dict[str, Any], precomputed: Precomputed, views: list[SupervisedView]
) -> list[SupervisedView]:
    """Replaces masks by those that the teacher renders, averaged over an object's sentences."""
    device = precomputed.positions.device
    field = ReferringField(precomputed.text.words.shape[-1], FEATURE_DIM).to(device)
    field.load_state_dict(teacher["field"])
    features = teacher["features"].to(device)
    responses = field.respond(features, precomputed.positions, precomputed.text)
    relabelled = []
    for view in views:
        targets = []
        rendered = target_probabilities(precomputed, view, lambda rows: responses[rows])
        for target, images in zip(view.targets, rendered, strict=True):
            mask = images.mean(dim=0) >= teacher["threshold"]
            if mask.any():
                targets.append(target._replace(mask=np.packbits(mask.cpu().numpy(), axis=1)))
        if targets:
            relabelled.append(replace(view, targets=targets))
    return relabelled or views


def log_threshold(threshold: float, held_out_iou: float, count: int) -> None:
    """Logs the threshold, and the number of views that chose it."""
    if not count:
        log.info("threshold %.2f: no views are held out to choose it on", threshold)
        return
    log.info("threshold %.2f, mean IoU %.3f on %d held-out views", threshold, held_out_iou, count)
    if count < FEW_VIEWS or not held_out_iou:
        log.warning("these are too few views, or too bad masks, to choose a threshold by")
