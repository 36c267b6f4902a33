"""Poses of photos by COLMAP: features, matches, the incremental mapper."""

from __future__ import annotations

import importlib
import logging
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from refer3d.runs.errors import InputError
from refer3d.runs.files import atomic_write
from refer3d.runs.progress import Progress
from refersplat.photos.collect import Photo
from refersplat.photos.options import PhotosConfig

log = logging.getLogger(__name__)

ALL_PAIRS = 200
"""Largest number of photos of which ``pairs: auto`` compares all."""
NEIGHBOURS = 10
"""Photos after each, in the order of names, that ``sequence`` compares it with; beyond them those
at distances 16, 32, 64 …, which close loops."""
CALIBRATED = 20
"""Photos of one lens with a pose from which on its principal point is found, too. Phones crop and
stabilise pictures, which moves it by a percent; with few photos it would follow their errors."""
ENOUGH = 0.8
"""Share of photos with a pose below which the second, more sensitive search runs."""
_BATCH = 8  # photos, between two moves of the progress bar
_PAIRS = 64
_FOCAL_GUESS = 1.2  # of the longer side, where EXIF has none; COLMAP's


@dataclass(frozen=True)
class Search:
    """Effort of the search for features, and agreement that a pose needs."""

    name: str
    peak_threshold: float
    """Least contrast of a SIFT feature."""
    first_inliers: int
    """Matches that the first two photos need."""
    first_angle: float
    """Degrees between their views of a point."""
    inliers: int
    """Matches with known points that any other photo needs."""


SEARCHES = (
    Search("usual", 0.02 / 3, 100, 16.0, 30),  # COLMAP's defaults
    Search("sensitive", 0.006 / 3, 40, 6.0, 15),
)


@dataclass(frozen=True)
class Poses:
    """The largest model that COLMAP found."""

    model: Any
    """``pycolmap.Reconstruction``."""
    features: dict[str, int]
    """Number of features by photo."""
    links: dict[str, list[tuple[int, str]]]
    """Matches that fit one geometry and the photo on their other end, by photo, most first."""
    others: list[list[str]]
    """Photos of the smaller models, which nothing connects with the largest."""
    search: str
    """Name of the search."""

    @property
    def registered(self) -> set[str]:
        """Photos with a pose."""
        images = self.model.images.values() if self.model else ()
        return {image.name for image in images if image.has_pose}


def require_colmap() -> Any:
    """Imports pycolmap, after Pillow and OpenCV: before them, its zlib crashes theirs.

    Raises:
        InputError: It is not installed.
    """
    try:
        colmap = importlib.import_module("pycolmap")
    except ImportError as error:
        raise InputError(
            "refersplat photos: expected pycolmap, which is not installed; "
            "pip install 'refer3d[photos]'"
        ) from error
    colmap.logging.minloglevel = colmap.logging.FATAL.value
    return colmap


def find_poses(photos: Sequence[Photo], folder: Path, config: PhotosConfig) -> Poses:
    """Finds poses; searches again, more sensitively, where few photos have one.

    Args:
        photos: Photos in ``folder / "photos"``.
        folder: COLMAP's files; features and matches that are there are not computed again.
        config: Pairs, lens model, threads and seed.

    Returns:
        The largest model of the better search; its ``model`` is None if no two photos fit.
    """
    best: Poses | None = None
    for search in SEARCHES:
        poses = _search(photos, folder, config, search)
        if best is None or len(poses.registered) > len(best.registered):
            best = poses
        if len(poses.registered) >= ENOUGH * len(photos):
            break
    assert best is not None
    return best


def _search(photos: Sequence[Photo], folder: Path, config: PhotosConfig, search: Search) -> Poses:
    colmap = require_colmap()
    colmap.set_random_seed(config.seed)
    database = folder / f"{search.name}.db"
    images = folder / "photos"
    log.info("%s search: contrast %.4f", search.name, search.peak_threshold)
    _extract(colmap, photos, images, database, config, search)
    _match(colmap, photos, database, config)
    features, links = _read_matches(colmap, database)
    options = colmap.IncrementalPipelineOptions()
    options.num_threads, options.random_seed = config.threads, config.seed
    options.min_model_size = 3
    options.mapper.init_min_num_inliers = search.first_inliers
    options.mapper.init_min_tri_angle = search.first_angle
    options.mapper.abs_pose_min_num_inliers = search.inliers
    models: list[Any] = []
    if links:
        (folder / search.name).mkdir(exist_ok=True)
        with Progress("poses", len(photos)) as progress:
            found = colmap.incremental_mapping(
                *(database, images, folder / search.name, options),
                initial_image_pair_callback=lambda: progress.advance(2),
                next_image_callback=progress.advance,
            )
        models = sorted(found.values(), key=lambda model: -model.num_reg_images())
    names = [
        sorted(image.name for image in model.images.values() if image.has_pose) for model in models
    ]
    if models:
        _refine(colmap, models[0], config)
    largest = set(names[0]) if names else set()
    others = [left for group in names[1:] if (left := [n for n in group if n not in largest])]
    return Poses(models[0] if models else None, features, links, others, search.name)


