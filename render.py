"""Draw the answers of a trained scene to sentences: masks, heat maps, overlays, videos.

python render.py -m output/tabletop
python render.py -m output/tabletop --sentence "the tall yellow bottle" --views frame_00008
python render.py -m output/tabletop --sentence "the tall yellow bottle" --orbit
"""

from __future__ import annotations

import importlib

from refer3d.runs.errors import InputError, run
from train import MODEL_OF, MODELS


def main(argv: list[str]) -> None:
    """Runs ``refersplat render``."""
    from refer3d.runs.config import choose_model

    model = choose_model(argv, MODELS, MODEL_OF)
    if model != "refersplat":
        raise InputError(
            f"render.py: draws scenes of refersplat; {model} marks a scan by: "
            f'{model} predict scan.ply "the brown chair" -o out/'
        )
    importlib.import_module(f"{model}.__main__").main(["render", *argv])


if __name__ == "__main__":
    run(main)
