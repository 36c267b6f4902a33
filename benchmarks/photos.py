"""Compares the poses of two scenes of the same photos: python benchmarks/photos.py FOUND TRUE.

``refersplat photos TRUE/images -o FOUND`` makes the first. A similarity aligns its camera positions
with the true ones (Umeyama 1991); prints how far rotations and positions then differ.
"""

from __future__ import annotations

import argparse
import logging

import numpy as np

from refersplat.config import DataConfig
from refersplat.data import load_scene


def poses(scene: str) -> dict[str, np.ndarray]:
    """World to camera [4, 4] by view."""
    views = load_scene(DataConfig(scene=scene)).views
    return {view.name: view.camera.world_to_camera.double().numpy() for view in views}


def align(
    source: np.ndarray,  # [V, 3]
    target: np.ndarray,  # [V, 3]
) -> tuple[float, np.ndarray, np.ndarray]:  # scale, rotation [3, 3], translation [3]
    """The similarity of least squares from ``source`` to ``target`` (Umeyama 1991)."""
    means = source.mean(axis=0), target.mean(axis=0)
    one, two = source - means[0], target - means[1]
    left, values, right = np.linalg.svd(two.T @ one)
    signs = np.array([1.0, 1.0, np.linalg.det(left) * np.linalg.det(right)])
    rotation = (left * signs) @ right
    scale = float((values * signs).sum() / (one**2).sum())
    return scale, rotation, means[1] - scale * rotation @ means[0]


def main() -> None:
    """Prints the differences."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("found", help="scene that refersplat photos wrote")
    parser.add_argument("true", help="scene with the true poses of the same photos")
    arguments = parser.parse_args()
    logging.disable()
    found, true = poses(arguments.found), poses(arguments.true)
    names = sorted(found.keys() & true.keys())
    ones, twos = (np.stack([group[name] for name in names]) for group in (found, true))
    places = [-(p[:, :3, :3].transpose(0, 2, 1) @ p[:, :3, 3:])[..., 0] for p in (ones, twos)]
    scale, rotation, translation = align(*places)
    moved = scale * places[0] @ rotation.T + translation
    radius = np.linalg.norm(places[1] - places[1].mean(axis=0), axis=1).max()
    shares = 100 * np.linalg.norm(moved - places[1], axis=1) / radius
    turned = ones[:, :3, :3] @ rotation.T @ twos[:, :3, :3].transpose(0, 2, 1)
    traces = np.clip((np.trace(turned, axis1=1, axis2=2) - 1) / 2, -1, 1)
    degrees = np.degrees(np.arccos(traces))
    print(f"{len(names)} of {len(true)} photos have a pose")
    for name, values, unit in (
        ("rotation", degrees, "degrees"),
        ("position", shares, "% of the scene's radius"),
    ):
        print(f"{name:<9} median {np.median(values):.3f}, worst {values.max():.3f} {unit}")
    up = rotation.T @ [0, 0, 1]
    print(f"tilt of the found world against the true z axis: {np.degrees(np.arccos(up[2])):.2f}°")


if __name__ == "__main__":
    main()
