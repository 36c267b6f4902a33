"""Wrong poses and photos are refused before training; the error names file, field and remedy."""

from __future__ import annotations

import struct
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from refer3d.runs.errors import InputError
from refersplat.config import DataConfig
from refersplat.data import load_scene
from tests.errors import assert_names, raises

LENS = {"fl_x": 50.0, "fl_y": 48.0, "cx": 20.5, "cy": 14.5, "w": 40, "h": 30}
CAMERAS, IMAGES, POINTS = (f"sparse/0/{stem}.bin" for stem in ("cameras", "images", "points3D"))
CAMERAS_TXT, IMAGES_TXT, POINTS_TXT = (
    name.replace("bin", "txt") for name in (CAMERAS, IMAGES, POINTS)
)
FRAME = "transforms.json: frames[1]"
POSE = f"{FRAME}: transform_matrix"
PHOTO = "images/frame_00002.png"
FIRST = f"{IMAGES}: image frame_00001.png"
NAN = float("nan")


def transforms(change: Callable[[dict], object], **lens):
    """Poses from transforms.json instead of COLMAP, changed."""

    def breaks(small):
        record = small.transforms(**(lens or LENS))
        change(record)
        small.write_transforms(record)

    return breaks


def frame(**changes):
    return transforms(lambda record: record["frames"][1].update(changes))


def pose(scale: float = 1.0, mirror: float = 1.0, last: tuple = (0, 0, 0, 1)):
    value = np.diag([scale * mirror, scale, scale, 1.0])
    value[3] = last
    return frame(transform_matrix=value.tolist())


def patch(file: str, offset: int, layout: str, *values: float):
    return lambda small: small.patch(file, offset, layout, *values)


def empty(file: str):
    return lambda small: (small.path / file).write_bytes(struct.pack("<Q", 0))


def rename_second(name: str):
    def breaks(small):
        small.names[1] = name
        Image.new("RGB", (40, 30)).save(small.path / "images" / name)
        small.write_colmap()

    return breaks


def absurd_lens(small):
    small.model, small.params = "SIMPLE_RADIAL", (50.0, 20.5, 14.5, -400.0)
    small.write_colmap()


def bad_cloud(small):
    small.write_transforms(small.transforms(**LENS))
    (small.path / "points3d.ply").write_text("nonsense")


def huge_photo(small):
    Image.new("1", (20000, 15000)).save(small.path / PHOTO)


