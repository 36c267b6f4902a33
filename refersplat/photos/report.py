"""Report on the poses: numbers, photos without one and why, coverage, what to photograph next."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from refer3d.runs.files import atomic_write
from refersplat.photos.collect import Collection, Photo
from refersplat.photos.poses import Poses

FEW_FEATURES = 100
BLURRED = 0.2
"""Share of the median sharpness below which a photo is called blurred."""
GAP = 60.0
"""Degrees around the scene without a photo that are worth a mention."""
FLAT = 15.0
"""Degrees of height over which cameras should at least spread."""
FEW_PHOTOS = 20
SMALL_ANGLE = 4.0
"""Degrees between the views of a point below which its distance is uncertain."""
_LONGEST_LIST = 12
_PANEL = 640  # pixels
_DRAWN = 30_000  # points
_BLUE, _INK = (10, 100, 200), (64, 64, 72)


@dataclass(frozen=True)
class Model:
    """The model in plain arrays, after levelling."""

    names: list[str]
    """V photos."""
    rotations: np.ndarray
    """[V, 3, 3] world to camera."""
    positions: np.ndarray
    """[V, 3]"""
    points: np.ndarray
    """[P, 3]"""
    colors: np.ndarray
    """[P, 3] uint8"""
    errors: np.ndarray
    """[P] mean reprojection errors in pixels."""
    lengths: np.ndarray
    """[P] numbers of photos that see the point."""
    angles: np.ndarray
    """[P] largest angle between two views of the point, in degrees."""
    counts: np.ndarray
    """[V] points that each photo sees."""
    lenses: list[str]
    """Each camera's model and numbers, before undistortion."""


