"""The program ``refersplat masks``: sentences become masks of a scene's photos."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
from PIL import Image

from refer3d.runs.errors import InputError
from refer3d.runs.files import atomic_write, sweep_drafts
from refer3d.runs.folder import RunFolder
from refer3d.runs.progress import Progress
from refersplat.data.annotations import MaskFile
from refersplat.data.images import SUFFIXES, decode, in_threads, list_files, read_size
from refersplat.data.names import ViewNames, view_names, without_suffix
from refersplat.masks.candidates import Finder, Look, load_models
from refersplat.masks.choose import Candidate, choose, weighted_ious
from refersplat.masks.options import MasksConfig
from refersplat.masks.records import Masked, PhotoRecord, read_record
from refersplat.masks.sentences import Subject, read_subjects
from refersplat.masks.sheet import write_sheets

log = logging.getLogger(__name__)

WORK = "masking"
"""Folder in the scene with options, report and contact sheets."""
JSON, MASKS = "json", "gt_mask"
SHARED = 0.8
"""IoU from which on masks of two objects are reported as the same."""
_LONGEST_LIST = 8


@dataclass(frozen=True)
class Found:
    """Where an object was found."""

    name: str
    photos: int
    confidence: float
    """Mean of the kept candidates; 0 if there are none."""
    agreement: float
    """Mean weighted IoU of the kept candidates with the others."""
    absent: list[str]
    """Views without a candidate."""
    silent: list[str]
    """Sentences that had no candidate in any photo."""


@dataclass(frozen=True)
class Report:
    """Result of the program."""

    photos: int
    objects: list[Found]
    same: list[tuple[str, str, int]]
    """Two objects that were given the same pixels, and in how many photos."""

    @property
    def text(self) -> str:
        """The page that is printed."""
        lines = [f"{'photos':>8} {'confidence':>10} {'agreement':>10}  object"]
        lines += [
            f"{item.photos:>8} {item.confidence:>10.2f} {item.agreement:>10.2f}  {item.name}"
            for item in self.objects
        ]
        lines += [f"never found: {sentence}" for item in self.objects for sentence in item.silent]
        lines += [
            f"the same pixels in {number} of {self.photos} photos: {one} and {other}"
            for one, other, number in self.same[:_LONGEST_LIST]
        ]
        return "\n".join([f"{self.photos} photos", *lines])


def make_masks(config: MasksConfig) -> Report:
    """Writes ``json/`` and ``gt_mask/`` of the scene; what an earlier call has written stays.

    Raises:
        InputError: A file or model is missing or wrong, or the scene has sentences or masks that
            this program has not written, or has written with other options.
    """
    scene = Path(config.scene).expanduser()
    subjects = read_subjects(Path(config.sentences).expanduser())
    photos, files, chosen = _find_photos(scene, config)
    run = RunFolder(scene / WORK, MasksConfig)
    _check_free(run, config, scene)
    in_threads(read_size, photos.values())  # a broken photo is told before hours of work
    records = {view: read_record(files[view]) for view in photos}
    pending = [view for view in chosen if not _is_done(records[view], subjects, scene)]
    look = load_models(config) if pending else None
    with run.held("SCENE"):
        if not run.exists():
            path = str(Path(config.sentences).expanduser().absolute())
            run.claim(replace(config, scene=str(scene.absolute()), sentences=path))
        for folder in (JSON, MASKS):
            sweep_drafts(scene / folder)
        with Progress("photos", len(chosen), start=len(chosen) - len(pending)) as progress:
            for view in pending:
                assert look is not None
                record = _mask_photo(view, photos[view], subjects, records[view], look, scene)
                record.write(files[view])
                _remove_stale(records[view], record, scene)
                records[view] = record
                progress.report(progress.done, found=len(record.masks))
                progress.advance()
        report = _report(subjects, {view: record for view, record in records.items() if record})
        _write_report(report, scene / WORK)
        masks = {
            subject.name: {
                view: record.masks[subject]
                for view, record in records.items()
                if record and subject in record.masks
            }
            for subject in subjects
        }
        sheets = write_sheets(scene / WORK, subjects, photos, masks, scene / MASKS)
    log.info("%s\n\nlook at %s; next, refersplat check %s", report.text, sheets[0], scene)
    return report


def _find_photos(
    scene: Path, config: MasksConfig
) -> tuple[dict[str, Path], dict[str, Path], list[str]]:
    """The photos and json files of all views, and the views to mask."""
    if not scene.is_dir():
        raise InputError(f"{scene}: no such folder; name the folder of the scene")
    folder = scene / config.images
    names = list_files(folder) if folder.is_dir() else []
    names = [name for name in names if name.lower().endswith(SUFFIXES)]
    if not names:
        raise InputError(
            f"{folder}: expected photos ({', '.join(SUFFIXES)}), got none; copy them there, or "
            "name their folder in the scene with --images"
        )
    views = view_names(names)
    photos = {view: folder / name for view, name in zip(views, names, strict=True)}
    files = {
        view: scene / JSON / f"{without_suffix(name)}.json"
        for view, name in zip(views, names, strict=True)
    }
    if not config.views:
        return photos, files, views
    chosen = ViewNames(views, names).require(config.views, "--views")
    return photos, files, [view for view in views if view in chosen]


def _check_free(run: RunFolder[MasksConfig], config: MasksConfig, scene: Path) -> None:
    """Checks that masks can be written, or that the same options wrote those that are there."""
    if run.exists():
        remedy = f"delete {WORK}/, {JSON}/ and {MASKS}/ in {scene} to begin anew"
        run.refuse_changes(config, "train", remedy)
        return
    for name in (JSON, MASKS):
        if (scene / name).is_dir() and any((scene / name).iterdir()):
            raise InputError(
                f"{scene / name}: expected no such folder, got one that this program has not "
                "written; move it away, or make a scene with a link to the photos"
            )


def _is_done(record: PhotoRecord | None, subjects: Sequence[Subject], scene: Path) -> bool:
    if record is None or {*record.masks, *record.absent} != {*subjects}:
        return False
    return all((scene / MASKS / masked.file).is_file() for masked in record.masks.values())


def _mask_photo(
    view: str,
    path: Path,
    subjects: Sequence[Subject],
    former: PhotoRecord | None,
    look: Look,
    scene: Path,
) -> PhotoRecord:
    """Masks the objects that the former record does not know with the same sentences."""
    record, former = PhotoRecord(), former or PhotoRecord()
    find: Finder | None = None
    masks: dict[str, np.ndarray] = {}
    for subject in subjects:
        masked = former.masks.get(subject)
        if masked is not None and (scene / MASKS / masked.file).is_file():
            record.masks[subject] = masked
            masks[subject.name] = MaskFile(scene / MASKS / masked.file).read()
            continue
        if masked is None and subject in former.absent:
            record.absent.append(subject)
            continue
        find = find or look(np.ascontiguousarray(decode(path)[..., :3]))
        found = [find(sentence) for sentence in subject.sentences]
        choice = choose([candidate for of_sentence in found for candidate in of_sentence])
        if choice is None:
            record.absent.append(subject)
            continue
        file = f"{subject.stem}_{view}.png"
        with atomic_write(scene / MASKS / file) as stream:
            Image.fromarray(choice.mask.astype(np.uint8) * 255).save(stream, format="PNG")
        numbers = round(choice.confidence, 4), round(choice.agreement, 4)
        record.masks[subject] = Masked(file, *numbers, candidates=tuple(map(len, found)))
        masks[subject.name] = choice.mask
    overlaps = weighted_ious([Candidate(mask, 1.0) for mask in masks.values()])
    record.same = [
        (one, other)
        for (i, one), (j, other) in combinations(enumerate(masks), 2)
        if overlaps[i, j] >= SHARED
    ]
    return record


def _remove_stale(former: PhotoRecord | None, record: PhotoRecord, scene: Path) -> None:
    """Removes masks of objects that are gone."""
    kept = {masked.file for masked in record.masks.values()}
    for masked in former.masks.values() if former else ():
        if masked.file not in kept:
            (scene / MASKS / masked.file).unlink(missing_ok=True)


def _report(subjects: Sequence[Subject], records: Mapping[str, PhotoRecord]) -> Report:
    objects = []
    for subject in subjects:
        found = [record.masks[subject] for record in records.values() if subject in record.masks]
        counts = np.array([item.candidates for item in found]).sum(axis=0)
        objects.append(
            Found(
                name=subject.name,
                photos=len(found),
                confidence=float(np.mean([item.confidence for item in found] or [0.0])),
                agreement=float(np.mean([item.agreement for item in found] or [0.0])),
                absent=[view for view, record in records.items() if subject in record.absent],
                silent=[
                    sentence
                    for sentence, count in zip(
                        subject.sentences,
                        counts if found else [0] * len(subject.sentences),
                        strict=True,
                    )
                    if not count
                ],
            )
        )
    same = Counter(pair for record in records.values() for pair in record.same)
    return Report(len(records), objects, [(*pair, count) for pair, count in same.most_common()])


def _write_report(report: Report, folder: Path) -> None:
    files = {"report.txt": f"{report.text}\n", "report.json": json.dumps(asdict(report), indent=1)}
    for name, text in files.items():
        with atomic_write(folder / name) as file:
            file.write(text.encode())