def _refine(colmap: Any, model: Any, config: PhotosConfig) -> None:
    """Adjusts poses, points and lenses once more, also the principal points of lenses."""
    images = [image for image in model.images.values() if image.has_pose]
    numbers = Counter(image.camera_id for image in images)
    if max(numbers.values()) < CALIBRATED:
        return
    problem = colmap.BundleAdjustmentConfig()
    for image in images:
        problem.add_image(image.image_id)
    for camera, number in numbers.items():
        if number < CALIBRATED:
            problem.set_constant_cam_intrinsics(camera)
    problem.fix_gauge(colmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
    options = colmap.BundleAdjustmentOptions()
    options.refine_principal_point, options.print_summary = True, False
    options.ceres.solver_options.num_threads = config.threads
    colmap.create_default_bundle_adjuster(options, problem, model).solve()
    model.update_point_3d_errors()


def _extract(
    colmap: Any,
    photos: Sequence[Photo],
    images: Path,
    database: Path,
    config: PhotosConfig,
    search: Search,
) -> None:
    """Finds the features of the photos that have none in the database yet."""
    lenses: dict[str, list[Photo]] = defaultdict(list)
    for photo in photos:
        lenses[f"{photo.lens} {photo.width}x{photo.height}"].append(photo)
    options = colmap.FeatureExtractionOptions()
    options.num_threads = config.threads
    options.sift.peak_threshold = search.peak_threshold
    with colmap.Database.open(database) as content:
        known = {camera.camera_id for camera in content.read_all_cameras()}
        for number, group in enumerate(lenses.values(), 1):
            if number not in known:
                content.write_camera(_camera(colmap, number, group[0], config), use_camera_id=True)
        done = {
            image.name
            for image in content.read_all_images()
            if content.exists_descriptors(image.image_id)
        }
    with Progress("features", len(photos), start=len(done)) as progress:
        for number, group in enumerate(lenses.values(), 1):
            reader = colmap.ImageReaderOptions()
            reader.camera_model, reader.existing_camera_id = config.camera_model, number
            names = [photo.name for photo in group if photo.name not in done]
            for start in range(0, len(names), _BATCH):
                batch = names[start : start + _BATCH]
                colmap.extract_features(
                    *(database, images, batch),
                    camera_mode=colmap.CameraMode.SINGLE,
                    reader_options=reader,
                    extraction_options=options,
                )
                progress.advance(len(batch))


def _camera(colmap: Any, number: int, photo: Photo, config: PhotosConfig) -> Any:
    focal = photo.focal or _FOCAL_GUESS * max(photo.width, photo.height)
    camera = colmap.Camera.create_from_model_name(
        number, config.camera_model, focal, photo.width, photo.height
    )
    camera.has_prior_focal_length = photo.focal > 0
    return camera


def choose_pairs(names: Sequence[str], pairs: str) -> Iterator[tuple[str, str]]:
    """Yields the pairs of photos to compare.

    Args:
        names: Names of the photos in the order of taking.
        pairs: As in :class:`~refersplat.photos.options.PhotosConfig`.
    """
    if pairs == "all" or (pairs == "auto" and len(names) <= ALL_PAIRS):
        yield from combinations(names, 2)
        return
    steps = list(range(1, NEIGHBOURS + 1))
    steps += [2**n for n in range(4, len(names).bit_length()) if 2**n > NEIGHBOURS]
    for step in steps:
        yield from zip(names, names[step:], strict=False)


def _match(colmap: Any, photos: Sequence[Photo], database: Path, config: PhotosConfig) -> None:
    """Matches the pairs that have no matches in the database yet."""
    options, verification = colmap.FeatureMatchingOptions(), colmap.TwoViewGeometryOptions()
    pairs = list(choose_pairs([photo.name for photo in photos], config.pairs))
    with colmap.Database.open(database) as content:
        numbers = {image.name: image.image_id for image in content.read_all_images()}
        left = [
            (one, two)
            for one, two in pairs
            if not content.exists_two_view_geometry(numbers[one], numbers[two])
        ]
    options.num_threads = config.threads
    verification.ransac.random_seed = config.seed
    pairing = colmap.ImportedPairingOptions()
    pairing.match_list_path = database.with_suffix(".pairs.txt")
    with Progress("pairs", len(pairs), start=len(pairs) - len(left)) as progress:
        for start in range(0, len(left), _PAIRS):
            batch = left[start : start + _PAIRS]
            with atomic_write(pairing.match_list_path) as file:
                file.write("".join(f"{one} {two}\n" for one, two in batch).encode())
            colmap.match_image_pairs(
                database,
                matching_options=options,
                pairing_options=pairing,
                verification_options=verification,
            )
            progress.advance(len(batch))


def _read_matches(
    colmap: Any, database: Path
) -> tuple[dict[str, int], dict[str, list[tuple[int, str]]]]:
    """Reads the number of features, and of matches that fit one geometry."""
    with colmap.Database.open(database) as content:
        names = {image.image_id: image.name for image in content.read_all_images()}
        features = {name: content.num_keypoints_for_image(number) for number, name in names.items()}
        keys, counts = content.read_two_view_geometry_num_inliers()
    links: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for key, count in zip(keys, counts, strict=True):
        one, two = (names[number] for number in colmap.pair_id_to_image_pair(key))
        if count > 0:
            links[one].append((count, two))
            links[two].append((count, one))
    return features, {name: sorted(ends, reverse=True) for name, ends in links.items()}
