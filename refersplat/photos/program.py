"""The program ``refersplat photos``: a folder of photos or a video becomes a scene."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from refer3d.runs.errors import InputError
from refer3d.runs.files import atomic_write
from refer3d.runs.folder import RunFolder
from refersplat.photos.collect import VIDEOS, Collection, collect_photos, read_collection
from refersplat.photos.options import PhotosConfig
from refersplat.photos.poses import Poses, find_poses, require_colmap
from refersplat.photos.report import Model, Report, explain, make_report, write_report
from refersplat.photos.video import collect_frames
from refersplat.photos.world import level

log = logging.getLogger(__name__)

WORK = "colmap"
"""Folder in the scene with the upright copies, features, matches and options; it may be deleted."""
FEWEST = 3
_REASONS = 4


def make_scene(config: PhotosConfig) -> Report:
    """Writes ``images/``, ``sparse/0/`` and a report into the scene's folder.

    Raises:
        InputError: There are no usable photos, no poses were found, or the folder is not free.
    """
    require_colmap()
    if "://" in config.source:
        raise InputError(f"{config.source}: expected a folder or a video here; download it first")
    source, scene = Path(config.source).expanduser(), Path(config.output).expanduser()
    _check_source(source, scene)
    work = scene / WORK
    _claim(config, scene, work)
    collection = _collect(config, source, work)
    if len(collection.photos) < FEWEST:
        left_out = [f"{name}: {text}" for name, text in collection.left_out.items()]
        more = [f"and {len(left_out) - _REASONS} more"] if len(left_out) > _REASONS else []
        reasons = "; ".join([*left_out[:_REASONS], *more])
        raise InputError(
            f"{source}: expected at least {FEWEST} photos, better 30, got {len(collection.photos)}"
            f"{f' ({reasons})' if reasons else ''}; take more, each overlapping with the last"
        )
    poses = find_poses(collection.photos, work, config)
    if len(poses.registered) < FEWEST or not poses.model.num_points3D():
        raise InputError(f"{source}: {_why_none(collection, poses)}")
    model = _level(poses.model, work / "level")
    report = make_report(collection, poses, model)
    write_report(report, model, scene)
    _write_scene(work, scene, sorted(poses.registered) if config.keep_distortion else [])
    log.info("%s\n\n%s: next, refersplat check %s", report.text, scene, scene)
    return report


def _check_source(source: Path, scene: Path) -> None:
    if not source.exists():
        raise InputError(f"{source}: no such folder or video; correct the path")
    if source.is_file() and source.suffix.lower() not in VIDEOS:
        raise InputError(
            f"{source}: expected a folder of photos or a video ({', '.join(VIDEOS)}), got a file "
            f"{source.suffix or 'without suffix'}; name the folder of the photos"
        )
    if source.is_dir() and source.resolve() in (scene.resolve(), *scene.resolve().parents):
        raise InputError(
            f"-o: {scene} lies in the folder of the photos; name a folder elsewhere for the scene"
        )


def _claim(config: PhotosConfig, scene: Path, work: Path) -> None:
    """Makes the scene's folder this program's, or checks that it is the one to go on with."""
    run = RunFolder(work, PhotosConfig)
    if run.exists():
        if not config.resume:
            raise InputError(
                f"-o: {scene} already holds photos and --resume was not given; resume, name "
                "another folder, or delete it"
            )
        run.refuse_changes(config, "train", "name another folder")
        if Path(run.config().source) != Path(config.source).expanduser().absolute():
            raise InputError(
                f"{config.source}: expected the photos of {scene}, {run.config().source}; name "
                "those, or another folder with -o"
            )
        return
    if scene.is_dir() and any(scene.iterdir()):
        raise InputError(f"-o: {scene} is not empty; name a new folder for the scene")
    source = str(Path(config.source).expanduser().absolute())
    values = {**asdict(config), "source": source, "resume": False}
    run.claim(PhotosConfig(**values))


def _collect(config: PhotosConfig, source: Path, work: Path) -> Collection:
    """Copies the photos, or reads the list of an earlier call."""
    path = work / "photos.json"
    if path.is_file():
        return read_collection(path)
    if source.is_file():
        size = config.frames, config.longest_side
        collection = collect_frames(source, work / "photos", *size)
    else:
        collection = collect_photos(source, work / "photos", config.longest_side)
    with atomic_write(path) as file:
        file.write(json.dumps(asdict(collection), indent=1).encode())
    return collection


def _why_none(collection: Collection, poses: Poses) -> str:
    features = float(np.median(list(poses.features.values()) or [0]))
    number = len(collection.photos)
    if features < 100:
        return (
            f"no poses: the {number} photos have {features:.0f} features each (median), expected "
            "hundreds; they are blurred, dark or show bare surfaces: take sharp ones of something "
            "with texture"
        )
    if not poses.links:
        return (
            f"no poses: no two of the {number} photos show the same thing; take each photo so that "
            "it overlaps with the last by two thirds"
        )
    reasons = [f" ({name}: {reason})" for name, reason in explain(collection.photos, poses).items()]
    return (
        f"no poses: the {number} photos overlap, but not from different places"
        f"{reasons[0] if reasons else ''}; step sideways between photos instead of turning on the "
        "spot, and keep the zoom"
    )


def _level(reconstruction: Any, folder: Path) -> Model:
    """Levels and scales the model, and writes it."""
    colmap = require_colmap()
    model = _arrays(reconstruction)
    change = level(model.rotations, model.positions, model.points)
    reconstruction.transform(
        colmap.Sim3d(change.scale, colmap.Rotation3d(change.rotation), change.translation)
    )
    folder.mkdir(exist_ok=True)
    reconstruction.write(folder)
    return _arrays(reconstruction)


def _arrays(reconstruction: Any) -> Model:
    images = sorted(
        (image for image in reconstruction.images.values() if image.has_pose), key=lambda i: i.name
    )
    poses = [image.cam_from_world() for image in images]
    points = list(reconstruction.points3D.values())
    positions = {image.image_id: image.projection_center() for image in images}
    return Model(
        names=[image.name for image in images],
        rotations=np.array([pose.rotation.matrix() for pose in poses]),
        positions=np.array(list(positions.values())),
        points=np.array([point.xyz for point in points]),
        colors=np.array([point.color for point in points]),
        errors=np.array([point.error for point in points]),
        lengths=np.array([point.track.length() for point in points]),
        angles=np.array([_widest(point, positions) for point in points]),
        counts=np.array([image.num_points3D for image in images]),
        lenses=[_describe(camera) for camera in reconstruction.cameras.values()],
    )


def _widest(point: Any, positions: dict[int, np.ndarray]) -> float:
    """Largest angle between two views of a point, in degrees."""
    numbers = dict.fromkeys(element.image_id for element in point.track.elements)
    rays = np.array([positions[number] - point.xyz for number in numbers])
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    return float(np.degrees(np.arccos(np.clip((rays @ rays.T).min(), -1, 1))))


def _describe(camera: Any) -> str:
    values = zip(camera.params_info.split(", "), camera.params, strict=True)
    numbers = ", ".join(f"{name} {value:.4g}" for name, value in values)
    return f"{camera.width}x{camera.height} {camera.model.name}: {numbers}"


def _write_scene(work: Path, scene: Path, kept: Sequence[str]) -> None:
    """Writes photos and cameras, undistorted unless photos are ``kept``; the poses come last."""
    draft = work / "scene"
    shutil.rmtree(draft, ignore_errors=True)
    if kept:
        (draft / "images").mkdir(parents=True)
        for name in kept:
            shutil.copyfile(work / "photos" / name, draft / "images" / name)
        shutil.copytree(work / "level", draft / "sparse")
    else:
        colmap = require_colmap()
        colmap.undistort_images(draft, work / "level", work / "photos", jpeg_quality=95)
    for folder in ("sparse", "images"):
        shutil.rmtree(scene / folder, ignore_errors=True)
    (draft / "images").rename(scene / "images")
    (scene / "sparse").mkdir()
    (draft / "sparse").rename(scene / "sparse" / "0")
    shutil.rmtree(draft)