@dataclass(frozen=True)
class Report:
    """Facts about the poses; ``text`` is a page for people."""

    photos: int
    registered: int
    search: str
    """Name of the search that found the poses."""
    reprojection_error: float
    """Mean over points, in pixels."""
    points: int
    photos_per_point: float
    angle: float
    """Median of the largest angle between two views of a point, in degrees."""
    features: float
    """Median number of features of a photo."""
    azimuth_gap: tuple[float, str, str]
    """Widest sector around the scene without a camera, in degrees, and the photos at its sides."""
    heights: tuple[float, float]
    """Lowest and highest camera, as degrees above the horizon seen from the scene's middle."""
    weakest: list[tuple[str, int]]
    """Photos that see fewest points, with their number."""
    lenses: list[str]
    without_pose: dict[str, str]
    """Reasons by photo."""
    left_out: dict[str, str]
    """Reasons by file that was not tried."""
    advice: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The page."""
        low, high = self.heights
        gap, one, two = self.azimuth_gap
        rows = [
            ("photos", f"{self.registered} of {self.photos} have a pose ({self.search} search)"),
            ("error", f"{self.reprojection_error:.2f} pixels between points and photos"),
            ("points", f"{self.points}, each in {self.photos_per_point:.1f} photos, seen from "
                       f"{self.angle:.0f}° apart"),
            ("features", f"{self.features:.0f} per photo (median)"),
            ("around", f"widest gap {gap:.0f}° between {one} and {two}"),
            ("heights", f"{low:.0f}° to {high:.0f}° above the scene's middle"),
            *(("lens", lens) for lens in self.lenses),
        ]  # fmt: skip
        lines = [f"{name:<10} {text}" for name, text in rows]
        for title, reasons in (("no pose", self.without_pose), ("left out", self.left_out)):
            lines += [f"{title:<10} {len(reasons) or 'none'}"]
            lines += [
                f"  {name}: {reason}" for name, reason in list(reasons.items())[:_LONGEST_LIST]
            ]
            if len(reasons) > _LONGEST_LIST:
                lines.append(f"  … and {len(reasons) - _LONGEST_LIST} more in report.json")
        lines += ["next", *(f"  {sentence}" for sentence in self.advice or ["nothing is missing"])]
        return "\n".join(lines)


def make_report(collection: Collection, poses: Poses, model: Model) -> Report:
    """Describes the largest model."""
    gap = _azimuth_gap(model)
    heights = _heights(model)
    order = np.argsort(model.counts, kind="stable")[:3]
    facts = Report(
        photos=len(collection.photos),
        registered=len(model.names),
        search=poses.search,
        reprojection_error=float(model.errors.mean()),
        points=len(model.points),
        photos_per_point=float(model.lengths.mean()),
        angle=float(np.median(model.angles)),
        features=float(np.median(list(poses.features.values()))),
        azimuth_gap=gap,
        heights=heights,
        weakest=[(model.names[index], int(model.counts[index])) for index in order],
        lenses=model.lenses,
        without_pose=explain(collection.photos, poses),
        left_out=collection.left_out,
    )
    facts.advice.extend(_advise(facts, poses))
    return facts


def explain(photos: Sequence[Photo], poses: Poses) -> dict[str, str]:
    """Says of each photo without a pose why it has none."""
    registered = poses.registered
    median = float(np.median([photo.sharpness for photo in photos]))
    groups = {name: group for group in poses.others for name in group}
    reasons = {}
    for photo in photos:
        if photo.name in registered:
            continue
        features = poses.features.get(photo.name, 0)
        links = poses.links.get(photo.name, [])
        known = [(count, name) for count, name in links if name in registered]
        if features < FEW_FEATURES:
            reason = f"only {features} features: it is blurred, dark or shows a bare surface"
        elif photo.name in groups:
            reason = (
                f"one of {len(groups[photo.name])} photos that fit each other, not the others; "
                "take photos on the way between them"
            )
        elif not links:
            reason = "shows nothing that another photo shows; take one that overlaps with it"
        elif not known:
            reason = f"fits only {links[0][1]}, which has no pose either"
        else:
            reason = (
                f"its best match, {known[0][1]}, shares {known[0][0]} features: too few for a "
                "pose; take photos between the two"
            )
        if photo.sharpness < BLURRED * median and features >= FEW_FEATURES:
            reason = f"blurred; {reason}"
        reasons[photo.name] = reason
    return reasons


def write_report(report: Report, model: Model, folder: Path) -> None:
    """Writes ``report.txt``, ``report.json`` and the picture ``report.png``."""
    files = {"report.txt": f"{report.text}\n", "report.json": json.dumps(asdict(report), indent=1)}
    for name, text in files.items():
        with atomic_write(folder / name) as file:
            file.write(text.encode())
    with atomic_write(folder / "report.png") as file:
        Image.fromarray(draw(model)).save(file, format="PNG")


def draw(model: Model) -> np.ndarray:  # [H, W, 3] uint8 RGB
    """Draws cameras and points from above and from the side."""
    reach = 1.6 * np.percentile(np.linalg.norm(model.positions, axis=1), 95)
    order = np.linspace(0, len(model.points) - 1, min(len(model.points), _DRAWN)).astype(int)
    panels = []
    for title, axes in (("from above: x right, y up", (0, 1)), ("from x: y right, z up", (1, 2))):
        panel = np.full((_PANEL, _PANEL, 3), 255, np.uint8)

        def to_pixels(points: np.ndarray, axes: tuple[int, int] = axes) -> np.ndarray:
            flat = points[:, axes] * [1, -1] / reach
            return np.rint((flat + 1) * _PANEL / 2).clip(-_PANEL, 2 * _PANEL).astype(int)

        places = to_pixels(model.points[order])
        is_inside = ((places >= 0) & (places < _PANEL - 1)).all(axis=1)
        for shift in ((0, 0), (0, 1), (1, 0), (1, 1)):
            x, y = (places[is_inside] + shift).T
            panel[y, x] = model.colors[order][is_inside]
        starts = to_pixels(model.positions)
        ends = to_pixels(model.positions + 0.12 * reach * model.rotations[:, 2])
        for start, end in zip(starts, ends, strict=True):
            cv2.line(panel, start.tolist(), end.tolist(), _BLUE, 1, cv2.LINE_AA)
            cv2.circle(panel, start.tolist(), 3, _BLUE, -1, cv2.LINE_AA)
        step = max(1, len(starts) // 12)
        for name, (x, y) in list(zip(model.names, starts.tolist(), strict=True))[::step]:
            _write(panel, name.rpartition(".")[0], (x + 5, y - 5))
        _write(panel, title, (10, 20))
        panels.append(panel)
    return np.concatenate(panels, axis=1)


def _write(panel: np.ndarray, text: str, place: tuple[int, int]) -> None:
    cv2.putText(panel, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.4, _INK, 1, cv2.LINE_AA)


def _azimuth_gap(model: Model) -> tuple[float, str, str]:
    angles = np.degrees(np.arctan2(model.positions[:, 1], model.positions[:, 0]))
    order = np.argsort(angles, kind="stable")
    ahead = np.roll(order, -1)
    gaps = (angles[ahead] - angles[order]) % 360
    gaps[gaps == 0] = 360.0 if len(order) == 1 else 0.0
    widest = int(gaps.argmax())
    return float(gaps[widest]), model.names[order[widest]], model.names[ahead[widest]]


def _heights(model: Model) -> tuple[float, float]:
    distances = np.linalg.norm(model.positions[:, :2], axis=1)
    heights = np.degrees(np.arctan2(model.positions[:, 2], distances))
    return float(heights.min()), float(heights.max())


def _advise(report: Report, poses: Poses) -> list[str]:
    """Advice for the next photos, most useful first."""
    advice = []
    if poses.others:
        sizes = ", ".join(str(len(group)) for group in poses.others)
        advice.append(
            f"connect the groups: {sizes} photos (from {poses.others[0][0]}) fit each other, not "
            "the rest; photograph the way between, each overlapping with the last by two thirds"
        )
    elif report.without_pose:
        name = next(iter(report.without_pose))
        advice.append(f"take sharper, more overlapping photos where {name} was taken")
    if report.photos < FEW_PHOTOS:
        advice.append(f"take more: {report.photos} photos are few, 30 to 100 are good")
    if report.angle < SMALL_ANGLE:
        advice.append("step sideways between photos: turning on the spot gives no distances")
    gap, one, two = report.azimuth_gap
    if gap > GAP:
        advice.append(
            f"walk round from {one} to {two}: no photo covers {gap:.0f}° there (unless a wall is "
            "in the way)"
        )
    low, high = report.heights
    if high - low < FLAT:
        advice.append(
            f"hold the camera higher, and lower: all photos are {low:.0f}° to {high:.0f}° above "
            "the scene's middle"
        )
    name, count = report.weakest[0]
    if count < FEW_FEATURES:
        advice.append(f"add photos close to {name}: only {count} points hold its pose")
    return advice
