"""Score a trained model on held-out data and write results.json.

python eval.py -m output/tabletop
python eval.py --table ref_lerf data/ref_lerf output/ref_lerf
python eval.py --config configs/detailbase/detailrefer.yaml --checkpoint checkpoints/best.pth
"""

from __future__ import annotations

import importlib

from refer3d.runs.errors import run
from train import MODEL_OF, MODELS


def main(argv: list[str]) -> None:
    """Runs ``refersplat eval`` or ``detailbase eval``."""
    from refer3d.runs.config import choose_model

    model = choose_model(argv, MODELS, MODEL_OF)
    importlib.import_module(f"{model}.__main__").main(["eval", *argv])


if __name__ == "__main__":
    run(main)
