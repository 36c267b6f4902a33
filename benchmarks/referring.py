"""Times one step of the referring stage: the published way, and ours.

python benchmarks/referring.py [--gaussians 100000] [--words 15] [--json FILE]

A step is the field, the rendering of one view, both losses, their gradients and the optimizer. The
published way makes every N x 128 tensor and projects, sorts and rasterizes the frozen Gaussians
anew. Each way runs in a process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from machine import describe, save, seconds
from torch import Tensor

from refer3d.text_encoder import TextFeatures
from refersplat.cameras import Camera
from refersplat.config import Config, TrainConfig
from refersplat.data.supervised import SupervisedView, Target
from refersplat.field.losses import contrastive_loss, mask_loss
from refersplat.referring.state import Precomputed, ReferringState
from refersplat.referring.supervision import BlendCache
from refersplat.referring.train import train_step
from refersplat.splats.gaussians import Gaussians
from refersplat.splats.render import render

TEXT_DIM = 1024
WAYS = {"published": 1, "ours": 1, "ours, 8 sentences": 8}
"""Sentences in a step of each."""


def gaussians_before_a_camera(count: int) -> Gaussians:
    """A slab of Gaussians, of about 20 to a pixel at a million pixels."""
    rng = torch.Generator().manual_seed(42)
    spread = torch.tensor([2.4, 1.8, 2.0])
    means = (torch.rand(count, 3, generator=rng) - 0.5) * spread + torch.tensor([0, 0, 3.0])
    log_scales = torch.randn(count, 3, generator=rng) * 0.4 - 5
    quats = torch.randn(count, 4, generator=rng)
    opacities = torch.randn(count, generator=rng)
    return Gaussians(means, log_scales, quats, opacities, torch.zeros(count, 16, 3))


def material(args: argparse.Namespace, sentences: int) -> tuple[Precomputed, SupervisedView]:
    """One view with as many objects as the step has sentences, one sentence each."""
    rng = torch.Generator().manual_seed(0)
    gaussians = gaussians_before_a_camera(args.gaussians)
    focal = float(args.width)
    centre = args.width / 2, args.height / 2
    camera = Camera(torch.eye(4), focal, focal, *centre, args.width, args.height)
    words = torch.randn(sentences, args.words, TEXT_DIM, generator=rng)
    mask = torch.ones(sentences, args.words, dtype=torch.bool)
    text = TextFeatures(words, mask, words.mean(dim=1))
    shown = torch.rand(sentences, args.height, args.width, generator=rng) < 0.1
    targets = [Target([index], np.packbits(one.numpy(), axis=1)) for index, one in enumerate(shown)]
    blends = BlendCache(gaussians)
    return Precomputed(gaussians.means, text, blends), SupervisedView("view", camera, targets)


def published_step(state: ReferringState, precomputed: Precomputed, view: SupervisedView) -> None:
    """One sentence, with the field as it is defined and a rasterization."""
    text, gaussians = precomputed.text[[0]], precomputed.blends.gaussians
    words = state.field.embed_words(text)
    read = state.field(state.features, precomputed.positions, words, text.mask)  # [1, N, D]
    responses = read[0] @ words[0].sum(dim=0)
    rendering = render(gaussians, view.camera, features=responses[:, None], sh_degree=0)
    loss = mask_loss(rendering.features, view.masks([0], "cpu")) + 0.1 * contrastive_loss(
        read[:, 0], words.mean(dim=1), torch.ones(1, 1, dtype=torch.bool)
    )
    state.optimizer.zero_grad()
    loss.backward()
    state.optimizer.step()


def measure(way: str, args: argparse.Namespace, queue: multiprocessing.Queue) -> None:
    """Times one way and sends its row."""
    sentences = WAYS[way]
    precomputed, view = material(args, sentences)
    state = ReferringState.start(Config(), precomputed)
    chosen = [(index, index) for index in range(sentences)]
    step: Callable[[], Tensor | dict | None]
    if way == "published":
        step = lambda: published_step(state, precomputed, view)  # noqa: E731
    else:
        step = lambda: train_step(state, precomputed, [(view, chosen)], TrainConfig())  # noqa: E731
    elapsed = seconds(step, args.repeats)
    blend = precomputed.blends(view)
    row = {
        "way": way,
        "sentences": sentences,
        "step_s": elapsed,
        "s_per_sentence": elapsed / sentences,
        "pairs": blend.entries,
        "blend_mib": blend.nbytes / 2**20,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    if way != "published":
        row |= parts(state, precomputed, view, chosen, args.repeats)
    queue.put(row)


def parts(
    state: ReferringState,
    precomputed: Precomputed,
    view: SupervisedView,
    chosen: list[tuple[int, int]],
    repeats: int,
) -> dict[str, float]:
    """Seconds of the two largest parts alone, forward and backward, and of the optimizer."""
    text = precomputed.text[[row for _, row in chosen]]
    words = state.field.embed_words(text).detach()
    cotangent = torch.ones(len(words), len(precomputed.positions))

    def field() -> None:
        interaction = state.field.interact(state.features, precomputed.positions, words, text.mask)
        interaction.responses.backward(cotangent)

    def rendering() -> None:
        values = torch.zeros_like(cotangent.T, requires_grad=True)
        image = precomputed.blends(view).blend(values)
        image.backward(torch.ones_like(image))

    named = {"field_s": field, "rendering_s": rendering, "optimizer_s": state.optimizer.step}
    return {name: seconds(function, repeats) for name, function in named.items()}


def main() -> None:
    """Prints both ways side by side, and writes them to --json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gaussians", type=int, default=100_000)
    parser.add_argument("--words", type=int, default=15)
    parser.add_argument("--width", type=int, default=988)
    parser.add_argument("--height", type=int, default=731)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    machine = describe()
    print(", ".join(f"{key} {value}" for key, value in machine.items()))
    context = multiprocessing.get_context("spawn")
    rows = []
    print(
        f"{'way':20}{'s/step':>9}{'s/sentence':>12}{'field':>9}{'render':>9}{'Adam':>9}{'MiB':>8}"
    )
    for way in WAYS:
        queue = context.Queue()
        process = context.Process(target=measure, args=(way, args, queue))
        process.start()
        row = queue.get()
        process.join()
        rows.append(row)
        own = [row.get(name, float("nan")) for name in ("field_s", "rendering_s", "optimizer_s")]
        print(
            f"{way:20}{row['step_s']:9.3f}{row['s_per_sentence']:12.3f}"
            + "".join(f"{value:9.3f}" for value in own)
            + f"{row['peak_mib']:8.0f}"
        )
    print(f"{rows[0]['pairs']} (pixel, Gaussian) pairs in {rows[0]['blend_mib']:.0f} MiB")
    save(
        args.json, {**machine, **{k: v for k, v in vars(args).items() if k != "json"}, "rows": rows}
    )


if __name__ == "__main__":
    main()
