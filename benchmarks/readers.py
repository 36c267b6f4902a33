"""Whole files of every kind that a public reader takes, and that reader."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from detailbase.config import Config as RoomsConfig
from detailbase.descriptions.datasets import find_dataset, read_references
from detailbase.model.checkpoint import Checkpoint
from detailbase.scans.clouds import load_cloud, save_cloud
from detailbase.scans.prepare import read_names
from detailbase.scans.scan import read_scan_file
from detailbase.scans.scannet import read_labels, read_scan
from refer3d.runs.config import load_yaml, save_yaml
from refer3d.runs.results import Stopwatch
from refer3d.runs.states import load_state, save_state
from refer3d.text_encoder import HashTextEncoder
from refer3d.text_encoder.cache import FORMAT, SCHEMA
from refersplat.config import Config, DataConfig
from refersplat.data import load_scene
from refersplat.data.capture import read_point_cloud
from refersplat.data.images import decode, decode_mask
from refersplat.inference.questions import read_questions
from refersplat.inference.trained_scene import TrainedScene
from refersplat.masks.records import Masked, PhotoRecord, read_record
from refersplat.masks.sentences import Subject, read_subjects
from refersplat.splats.checkpoints import load_gaussians, load_refersplat_field
from refersplat.splats.formats import save_gaussians
from tests.detailbase.commands.conftest import SMALL, make_room, write_rooms
from tests.detailbase.data.conftest import DETAILREFER, SmallScan, colors, surface, write_ply
from tests.detailbase.test_state import resume as resume_rooms
from tests.detailbase.test_state import save as save_last
from tests.refersplat.commands.conftest import write_balls
from tests.refersplat.data.conftest import SmallScene
from tests.refersplat.splats import random_gaussians
from tests.refersplat.test_checkpoint import inria_parts, refersplat_parts
from tests.refersplat.test_states import resume_referring, resume_rgb, save_states

FOLDER_OF_RUNS = TemporaryDirectory()
POINTS = np.random.default_rng(0).uniform(0, 2, (40, 3))
COLORS = np.random.default_rng(1).integers(0, 256, (40, 3))


class Reader(NamedTuple):
    """A reader with the files that it takes."""

    kind: str
    """Kind of the file that is mutated, one of ``EDITS``."""
    write: Callable[[Path], Path]
    """Writes whole files into a folder; returns the one that is mutated."""
    read: Callable[[Path], object]


# A scene of photos: the mutated file lies anywhere in it.


def scene_with(file: str, binary: bool = True) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        SmallScene(folder, num_views=3).write(binary)
        return folder / file

    return write


def transforms(folder: Path) -> Path:
    scene = SmallScene(folder, num_views=3).write_images().write_sentences()
    record = scene.transforms(fl_x=50.0, fl_y=48.0, cx=20.5, cy=14.5, w=40, h=30, k1=0.01)
    return scene.write_transforms(record).path / "transforms.json"


def meta(folder: Path) -> Path:
    SmallScene(folder, num_views=3).write()
    path = folder / "meta.json"
    path.write_text(json.dumps({"test_views": ["frame_00001", 2], "name": "small"}))
    return path


def lerf_ovs(folder: Path) -> Path:
    scene = SmallScene(folder / "scene", num_views=3).write()
    scene.remove("json")
    labels = folder / "label" / "scene"
    labels.mkdir(parents=True)
    outline = [[2, 3], [30, 3], [30, 25], [2, 25.5]]
    for name in scene.names:
        objects = [{"category": "cup", "segmentation": outline}]
        info = {"name": name, "width": scene.width, "height": scene.height}
        record = {"info": info, "objects": objects}
        (labels / f"{Path(name).stem}.json").write_text(json.dumps(record))
    return labels / "frame_00001.json"


def read_whole_scene(path: Path, depth: int = 1) -> None:
    """Loads the scene around a file, and what training takes of its views."""
    scene = load_scene(DataConfig(scene=str(path.parents[depth - 1]), eval=True))
    for view in scene.views:
        view.image()
        for item in view.objects:
            item.mask(), item.boxes()


def read_lerf_ovs(path: Path) -> None:
    scene = load_scene(DataConfig(scene=str(path.parents[2] / "scene"), dataset="lerf_ovs"))
    for view in scene.views:
        for item in view.objects:
            item.mask(), item.boxes()


def image(name: str, mode: str, **options: Any) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        pixels = Image.fromarray(COLORS[:36].reshape(6, 6, 3).astype(np.uint8)).resize((40, 30))
        pixels.convert(mode).save(folder / name, **options)
        return folder / name

    return write


# Gaussians.


def gaussians(seed: int = 0) -> Any:
    return random_gaussians(torch.Generator().manual_seed(seed), 20)


def splats(name: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        save_gaussians(gaussians(), folder / name)
        return folder / name

    return write


def checkpoint(with_field: bool) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        rng = torch.Generator().manual_seed(0)
        parts = refersplat_parts(gaussians(), rng) if with_field else inria_parts(gaussians())
        torch.save((parts, 30_000), folder / "chkpnt30000.pth")
        return folder / "chkpnt30000.pth"

    return write


def read_checkpoint(path: Path) -> None:
    load_gaussians(path)
    load_refersplat_field(path)


# Runs.


@cache
def runs() -> tuple[Path, Path]:
    """Folders of a short run of each model; they live as long as the process."""
    from detailbase.train import main as train_rooms
    from refersplat.train import main as train_scene

    folder = Path(FOLDER_OF_RUNS.name)
    write_balls(folder / "balls")
    train_scene([*("-s", str(folder / "balls"), "-m", str(folder / "scene"), "--eval"),
                 *("--text.encoder", "hash", "--iterations", "40", "--train.iterations", "20"),
                 *("--rgb.checkpoint_every", "20", "--train.checkpoint_every", "10")])  # fmt: skip
    write_rooms(folder / "rooms")
    train_rooms([*("--data.root", str(folder / "rooms"), "--work_dir", str(folder / "run")),
                 *SMALL, *("--epochs", "2")])  # fmt: skip
    return folder / "scene", folder / "run"


def file_of_run(model: int, pattern: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        source = runs()[model]
        for path in source.rglob("*"):
            if path.is_file():
                target = folder / path.relative_to(source)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())
        return next(iter(sorted(folder.glob(pattern))))

    return write


def read_run(path: Path) -> None:
    """Loads the trained scene around a file, and asks it."""
    folder = next(p for p in path.parents if (p / "referring.pt").exists())
    scene = TrainedScene.load(folder, device="cpu")
    scene.find("the red ball", next(iter(scene.cameras)))


def state_of(name: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        save_last(folder / name) if name == "last.pth" else save_states(folder)
        return folder / name

    return write


def read_rooms_checkpoint(path: Path) -> None:
    found = Checkpoint.read(path)
    options = found.options()
    found.network(options, HashTextEncoder(), torch.device("cpu"))


# Scans.


def scan(ending: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        return SmallScan(folder / "scene0000_00").write().path(ending)

    return write


def read_scannet(path: Path) -> None:
    read_scan(path.parent)
    read_labels(path.parent)


def mesh(name: str, text: bool = False, textured: bool = False) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        vertices, faces = surface()
        columns = {"s": vertices[:, 0], "t": vertices[:, 1]} if textured else colors()
        write_ply(folder / name, vertices, faces, text, **columns)
        return folder / name

    return write


def surface_of_trimesh(name: str) -> Callable[[Path], Path]:
    """The surface as trimesh writes it; with a texture in a .glb."""

    def write(folder: Path) -> Path:
        import trimesh

        vertices, faces = surface()
        uv = vertices[:, :2] / np.abs(vertices[:, :2]).max()
        pixels = Image.fromarray(COLORS[:36].reshape(6, 6, 3).astype(np.uint8))
        visual = trimesh.visual.TextureVisuals(uv, image=pixels) if name[-3:] == "glb" else None
        shape = trimesh.Trimesh(vertices, faces, visual=visual, process=False)
        if not visual:
            shape.visual.vertex_colors = COLORS[: len(vertices)].astype(np.uint8)
        shape.export(folder / name)
        return folder / name

    return write


def cloud(name: str) -> Callable[[Path], Path]:
    """A cloud of 40 coloured points."""

    def write(folder: Path) -> Path:
        path = folder / name
        if path.suffix in (".las", ".laz"):
            import laspy

            las = laspy.create(point_format=3, file_version="1.2")
            las.header.scales = [0.001] * 3
            las.x, las.y, las.z = POINTS.T
            las.red, las.green, las.blue = COLORS.T.astype("u2") * 257
            las.write(path)
        elif path.suffix == ".e57":
            import pye57

            columns = {f"cartesian{a}": POINTS[:, i].copy() for i, a in enumerate("XYZ")}
            names = ("colorRed", "colorGreen", "colorBlue")
            columns |= {n: COLORS[:, i].astype("u1").copy() for i, n in enumerate(names)}
            file = pye57.E57(str(path), mode="w")
            file.write_scan_raw(columns)
            file.close()
        elif path.suffix == ".pcd":
            import pypcd4

            packed = (COLORS << [16, 8, 0]).sum(axis=1).astype("u4").view("f4")
            rows = np.column_stack([POINTS.astype("f4"), packed])
            pypcd4.PointCloud.from_xyzrgb_points(rows).save(path)
        else:
            mark = ";" if path.suffix == ".csv" else " "
            lines = [mark.join(map(str, row)) for row in np.hstack([POINTS.round(3), COLORS])]
            header = "x;y;z;red;green;blue\n" if path.suffix == ".csv" else ""
            path.write_text(header + "\n".join(lines) + "\n")
        return path

    return write


def prepared(folder: Path) -> Path:
    save_cloud(make_room(0), folder / "scene0000_00_refer.pth")
    return folder / "scene0000_00_refer.pth"


# Text, JSON and states.


def written(name: str, content: Any) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / name).write_text(text)
        return folder / name

    return write


def config(schema: type) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        save_yaml(schema(), folder / "config.yaml")
        return folder / "config.yaml"

    return write


def sentence(folder: Path) -> Path:
    state = {"format": FORMAT, "words": torch.ones(3, 4), "embedding": torch.ones(4)}
    save_state(folder / "sentence.pt", state)
    return folder / "sentence.pt"


def record(folder: Path) -> Path:
    cup, bowl = Subject("cup", ("the cup", "a mug")), Subject(None, ("the bowl",))
    masks = {cup: Masked("cup.png", 0.5, 0.9, (3, 1))}
    PhotoRecord(masks, [bowl], [("cup", "the bowl")]).write(folder / "photo.json")
    return folder / "photo.json"


def questions(folder: Path) -> Path:
    SmallScene(folder, num_views=3).write()
    asked = [
        {"sentence": "a cup", "kind": "word", "targets": {"frame_00001": ["cup"]}},
        {"sentence": "no cup", "kind": "none", "targets": {"frame_00002": []}},
    ]
    return written("questions.json", asked)(folder)


@cache
def scene_of(folder: Path) -> Any:
    return load_scene(DataConfig(scene=str(folder)))


def timings(folder: Path) -> Path:
    stages = {"rgb": {"seconds": 3.5, "peak_mib": 100.0, "finished": True}}
    return written("timings.json", stages)(folder)


SCENE = partial(read_whole_scene, depth=1)
MODEL = partial(read_whole_scene, depth=3)
FOLDER = partial(read_whole_scene, depth=2)
SCANREFER = [
    {"scene_id": "scene0000_00", "object_id": "4", "object_name": "table", "ann_id": "0",
     "description": "the box on the floor", "token": ["the", "box", "on", "the", "floor"]}
]  # fmt: skip
MULTI = [
    {"scene_id": "scene0000_00", "object_ids": [4, 0], "ann_id": 0, "eval_type": "mt",
     "description": "the boxes on the floor"}
]  # fmt: skip

READERS = {
    "COLMAP cameras.bin": Reader("bytes", scene_with("sparse/0/cameras.bin"), MODEL),
    "COLMAP images.bin": Reader("bytes", scene_with("sparse/0/images.bin"), MODEL),
    "COLMAP points3D.bin": Reader("bytes", scene_with("sparse/0/points3D.bin"), MODEL),
    "COLMAP cameras.txt": Reader("bytes", scene_with("sparse/0/cameras.txt", False), MODEL),
    "COLMAP images.txt": Reader("bytes", scene_with("sparse/0/images.txt", False), MODEL),
    "COLMAP points3D.txt": Reader("bytes", scene_with("sparse/0/points3D.txt", False), MODEL),
    "transforms.json": Reader("json", transforms, SCENE),
    "meta.json": Reader("json", meta, SCENE),
    "Ref-LERF json": Reader("json", scene_with("json/frame_00001.json"), FOLDER),
    "Ref-LERF mask": Reader("png", scene_with("gt_mask/cup_frame_00001.png"), FOLDER),
    "photo of a scene": Reader("png", scene_with("images/frame_00001.png"), FOLDER),
    "LERF-OVS label": Reader("json", lerf_ovs, read_lerf_ovs),
    "JPEG": Reader("bytes", image("a.jpg", "RGB"), decode),
    "TIFF": Reader("bytes", image("a.tif", "RGB"), decode),
    "palette PNG": Reader("png", image("a.png", "P"), decode),
    "mask of 16 bits": Reader("png", image("a.png", "I;16"), decode_mask),
    "points .ply": Reader("bytes", mesh("points3D.ply"), read_point_cloud),
    "Gaussians .ply": Reader("bytes", splats("point_cloud.ply"), load_gaussians),
    "Gaussians .splat": Reader("bytes", splats("a.splat"), load_gaussians),
    "Gaussians .spz": Reader("gzip", splats("a.spz"), load_gaussians),
    "Gaussians .compressed.ply": Reader("bytes", splats("a.compressed.ply"), load_gaussians),
    "Inria chkpnt.pth": Reader("state", checkpoint(False), read_checkpoint),
    "ReferSplat chkpnt.pth": Reader("state", checkpoint(True), read_checkpoint),
    "rgb_state.pt": Reader("state", state_of("rgb_state.pt"), resume_rgb),
    "referring_state.pt": Reader("state", state_of("referring_state.pt"), resume_referring),
    "referring.pt": Reader("state", file_of_run(0, "referring.pt"), read_run),
    "last.pth": Reader("state", state_of("last.pth"), resume_rooms),
    "best.pth": Reader("state", file_of_run(1, "best.pth"), read_rooms_checkpoint),
    "cached sentence": Reader("state", sentence, partial(load_state, format=FORMAT, schema=SCHEMA)),
    "prepared scan": Reader("state", prepared, load_cloud),
    "config of refersplat": Reader("bytes", config(Config), partial(load_yaml, schema=Config)),
    "config of detailbase": Reader(
        "bytes", config(RoomsConfig), partial(load_yaml, schema=RoomsConfig)
    ),
    "timings.json": Reader("json", timings, Stopwatch),
    "questions": Reader(
        "json", questions, lambda path: read_questions(path, scene_of(path.parent))
    ),
    "objects.json": Reader(
        "json",
        written("objects.json", {"cup": ["a cup", "the mug"], "bowl": "a bowl"}),
        read_subjects,
    ),
    "sentences.txt": Reader("bytes", written("sentences.txt", "the cup\na bowl\n"), read_subjects),
    "record of masks": Reader("json", record, read_record),
    "ScanNet mesh": Reader("bytes", scan("_vh_clean_2.ply"), read_scannet),
    "ScanNet labels": Reader("bytes", scan("_vh_clean_2.labels.ply"), read_scannet),
    "ScanNet segs.json": Reader("json", scan("_vh_clean_2.0.010000.segs.json"), read_scannet),
    "ScanNet aggregation": Reader("json", scan(".aggregation.json"), read_scannet),
    "ScanNet list": Reader(
        "bytes", written("scannetv2_train.txt", "scene0000_00\nscene0001_00\n"), read_names
    ),
    "DetailRefer": Reader(
        "json",
        written("a.json", DETAILREFER),
        partial(read_references, dataset=find_dataset("detailrefer")),
    ),
    "ScanRefer": Reader(
        "json",
        written("a.json", SCANREFER),
        partial(read_references, dataset=find_dataset("scanrefer")),
    ),
    "Multi3DRefer": Reader(
        "json",
        written("a.json", MULTI),
        partial(read_references, dataset=find_dataset("multi3drefer")),
    ),
    "mesh .ply, text": Reader("bytes", mesh("a.ply", True), read_scan_file),
    "mesh .ply": Reader("bytes", mesh("a.ply"), read_scan_file),
    **{
        f"mesh {s}": Reader("bytes", surface_of_trimesh(f"a{s}"), read_scan_file)
        for s in (".obj", ".glb", ".stl", ".off")
    },
    **{
        f"cloud {s}": Reader("bytes", cloud(f"a{s}"), read_scan_file)
        for s in (".las", ".laz", ".e57", ".pcd", ".xyz", ".csv")
    },
}
"""Readers by the name of the file that is mutated."""
