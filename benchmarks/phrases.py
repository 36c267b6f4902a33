"""Times a training step of detailbase by part: python benchmarks/phrases.py --root FOLDER.

The folder is in ScanNet's layout, with prepared scans and descriptions. Each description stands in
it twice, so that scans have about as many in a step as with ``detailbase describe``. The times are
CPU seconds, which other programs on the machine disturb less.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import torch
from machine import describe, save

from detailbase.command import read_options
from detailbase.data.batches import Batches
from detailbase.descriptions.datasets import read_split
from detailbase.descriptions.sentences import Sentences, word_encoder
from detailbase.scans.clouds import prepared_folder
from detailbase.training.loop import step
from detailbase.training.losses import total_loss
from detailbase.training.state import Training
from refer3d.native.start import start_program


def main() -> None:
    """Runs some steps and prints the mean time of each part."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--root", required=True, help="folder of scans and descriptions")
    parser.add_argument("--prepared", default="", help="folder of prepared scans")
    parser.add_argument("--config", default="configs/detailbase/small.yaml")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--json", type=Path, help="file for the results")
    args = parser.parse_args()

    words = ["--config", args.config, "--data.root", args.root, "--data.train_on", "detailrefer"]
    config = read_options([*words, "--data.prepared", args.prepared], "train")
    start_program("detailbase", precision=config.precision)
    device, folder = torch.device("cpu"), prepared_folder(config.data)
    references = 2 * read_split(config.data, "detailrefer", "train")
    with tempfile.TemporaryDirectory() as cache:  # a first training has no other wordings yet
        encoder = word_encoder(type(config.text)(config.text.encoder, cache), device)
        sentences = Sentences.encode(encoder, references, device)
        training = Training.start(config, sentences.encoder.dim, device)
        batches = Batches(sentences.answerable(references), folder, config.data, config.seed, 0)
        training.network.train()
        seconds: dict[str, float] = defaultdict(float)
        for index in range(args.steps):
            last = time.process_time()

            def stop(part: str) -> None:
                nonlocal last
                seconds[part] += (time.process_time() - last) / args.steps
                last = time.process_time()

            batch = batches[index]
            stop("scans")
            inputs = batch.inputs(sentences)
            stop("text")
            predictions = training.network(**inputs)
            stop("forward")
            total = total_loss(predictions, batch, config.train).total
            stop("losses")
            total.backward()
            stop("backward")
            step(training, config.train)
            stop("optimizer")
    rows = {name: round(value, 4) for name, value in seconds.items()}
    rows["step"] = round(sum(seconds.values()), 4)
    print("  ".join(f"{name} {value:.3f}" for name, value in rows.items()))
    save(args.json, {**describe(), "steps": args.steps, "cpu_seconds": rows})


if __name__ == "__main__":
    main()
