"""Datasets of descriptions: one record each, with its files, their format and its scores.

All files are lists of records with ``scene_id`` and ``ann_id``. A dataset of your own is one more
entry of ``DATASETS``; see docs/extending.md.
"""

from __future__ import annotations

import dataclasses
import logging
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from detailbase.config import DataConfig
from detailbase.descriptions.references import SENTENCE, Phrase, Record, Reference
from detailbase.scans.clouds import NONE, find_clouds, load_cloud, prepared_folder
from refer3d.runs.errors import InputError
from refer3d.runs.records import read_json, short

log = logging.getLogger(__name__)

OTHER = -1
UNNAMED = (NONE, 0, 1, 19)
"""ScanNet's labels that are no class of ScanRefer: none, wall, floor, other furniture."""
TARGETS = {"zt": "zero targets", "st": "single target", "mt": "multiple targets"}
"""First parts of Multi3DRefer's ``eval_type``."""


@dataclass(frozen=True)
class Dataset:
    """A dataset of descriptions."""

    file: str
    """Path of a split's descriptions below ``--data.root``, or ``--data.prepared``, with
    ``{split}``."""
    parse: Callable[[Record], Reference]
    """Reads a record of that file."""
    source: str
    """Advice where the file is absent: who gives it out."""
    with_kinds: Callable[[list[Reference], Path], list[Reference]] | None = None
    """Adds kinds that depend on all descriptions and the prepared scans; used in evaluation."""
    published: Mapping[str, tuple[tuple[str, float], ...]] = dataclasses.field(default_factory=dict)
    """For each split, names of methods and the mIoU in their papers."""


def parse_detailrefer(record: Record) -> Reference:
    """Reads ``t2o``, lists of object ids by the index of a word; without it, as ScanRefer's."""
    if "t2o" not in record.content:
        return parse_scanrefer(record)
    count, objects = len(record.words()), record.content["t2o"]
    if not isinstance(objects, dict):
        raise record.error("t2o", "lists of object ids by the index of a word", objects)
    phrases: dict[int, Phrase] = {}
    for key, value in objects.items():
        if not re.fullmatch(r"-1|\d{1,6}", key) or int(key) >= count:
            raise record.error(f"t2o[{short(key)}]", f"a word's index below {count}, or -1", key)
        if int(key) in phrases:
            raise record.error("t2o", f"the word {int(key)} once", key)
        phrases[int(key)] = Phrase(str(int(key)), record.objects(f"t2o[{short(key)}]", value))
    ordered = (phrases[index] for index in sorted(phrases))
    return record.reference(*ordered, object_id=record.identity("object_id", default=""))


def parse_scanrefer(record: Record) -> Reference:
    """Reads ``object_id``, the one object that the whole sentence describes."""
    (number,) = record.objects("object_id", [record.content.get("object_id")])
    return record.reference(Phrase(SENTENCE, (number,)), object_id=str(number))


def parse_multi3drefer(record: Record) -> Reference:
    """Reads ``object_ids``, any number of objects that the whole sentence describes."""
    ids = record.objects("object_ids", record.content.get("object_ids"))
    kind = record.identity("eval_type", default="")
    begin = kind.split("_")[0]
    kinds = (TARGETS.get(begin, ""), kind if kind not in TARGETS else "")
    return record.reference(Phrase(SENTENCE, ids), kinds=tuple(filter(None, kinds)))


def unique_or_multiple(references: list[Reference], scans: Path) -> list[Reference]:
    """Adds ScanRefer's kinds (Chen et al. 2020): "multiple" where another described object of the
    scan is of the same class, else "unique". Objects of none of its 17 named classes are one class.
    """
    clouds = find_clouds(scans, {reference.scene_id for reference in references})
    classes = {scene_id: _classes_of_objects(path) for scene_id, path in clouds.items()}
    class_of = {
        (one.scene_id, one.object_id): classes[one.scene_id].get(int(one.object_id), OTHER)
        for one in references
    }
    alike = Counter((scene_id, label) for (scene_id, _), label in class_of.items())

    def kind(one: Reference) -> str:
        label = class_of[one.scene_id, one.object_id]
        return "multiple" if alike[one.scene_id, label] > 1 else "unique"

    return [dataclasses.replace(one, kinds=(kind(one),)) for one in references]


