"""refersplat photos: from pictures to a scene, and what it says of wrong input."""

import json
from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from refer3d.runs.errors import InputError
from refer3d.runs.options import options
from refersplat.config import DataConfig
from refersplat.data import load_scene
from refersplat.photos import program
from refersplat.photos.options import PhotosConfig, read_options
from refersplat.photos.poses import Poses, choose_pairs
from refersplat.photos.program import make_scene


def config_of(source, output, **values):
    return replace(PhotosConfig(source=str(source), output=str(output), threads=1), **values)


@pytest.fixture(scope="module")
def made(folder, tmp_path_factory):
    """Report and folder of the corner's scene; one photo more, of something else, has no pose."""
    source = tmp_path_factory.mktemp("made") / "photos"
    source.mkdir()
    for path in folder.iterdir():
        (source / path.name).write_bytes(path.read_bytes())
    rng = np.random.default_rng(9)
    noise = cv2.resize(rng.integers(0, 255, (60, 80, 3), dtype=np.uint8), (200, 150))
    Image.fromarray(noise).save(source / "other.jpg")
    (source / "cut.jpg").write_bytes((folder / "my photo 00.jpg").read_bytes()[:900])
    (source / "notes.txt").write_text("no photo")
    scene = source.parent / "scene"
    return make_scene(config_of(source, scene)), scene


def test_the_scene_loads_and_poses_are_right(made, corner):
    report, scene = made
    assert report.registered == len(corner)
    views = load_scene(DataConfig(scene=str(scene))).views
    assert [view.name for view in views] == [f"my_photo_{i:02}" for i in range(len(corner))]
    found = np.stack([view.camera.world_to_camera.numpy() for view in views]).astype(float)
    true = np.stack([pose for _, pose in corner])
    # Relative rotations do not depend on the world's frame. 0.11 degrees were measured.
    for one in range(1, len(views)):
        turns = [poses[one, :3, :3] @ poses[0, :3, :3].T for poses in (found, true)]
        angle = np.arccos(np.clip((np.trace(turns[0] @ turns[1].T) - 1) / 2, -1, 1))
        assert np.degrees(angle) < 0.5
    # The photos were taken without roll: z is up in both worlds. 0.1 degrees were measured.
    ups = [poses[:, :3, 2] for poses in (found, true)]
    assert np.degrees(np.arccos((ups[0] * ups[1]).sum(axis=1))).max() < 1.0


def test_the_report_names_what_has_no_pose_and_why(made):
    report, scene = made
    assert set(report.without_pose) == {"other.jpg"}
    assert "overlap" in report.without_pose["other.jpg"]
    assert set(report.left_out) == {"cut.jpg"}
    assert report.reprojection_error < 1.0
    saved = json.loads((scene / "report.json").read_text())
    assert saved["registered"] == report.registered
    assert "other.jpg" in (scene / "report.txt").read_text()
    with Image.open(scene / "report.png") as picture:
        assert picture.width > 800


def test_resumes_where_it_was_stopped(made, tmp_path, monkeypatch):
    _, scene = made
    source = scene.parent / "photos"
    with pytest.raises(InputError, match="--resume"):
        make_scene(config_of(source, scene))
    with pytest.raises(InputError, match="camera_model"):
        make_scene(config_of(source, scene, resume=True, camera_model="OPENCV"))
    with pytest.raises(InputError, match=r"photos of .*scene"):
        make_scene(config_of(tmp_path, scene, resume=True))
    before = (scene / "images" / "my_photo_00.jpg").read_bytes()
    (scene / "sparse" / "0" / "images.bin").unlink()
    for stage in ("extract_features", "match_image_pairs"):  # their results are kept
        monkeypatch.setattr(f"pycolmap.{stage}", lambda *_, **__: pytest.fail("ran again"))
    again = make_scene(config_of(source, scene, resume=True))
    assert again.registered == 7
    assert (scene / "images" / "my_photo_00.jpg").read_bytes() == before
    assert (scene / "sparse" / "0" / "images.bin").is_file()

    # Kept as they were, the photos fit masks that were made on them, and have the same poses.
    poses = [view.camera.world_to_camera for view in load_scene(DataConfig(scene=str(scene))).views]
    make_scene(config_of(source, scene, resume=True, keep_distortion=True))
    assert len(list((scene / "images").iterdir())) == 7
    kept, photo = scene / "images" / "my_photo_00.jpg", source / "my photo 00.jpg"
    assert kept.read_bytes() == photo.read_bytes() != before
    views = load_scene(DataConfig(scene=str(scene))).views
    assert views[0].lens.is_distorted
    for view, pose in zip(views, poses, strict=True):
        assert torch.equal(view.camera.world_to_camera, pose)


