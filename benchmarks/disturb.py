"""Disturbs a scene's photos and poses: python benchmarks/disturb.py SCENE OUT [--colors] [--poses].

``--colors`` gives every photo a gain of 0.7 to 1.4 for each channel and a gamma of 0.8 to 1.25, as
of two cameras that choose exposure and white balance for themselves. ``--poses`` turns every camera
by 0.3 degrees and shifts it by 0.5 % of the scene's extent, each in a random direction. Sentences
and masks are linked.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.spatial.transform import Rotation

from refersplat.config import DataConfig
from refersplat.data import Scene, View, load_scene
from refersplat.rgb.poses import moved

DEGREES, SHIFT = 0.3, 0.005
GAINS, GAMMAS = (0.7, 1.4), (0.8, 1.25)


def recolored(view: View, rng: np.random.Generator) -> Image.Image:
    """The photo with other gains and another gamma."""
    gains, gamma = rng.uniform(*GAINS, 3), np.exp(rng.uniform(*np.log(GAMMAS)))
    pixels = view.image().permute(1, 2, 0).numpy() ** gamma * gains
    return Image.fromarray((pixels.clip(0, 1) * 255).round().astype(np.uint8))


def pose_line(index: int, view: View, name: str, motion: np.ndarray, extent: float) -> str:
    """The camera after a motion, as two lines of COLMAP's images.txt."""
    camera = moved(view.camera, torch.from_numpy(motion).float(), extent)
    pose = camera.world_to_camera.double().numpy()
    quaternion = Rotation.from_matrix(pose[:3, :3]).as_quat()[[3, 0, 1, 2]]
    numbers = " ".join(repr(float(number)) for number in (*quaternion, *pose[:3, 3]))
    return f"{index} {numbers} 1 {name}\n\n"


def disturb(scene: Scene, out: Path, colors: bool, poses: bool, seed: int) -> None:
    """Writes the disturbed scene."""
    rng = np.random.default_rng(seed)
    (out / "images").mkdir(parents=True)
    (out / "sparse/0").mkdir(parents=True)
    lines = []
    for index, view in enumerate(scene.views, 1):
        axis, way = rng.normal(size=(2, 3))
        motion = np.concatenate(
            [
                np.radians(DEGREES) * axis / np.linalg.norm(axis),
                SHIFT * way / np.linalg.norm(way),
            ]
        )
        name = f"{view.path.stem}.png" if colors else view.path.name
        picture = recolored(view, rng)
        if colors:
            picture.save(out / "images" / name)
        else:
            (out / "images" / name).symlink_to(view.path.resolve())
        lines.append(pose_line(index, view, name, motion * poses, scene.extent))
    camera = scene.views[0].camera
    lens = f"{camera.width} {camera.height} {camera.fx} {camera.fy} {camera.cx} {camera.cy}"
    (out / "sparse/0/cameras.txt").write_text(f"1 PINHOLE {lens}\n")
    (out / "sparse/0/images.txt").write_text("".join(lines))
    if scene.points:
        rows = zip(*(tensor.tolist() for tensor in scene.points), strict=True)
        text = (
            f"{i} {' '.join(map(str, xyz))} {' '.join(str(round(255 * c)) for c in rgb)} 0\n"
            for i, (xyz, rgb) in enumerate(rows, 1)
        )
        (out / "sparse/0/points3D.txt").write_text("".join(text))
    for name in ("json", "gt_mask", "gt_mask_amodal", "meta.json"):
        if (path := scene.path / name).exists():
            (out / name).symlink_to(path.resolve())


def main() -> None:
    """Reads the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scene")
    parser.add_argument("out", type=Path, help="folder that does not exist")
    parser.add_argument("--colors", action="store_true")
    parser.add_argument("--poses", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    scene = load_scene(DataConfig(scene=args.scene))
    disturb(scene, args.out, args.colors, args.poses, args.seed)


if __name__ == "__main__":
    main()