CASES = {
    "no poses": (lambda s: s.remove("sparse"), "scene", "images.bin", "run COLMAP"),
    "no image folder": (lambda s: s.remove("images"), "images", "--data.images"),
    "empty image folder": (
        lambda s: [path.unlink() for path in (s.path / "images").iterdir()],
        *("images", "png", "--data.images"),
    ),
    "missing image": (
        lambda s: s.remove("images/frame_00003.png"),
        *(f"{IMAGES}: image frame_00003.png", "none of 3", "copy", "--data.images"),
    ),
    "image of 300 million pixels": (huge_photo, PHOTO, "decompression bomb", "export it again"),
    "image cut short": (lambda s: s.cut(PHOTO, -40), PHOTO, "export it again"),
    "image is text": (lambda s: s.write_text(PHOTO, "hello"), PHOTO, "not an image"),
    "image of another shape": (
        lambda s: s.write_image(PHOTO, (40, 20)),
        *(PHOTO, "40x20", "camera", "40x30", "use the images"),
    ),
    "same image twice": (rename_second("frame_00001.png"), "'frame_00001'", "rename"),
    "same stem twice": (rename_second("frame_00001.jpg"), "frame_00001.jpg", "rename"),
    # COLMAP, binary
    "no images.bin": (lambda s: s.remove(IMAGES), IMAGES, "copy the whole model"),
    "no cameras.bin": (lambda s: s.remove(CAMERAS), CAMERAS, "copy the whole model"),
    "cameras.bin empty": (lambda s: s.cut(CAMERAS, 0), CAMERAS, "0 bytes", "copy"),
    "cameras.bin cut": (lambda s: s.cut(CAMERAS, -5), CAMERAS, "59 bytes", "camera 1 of 1"),
    "images.bin cut in points": (lambda s: s.cut(IMAGES, -5), IMAGES, "image 4 of 4", "copy"),
    "images.bin cut in name": (lambda s: s.cut(IMAGES, 80), IMAGES, "image 1 of 4", "copy"),
    "images.bin too long": (lambda s: s.append(IMAGES, b"12345"), IMAGES, "5 bytes", "export"),
    "points3D.bin cut": (lambda s: s.cut(POINTS, -3), POINTS, "point 12 of 12", "copy"),
    "absurd number of points": (patch(POINTS, 0, "Q", 10**15), POINTS, "point 13", "copy"),
    "no registered images": (empty(IMAGES), IMAGES, "no images", "mapper"),
    "no points": (empty(POINTS), POINTS, "no points", "delete the file"),
    "point is NaN": (patch(POINTS, 16, "d", NAN), POINTS, "1 of 12", "export"),
    "unsupported camera": (
        patch(CAMERAS, 12, "i", 10),
        *(f"{CAMERAS}: camera 7", "number 10", "SIMPLE_PINHOLE, PINHOLE", "image_undistorter"),
    ),
    "zero focal length": (patch(CAMERAS, 32, "d", 0.0), CAMERAS, "fx", "got 0.0", "correct"),
    "NaN lens": (patch(CAMERAS, 48, "d", NAN), CAMERAS, "camera 7: cx", "got nan", "correct"),
    "principal point": (patch(CAMERAS, 48, "d", 900.0), CAMERAS, "cx", "40x30", "got 900.0"),
    "focal length beyond float32": (patch(CAMERAS, 32, "d", 1e300), CAMERAS, "fx", "got 1e+300"),
    "pose beyond float32": (patch(IMAGES, 44, "d", 1e300), "scene", "units", "move"),
    "point beyond float32": (patch(POINTS, 16, "d", 1e300), "scene", "1 of 12 points", "remove"),
    "absurd width": (patch(CAMERAS, 16, "Q", 2**63), CAMERAS, "width", "correct"),
    "images.bin is a pointer": (
        lambda s: (s.path / IMAGES).write_bytes(b"version https://git-lfs.github.com/spec/v1"),
        *(IMAGES, "git lfs pull"),
    ),
    "no width": (patch(CAMERAS, 16, "Q", 0), CAMERAS, "width", "got 0", "correct"),
    "NaN position": (patch(IMAGES, 44, "d", NAN), FIRST, "pose", "nan", "register it again"),
    "no rotation": (patch(IMAGES, 12, "4d", 0, 0, 0, 0), FIRST, "quaternion", "length 0", "export"),
    "unknown camera": (patch(IMAGES, 68, "i", 3), FIRST, "camera 3", "7", "export"),
    "absurd distortion": (absurd_lens, FIRST, "k1=-400", "calibrate"),
    # transforms.json
    "no frames": (transforms(lambda r: r.pop("frames")), "transforms.json", "'frames'", "add it"),
    "empty frames": (transforms(lambda r: r["frames"].clear()), "transforms.json: frames", "add"),
    "transforms is a list": (lambda s: s.write_transforms([]), "transforms.json", "an object"),
    "frame is a number": (transforms(lambda r: r["frames"].insert(1, 3)), FRAME, "object", "3"),
    "no path": (transforms(lambda r: r["frames"][1].pop("file_path")), FRAME, "'file_path'", "add"),
    "absent path": (frame(file_path="images/x.png"), f"{FRAME}: file_path", "x.png", "copy"),
    "flat matrix": (frame(transform_matrix=[1.0] * 16), POSE, "4 rows of 4", "16 rows", "write"),
    "short matrix": (frame(transform_matrix=[[1, 0, 0]] * 4), POSE, "4 rows of 3", "row by row"),
    "words in matrix": (frame(transform_matrix=[["a"] * 4] * 4), POSE, "numbers", "correct"),
    "NaN in matrix": (pose(scale=NAN), POSE, "finite", "leave this image out"),
    "scaled matrix": (pose(scale=1.1), POSE, "scaled", "without scale"),
    "mirrored matrix": (pose(mirror=-1), POSE, "mirrored", "without scale or mirroring"),
    "last row of matrix": (pose(last=(0, 0, 1, 1)), POSE, "0 0 0 1", "row by row"),
    "no focal length": (transforms(lambda r: r, w=40, h=30), "'fl_x'", "'camera_angle_x'", "add"),
    "zero fl_x": (frame(fl_x=0), f"{FRAME}: fx", "got 0", "correct"),
    "word for fl_x": (frame(fl_x="50"), f"{FRAME}: fl_x", "a number", "'50'", "correct"),
    "wide angle": (transforms(lambda r: r, camera_angle_x=4.0), "'camera_angle_x'", "got 4.0"),
    "half a pixel": (frame(w=40.5), FRAME, "w and h", "got 40.5", "write"),
    "unsupported model": (frame(camera_model="FOV"), FRAME, "FOV", "OPENCV", "image_undistorter"),
    "fourth coefficient": (frame(k4=0.1), f"{FRAME}: k4", "got 0.1", "undistort"),
    "no point cloud": (
        transforms(lambda r: r.update(ply_file_path="x.ply")),
        *("transforms.json: ply_file_path", "x.ply", "copy", "delete the key"),
    ),
    "bad point cloud": (bad_cloud, "points3d.ply", "export it again", "random points"),
}
TEXT_CASES = {
    "cameras.txt cut": (
        lambda s: s.cut(CAMERAS_TXT, -8),
        *(f"{CAMERAS_TXT}: camera 7", "PINHOLE", "4 parameters, got 3", "export"),
    ),
    "unsupported model": (
        lambda s: s.replace_text(CAMERAS_TXT, "PINHOLE", "FISHEYE_X"),
        *(f"{CAMERAS_TXT}: camera 7", "FISHEYE_X", "SIMPLE_PINHOLE", "image_undistorter"),
    ),
    "images.txt cut in a line": (
        lambda s: s.cut(IMAGES_TXT, -8),
        *(f"{IMAGES_TXT}, line 10", "X Y POINT3D_ID", "copy"),
    ),
    "images.txt cut between lines": (
        lambda s: s.replace_text(IMAGES_TXT, r"^4 (.*\n)*", ""),
        *(IMAGES_TXT, "4 entries", "got 3", "copy"),
    ),
    "word in images.txt": (
        lambda s: s.replace_text(IMAGES_TXT, r"^2 \S+", "2 one"),
        *(f"{IMAGES_TXT}, line 5", "IMAGE_ID QW", "got '2 one", "copy"),
    ),
    "points3D.txt cut": (
        lambda s: s.cut(POINTS_TXT, -25),
        *(f"{POINTS_TXT}, line 14", "POINT3D_ID X Y Z R G B", "copy"),
    ),
    "color in points3D.txt": (
        lambda s: s.replace_text(POINTS_TXT, r"^(0 \S+ \S+ \S+) \d+", r"\1 999"),
        *(f"{POINTS_TXT}, line 3", "R G B", "copy"),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_broken_scenes_are_refused(small_scene, refusal, name):
    breaks, *words = CASES[name]
    breaks(small_scene)
    assert_names(refusal(small_scene), *words)


@pytest.mark.parametrize("name", TEXT_CASES)
def test_broken_text_models_are_refused(make_scene, refusal, name):
    breaks, *words = TEXT_CASES[name]
    small = make_scene().write(binary=False)
    breaks(small)
    assert_names(refusal(small), *words)


def test_wrong_image_folder(small_scene, refusal):
    assert_names(refusal(small_scene, images="photos"), "photos", "--data.images")


@pytest.mark.parametrize("scene", ["", "no/such/folder"])
def test_no_scene(scene):
    with raises(InputError, scene or "-s", "sparse/0", "data/README.md"):
        load_scene(DataConfig(scene=scene))


@pytest.mark.parametrize("end", [b"", b"preview of a camera" * 300])
def test_jpeg_with_something_behind_it_is_whole(small_scene, end):
    for name in small_scene.names:
        path = small_scene.path / "images" / name
        jpeg = path.with_suffix(".jpg")
        Image.open(path).save(jpeg)
        path.unlink()
        jpeg.write_bytes(jpeg.read_bytes() + end)
    assert load_scene(DataConfig(scene=str(small_scene.path))).views[0].image().shape == (3, 30, 40)


def test_damage_inside_a_file_is_reported_when_it_is_decoded(small_scene):
    small_scene.patch(PHOTO, 60, "10x")
    view = load_scene(DataConfig(scene=str(small_scene.path))).views[1]
    with raises(InputError, PHOTO, "export it again"):
        view.image()
