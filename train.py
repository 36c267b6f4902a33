"""Train a model: refersplat with -s SCENE -m OUT, or the one of --config; options override it.

python train.py -s data/demo/tabletop -m output/tabletop --eval
python train.py -s data/ref_lerf/ramen -m output/ramen --config configs/refersplat/ramen.yaml
python train.py --config configs/detailbase/detailrefer.yaml
"""

from __future__ import annotations

import importlib

from refer3d.runs.errors import run

MODELS = ("refersplat", "detailbase")
MODEL_OF: dict[str, str] = dict.fromkeys(
    ("-s", "--data.scene", "-m", "--model_path", "--model-path", "--table"), "refersplat"
)
"""Options of one model."""


def main(argv: list[str]) -> None:
    """Runs ``refersplat train`` or ``detailbase train``."""
    from refer3d.runs.config import choose_model

    model = choose_model(argv, MODELS, MODEL_OF)
    importlib.import_module(f"{model}.__main__").main(["train", *argv])


if __name__ == "__main__":
    run(main)