def _classes_of_objects(path: Path) -> dict[int, int]:
    """Returns each object's class in a prepared scan, that of most of its points, or ``OTHER``."""
    cloud = load_cloud(path)
    classes = {
        int(index): int(cloud.semantic[cloud.instances == index].mode().values)
        for index in cloud.instances.unique()
        if index >= 0
    }
    return {index: OTHER if label in UNNAMED else label for index, label in classes.items()}


DATASETS = {
    "detailrefer": Dataset(
        "DetailRefer/DetailRefer_{split}.json",
        parse_detailrefer,
        "DetailRefer comes with the code of 3D-DRES (Chen et al., AAAI 2026, arXiv 2603.02896)",
        published={"val": (("DetailBase", 0.568),), "test": (("DetailBase", 0.557),)},
    ),
    "scanrefer": Dataset(
        "ScanRefer/ScanRefer_filtered_{split}.json",
        parse_scanrefer,
        "ScanRefer is given out at https://daveredrum.github.io/ScanRefer after its form",
        unique_or_multiple,
        {
            "val": (
                *(("TGNN", 0.288), ("3D-STMN", 0.395), ("SegPoint", 0.417), ("RG-SAN", 0.446)),
                *(("MDIN", 0.483), ("IPDN", 0.502), ("HCF-RES", 0.505), ("BQNet", 0.514)),
            )
        },
    ),
    "multi3drefer": Dataset(
        "Multi3DRefer/multi3drefer_{split}.json",
        parse_multi3drefer,
        "Multi3DRefer is given out at https://3dlg-hcvc.github.io/multi3drefer",
    ),
    "described": Dataset(
        "Described/described_{split}.json",
        parse_detailrefer,
        "python -m detailbase describe makes it from labelled scans",
    ),
}
"""Datasets by the name that ``--data.dataset`` and ``--data.train_on`` give."""


def find_dataset(name: str) -> Dataset:
    """Looks a dataset up.

    Raises:
        InputError: There is none of that name.
    """
    if name not in DATASETS:
        raise InputError(
            f"--data.dataset, --data.train_on: expected one of {', '.join(DATASETS)}, got "
            f"{name!r}; name one of them"
        )
    return DATASETS[name]


def read_references(path: Path, dataset: Dataset) -> list[Reference]:
    """Reads the descriptions of a file; those without a phrase are left out, with a warning.

    Raises:
        InputError: The file, a record or a field of it is wrong.
    """
    records = read_json(path)
    if not isinstance(records, list) or not records:
        raise InputError(
            f"{path}: expected a list of descriptions, got {short(records)}; copy it again"
        )
    parsed = [
        dataset.parse(Record(content, f"{path}: record {i}")) for i, content in enumerate(records)
    ]
    references = [reference for reference in parsed if reference.phrases]
    if not references:
        raise InputError(f"{path}: none of its descriptions names an object; copy it again")
    if len(references) < len(parsed):
        log.warning(
            "%s: %d of %d descriptions name nothing and are left out",
            *(path, len(parsed) - len(references), len(parsed)),
        )
    return references


def read_split(options: DataConfig, name: str, split: str) -> list[Reference]:
    """Reads a dataset's descriptions of the scans that ``--data.scenes`` chooses.

    Raises:
        InputError: The dataset is unknown, or its file is absent or wrong, or describes none of
            those scans.
    """
    dataset = find_dataset(name)
    file = dataset.file.format(split=split)
    path, beside_scans = Path(options.root, file), prepared_folder(options) / file
    path = path if path.is_file() or not beside_scans.is_file() else beside_scans
    if not path.is_file():
        raise InputError(f"{path}: no such file; {dataset.source}; or name another --data.root")
    references = read_references(path, dataset)
    if not options.scenes:
        return references
    chosen = [r for r in references if any(fnmatch(r.scene_id, p) for p in options.scenes)]
    if not chosen:
        raise InputError(
            f"--data.scenes: expected scans that {path} describes, got "
            f"{' or '.join(options.scenes)}; its first is {references[0].scene_id}"
        )
    return chosen