def blank(path, number=4, size=(320, 240), value=90):
    path.mkdir(exist_ok=True)
    for index in range(number):
        Image.new("RGB", size, (value, value, value + index)).save(path / f"{index}.png")
    return path


def test_dark_photos_have_no_features(tmp_path):
    """Other wrong input: tests/project/test_odd_inputs.py."""
    with pytest.raises(InputError, match="blurred, dark or show bare surfaces"):
        make_scene(config_of(blank(tmp_path / "a", value=0), tmp_path / "scene"))


def write(path, content):
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return path


def test_no_overlap_is_named(tmp_path, corner):
    rng = np.random.default_rng(0)
    for index in range(3):
        noise = cv2.resize(rng.integers(0, 255, (15, 20, 3), dtype=np.uint8), (160, 120))
        Image.fromarray(noise).save(tmp_path / f"{index}.png")
    with pytest.raises(InputError, match="overlaps with the last"):
        make_scene(config_of(tmp_path, tmp_path.parent / f"{tmp_path.name}-scene"))


def test_poses_without_points_are_none(folder, tmp_path, monkeypatch):
    """As of zoomed photos from one place."""
    names = [f"my_photo_{index:02}.jpg" for index in range(7)]
    images = {name: SimpleNamespace(name=name, has_pose=True) for name in names}
    model = SimpleNamespace(images=images, num_points3D=lambda: 0)
    links = {name: [(99, names[0])] for name in names}
    poses = Poses(model, dict.fromkeys(names, 999), links, [], "usual")
    monkeypatch.setattr(program, "find_poses", lambda *_: poses)
    with pytest.raises(InputError, match="not from different places; step sideways"):
        make_scene(config_of(folder, tmp_path / "scene"))


def test_a_folder_in_use_is_refused(tmp_path, folder):
    (tmp_path / "something.txt").write_text("mine")
    with pytest.raises(InputError, match=r"-o: .*not empty"):
        make_scene(config_of(folder, tmp_path))
    with pytest.raises(InputError, match=r"-o: .*lies in the folder of the photos"):
        make_scene(config_of(folder, folder / "scene"))


def test_without_pycolmap_the_extra_is_named(tmp_path, folder, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pycolmap", None)
    with pytest.raises(InputError, match=r"refer3d\[photos\]"):
        make_scene(config_of(folder, tmp_path / "scene"))


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ([], "expected a folder of photos or a video"),
        (["photos"], "-o: expected the folder of the new scene"),
        (["photos", "-o", "scene", "--frames", "2"], "--frames: expected 3 to 5000"),
    ],
)
def test_options(argv, expected):
    with pytest.raises(InputError) as error:
        read_options(argv)
    assert expected in str(error.value)


def test_options_have_meanings_and_bounds():
    assert read_options(["a", "-o", "b"]).source == "a"
    for option in options(PhotosConfig):
        assert option.meaning
        assert option.bounds or type(option.default) not in (int, float)


def test_all_pairs_of_few_photos_near_ones_of_many():
    few = list(choose_pairs([str(i) for i in range(200)], "auto"))
    assert len(few) == 200 * 199 // 2
    many = list(choose_pairs([str(i) for i in range(300)], "auto"))
    distances = sorted({int(two) - int(one) for one, two in many})
    assert distances == [*range(1, 11), 16, 32, 64, 128, 256]
    assert len(set(many)) == len(many) == sum(300 - d for d in distances)
