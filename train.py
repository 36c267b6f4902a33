"""Trains a model: refersplat with -s SCENE -m OUT, or what --config names; options override it.

python train.py -s data/demo/tabletop -m output/tabletop --eval
python train.py -s data/ref_lerf/ramen -m output/ramen --config configs/refersplat/ramen.yaml
python train.py --config configs/detailbase/detailrefer.yaml
"""

from __future__ import annotations

import importlib

from refer3d.runs.config import choose_model
from refer3d.runs.errors import run

MODELS = ("refersplat", "detailbase")
MODEL_OF = dict.fromkeys(("-s", "--data.scene", "-m", "--model_path", "--model-path"), "refersplat")
"""Options that tell which model is meant."""


def main(argv: list[str]) -> None:
    """Hands the options to the model that they mean."""
    model = choose_model(argv, MODELS, MODEL_OF)
    importlib.import_module(f"{model}.train").main(argv)


if __name__ == "__main__":
    run(main, when_stopped="the same command with --resume goes on from the last checkpoint")
