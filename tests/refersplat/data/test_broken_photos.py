"""Wrong poses and photos are refused before training: which file, which field, what to do."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from refer3d.runs.errors import InputError
from refersplat.config import DataConfig
from refersplat.data import load_scene

LENS = {"fl_x": 50.0, "fl_y": 48.0, "cx": 20.5, "cy": 14.5, "w": 40, "h": 30}
SPARSE = "sparse/0/"
IMAGES, CAMERAS, POINTS = SPARSE + "images", SPARSE + "cameras", SPARSE + "points3D"
FRAMES = r"transforms\.json: frames\[1\]"
COPY = r"copy .* again"


def case(name, breaks, says, options=None, binary=True):
    """What breaks a small scene, and what must be said about it, in this order."""
    return pytest.param(breaks, says, options or {}, binary, id=name)


def transforms(change: Callable[[dict], object], **lens):
    """Poses from transforms.json instead of COLMAP, changed."""

    def breaks(small):
        record = small.transforms(**(lens or LENS))
        change(record)
        small.write_transforms(record)

    return breaks


def frame(**changes):
    return transforms(lambda record: record["frames"][1].update(changes))


def huge_photo(small):
    Image.new("1", (20000, 15000)).save(small.path / "images" / small.names[1])


def same_name_twice(small):
    small.names[1] = small.names[0]
    small.write_colmap()


def same_stem_twice(small):
    first = small.path / "images" / small.names[0]
    Image.open(first).save(first.with_suffix(".jpg"))
    small.names[1] = "frame_00001.jpg"
    small.write_colmap()


def matrix(scale: float = 1.0, mirror: float = 1.0, last: tuple = (0, 0, 0, 1)):
    value = np.diag([scale * mirror, scale, scale, 1.0])
    value[3] = last
    return value.tolist()


def model(number: int):
    return lambda s: s.patch("sparse/0/cameras.bin", 12, "i", number)


def empty_model(small):
    (small.path / "sparse/0/images.bin").write_bytes(struct.pack("<Q", 0))


def no_points(small):
    (small.path / "sparse/0/points3D.bin").write_bytes(struct.pack("<Q", 0))


def radial(k1: float):
    def breaks(small):
        small.model, small.params = "SIMPLE_RADIAL", (50.0, 20.5, 14.5, k1)
        small.write_colmap()

    return breaks


CASES = [
    # The folder
    case(
        "no poses",
        lambda s: s.remove("sparse"),
        ("scene: holds no poses", r"images\.bin", "run COLMAP"),
    ),
    case(
        "no image folder", lambda s: s.remove("images"), ("images: no such folder", "--data.images")
    ),
    case(
        "empty image folder",
        lambda s: [path.unlink() for path in (s.path / "images").iterdir()],
        ("images: holds no images", r"\.png", "--data.images"),
    ),
    case(
        "missing image",
        lambda s: s.remove("images/frame_00003.png"),
        (r"images\.bin: image frame_00003\.png", "expected the image", "none of 3", "copy"),
    ),
    case("wrong image folder", lambda s: None, ("photos: no such folder",), {"images": "photos"}),
    case(
        "image of 300 million pixels",
        huge_photo,
        (r"frame_00002\.png: cannot be read as an image", "decompression bomb", COPY),
    ),
    case(
        "image cut short",
        lambda s: s.cut("images/frame_00002.png", -40),
        (r"frame_00002\.png: cannot be read as an image", "copy or export it again"),
    ),
    case(
        "image is text",
        lambda s: s.write_text("images/frame_00002.png", "hello"),
        (r"frame_00002\.png: cannot be read as an image \(not an image\)",),
    ),
    case(
        "image of another shape",
        lambda s: s.write_image("images/frame_00002.png", (40, 20)),
        (r"frame_00002\.png: is 40x20 pixels", "its camera", "is 40x30", "use the images"),
    ),
    case("same image twice", same_name_twice, ("two images are named 'frame_00001'", "rename")),
    case("same stem twice", same_stem_twice, (r"frame_00001\.jpg: two images are named",)),
    # COLMAP, binary
    case(
        "no images.bin",
        lambda s: s.remove(IMAGES + ".bin"),
        (r"images\.bin: no such file", "copy the whole"),
    ),
    case("no cameras.bin", lambda s: s.remove(CAMERAS + ".bin"), (r"cameras\.txt: no such file",)),
    case(
        "cameras.bin empty",
        lambda s: s.cut(CAMERAS + ".bin", 0),
        (r"cameras\.bin: is cut short", COPY),
    ),
    case(
        "cameras.bin cut",
        lambda s: s.cut(CAMERAS + ".bin", -5),
        (r"cut short: 59 bytes, .*camera 1 of 1",),
    ),
    case(
        "images.bin cut in points",
        lambda s: s.cut(IMAGES + ".bin", -5),
        ("cut short", "image 4 of 4", COPY),
    ),
    case(
        "images.bin cut in name",
        lambda s: s.cut(IMAGES + ".bin", 80),
        ("cut short", "image 1 of 4"),
    ),
    case(
        "points3D.bin cut",
        lambda s: s.cut(POINTS + ".bin", -3),
        (r"points3D\.bin: is cut short", COPY),
    ),
    case(
        "points3D.bin promises too much",
        lambda s: s.patch(POINTS + ".bin", 0, "Q", 10**15),
        (r"points3D\.bin: is cut short", "point 13 of 10+ ", "copy"),
    ),
    case(
        "images.bin too long",
        lambda s: s.append(IMAGES + ".bin", b"12345"),
        ("5 bytes after its last",),
    ),
    case("no registered images", empty_model, (r"images\.bin: holds no images", "mapper")),
    case("no points", no_points, (r"points3D\.bin: holds no points", "delete the file")),
    case(
        "point is NaN",
        lambda s: s.patch(POINTS + ".bin", 16, "d", float("nan")),
        (r"points3D\.bin: 1 of 12 points are not finite", "export"),
    ),
    case(
        "unsupported camera",
        model(10),
        ("camera 7: .*number 10 is not supported", "SIMPLE_PINHOLE, PINHOLE", "undistorter"),
    ),
    case(
        "zero focal length",
        lambda s: s.patch(CAMERAS + ".bin", 32, "d", 0.0),
        ("camera 7: fx must be positive, got 0", "correct"),
    ),
    case(
        "NaN lens",
        lambda s: s.patch(CAMERAS + ".bin", 48, "d", float("nan")),
        ("camera 7: cx", "got nan", "correct"),
    ),
    case(
        "principal point",
        lambda s: s.patch(CAMERAS + ".bin", 48, "d", 900.0),
        ("camera 7: cx .* 40x30", "got 900", "correct"),
    ),
    case(
        "no width",
        lambda s: s.patch(CAMERAS + ".bin", 16, "Q", 0),
        ("width must be positive, got 0",),
    ),
    case(
        "NaN position",
        lambda s: s.patch(IMAGES + ".bin", 44, "d", float("nan")),
        (r"image frame_00001\.png: the pose must be finite", "nan", "register it again"),
    ),
    case(
        "no rotation",
        lambda s: s.patch(IMAGES + ".bin", 12, "4d", 0, 0, 0, 0),
        (r"image frame_00001\.png: .*unit quaternion", r"length 0\)"),
    ),
    case(
        "unknown camera of image",
        lambda s: s.patch(IMAGES + ".bin", 68, "i", 3),
        (r"image frame_00001\.png: camera 3 is not among", r"\(7\)"),
    ),
    case("absurd distortion", radial(-400.0), ("no image is left", "-400", "calibrate")),
    # COLMAP, text
    case(
        "cameras.txt cut",
        lambda s: s.cut(CAMERAS + ".txt", -8),
        (r"cameras\.txt: camera 7: PINHOLE has 4 parameters, got 3",),
        binary=False,
    ),
    case(
        "model in cameras.txt",
        lambda s: s.replace_text(CAMERAS + ".txt", "PINHOLE", "FISHEYE_X"),
        ("camera model FISHEYE_X is not supported", "SIMPLE_PINHOLE"),
        binary=False,
    ),
    case(
        "images.txt cut in a line",
        lambda s: s.cut(IMAGES + ".txt", -8),
        (r"images\.txt, line 10: expected X Y POINT3D_ID", "copy"),
        binary=False,
    ),
    case(
        "images.txt cut between lines",
        lambda s: s.replace_text(IMAGES + ".txt", r"^4 (.*\n)*", ""),
        (r"images\.txt: is cut short", "expected the 4 entries", "got 3", "copy"),
        binary=False,
    ),
    case(
        "word in images.txt",
        lambda s: s.replace_text(IMAGES + ".txt", r"^2 \S+", "2 one"),
        (r"images\.txt, line 5: expected IMAGE_ID QW", "got '2 one"),
        binary=False,
    ),
    case(
        "points3D.txt cut",
        lambda s: s.cut(POINTS + ".txt", -25),
        (r"points3D\.txt, line 14: expected POINT3D_ID X Y Z R G B", "copy"),
        binary=False,
    ),
    case(
        "color in points3D.txt",
        lambda s: s.replace_text(POINTS + ".txt", r"^(0 \S+ \S+ \S+) \d+", r"\1 999"),
        (r"points3D\.txt, line 3: expected",),
        binary=False,
    ),
    # transforms.json
    case("no frames", transforms(lambda r: r.pop("frames")), ("expected the key 'frames'",)),
    case("empty frames", transforms(lambda r: r["frames"].clear()), ("frames: expected at least",)),
    case("transforms is a list", lambda s: s.write_transforms([]), ("expected an object, got",)),
    case(
        "frame is a number",
        transforms(lambda r: r["frames"].insert(1, 3)),
        (FRAMES + ": expected an object, got 3",),
    ),
    case("no path", transforms(lambda r: r["frames"][1].pop("file_path")), (FRAMES, "'file_path'")),
    case("absent path", frame(file_path="images/x.png"), (FRAMES, "x.png, no such file", "copy")),
    case("flat matrix", frame(transform_matrix=[1.0] * 16), (FRAMES, "4 rows of 4", "16 rows")),
    case("short matrix", frame(transform_matrix=[[1, 0, 0]] * 4), ("4 rows of 4 numbers",)),
    case("words in matrix", frame(transform_matrix=[["a"] * 4] * 4), ("expected numbers, got",)),
    case(
        "NaN in matrix",
        frame(transform_matrix=matrix(scale=float("nan"))),
        (FRAMES + ": transform_matrix: the pose must be finite",),
    ),
    case("scaled matrix", frame(transform_matrix=matrix(scale=1.1)), (FRAMES, "scaled or sheared")),
    case("mirrored matrix", frame(transform_matrix=matrix(mirror=-1)), (FRAMES, "mirrored")),
    case(
        "last row of matrix",
        frame(transform_matrix=matrix(last=(0, 0, 1, 1))),
        (FRAMES, "last row must be 0 0 0 1", "row by row"),
    ),
    case(
        "no focal length", transforms(lambda r: r, w=40, h=30), ("expected a focal length", "fl_x")
    ),
    case("zero fl_x", frame(fl_x=0), (FRAMES + ": fx must be positive, got 0",)),
    case("word for fl_x", frame(fl_x="50"), (FRAMES + ": fl_x: .*number", "50", "correct")),
    case("wide angle", transforms(lambda r: r, camera_angle_x=4.0), ("camera_angle_x", "got 4")),
    case(
        "half a pixel",
        frame(w=40.5),
        (
            FRAMES,
            "whole numbers of pixels, got 40.5",
        ),
    ),
    case("unsupported camera of a frame", frame(camera_model="FOV"), (FRAMES, "FOV is not supp")),
    case("fourth coefficient", frame(k4=0.1), (FRAMES, "k4", "got 0.1", "undistort")),
    case(
        "no point cloud",
        transforms(lambda r: r.update(ply_file_path="x.ply")),
        ("ply_file_path: .*x.ply: no such file", "delete the key"),
    ),
    case(
        "bad point cloud",
        lambda s: (
            s.write_transforms(s.transforms(**LENS)),
            (s.path / "points3d.ply").write_text("nonsense"),
        ),
        (r"points3d\.ply: cannot be read as a point cloud", "random points"),
    ),
]


@pytest.mark.parametrize(("breaks", "says", "options", "binary"), CASES)
def test_says_what_is_wrong(make_scene, refusal, breaks, says, options, binary):
    small = make_scene().write(binary=binary)
    load_scene(DataConfig(scene=str(small.path)))
    breaks(small)
    message = refusal(small, **options)
    assert re.search(".*".join(says), message), message
    assert "\n" not in message


@pytest.mark.parametrize("scene", ["", "no/such/folder"])
def test_no_scene(scene):
    with pytest.raises(InputError, match=r"no such folder, expected a scene .*README"):
        load_scene(DataConfig(scene=scene))


@pytest.mark.parametrize("end", [b"", b"preview of a camera" * 300])
def test_jpeg_with_something_behind_it_is_whole(small_scene, end):
    for name in small_scene.names:
        path = small_scene.path / "images" / name
        Image.open(path).save(path.with_suffix(".jpg"))
        path.unlink()
        jpeg = path.with_suffix(".jpg")
        jpeg.write_bytes(jpeg.read_bytes() + end)
    assert load_scene(DataConfig(scene=str(small_scene.path))).views[0].image().shape == (3, 30, 40)


def test_damage_inside_a_file_is_reported_when_it_is_decoded(small_scene):
    path = small_scene.path / "images/frame_00002.png"
    data = bytearray(path.read_bytes())
    data[60:70] = bytes(10)
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"frame_00002\.png: cannot be read as an image"):
        load_scene(DataConfig(scene=str(small_scene.path))).views[1].image()
