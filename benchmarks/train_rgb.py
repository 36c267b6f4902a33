"""Trains the RGB stage and scores it: python benchmarks/train_rgb.py --scene DIR [--json FILE]."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from machine import describe, save

from refersplat.config import Config, DataConfig, RgbConfig
from refersplat.data import load_scene
from refersplat.rgb.fit import evaluate_rgb
from refersplat.rgb.train import train


def main() -> None:
    """Prints quality and cost, and writes them where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scene", required=True)
    parser.add_argument("--iterations", type=int, default=RgbConfig().iterations)
    parser.add_argument("--out", help="folder to keep the result in; otherwise it is thrown away")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    machine = describe()
    print(", ".join(f"{key} {value}" for key, value in machine.items()))
    with tempfile.TemporaryDirectory() as folder:
        config = Config(
            model_path=args.out or folder,
            seed=args.seed,
            data=DataConfig(scene=args.scene, eval=True),
            rgb=RgbConfig(iterations=args.iterations),
        )
        scene = load_scene(config.data)
        start = time.perf_counter()
        gaussians = train(config, scene)
        elapsed = time.perf_counter() - start
    row = {
        "scene": Path(args.scene).resolve().name,
        "views": len(scene.train),
        "test_views": len(scene.test),
        "width": scene.views[0].camera.width,
        "height": scene.views[0].camera.height,
        "iterations": args.iterations,
        **evaluate_rgb(gaussians, scene.test),
        "gaussians": gaussians.count,
        "seconds": elapsed,
        "seconds_per_iteration": elapsed / args.iterations,
    }
    for name, value in row.items():
        print(f"{name:24}{value:.4f}" if isinstance(value, float) else f"{name:24}{value}")
    save(args.json, {**machine, "rows": [row]})


if __name__ == "__main__":
    main()
