"""transforms.json as instant-ngp, nerfstudio and NeRF-synthetic write it."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from plyfile import PlyData, PlyElement
from torch.testing import assert_close

from refersplat.config import DataConfig
from refersplat.data import load_scene
from tests.errors import assert_names

LENS = {"fl_x": 50.0, "fl_y": 48.0, "cx": 20.5, "cy": 14.5, "w": 40, "h": 30}


def load(small, **options):
    return load_scene(DataConfig(scene=str(small.path), **options))


def test_same_cameras_as_colmap(small_scene):
    wanted = load(small_scene)
    small_scene.write_transforms(small_scene.transforms(**LENS, aabb_scale=4))
    for one, other in zip(load(small_scene).views, wanted.views, strict=True):
        assert one.name == other.name
        assert_close(one.camera.world_to_camera, other.camera.world_to_camera, rtol=0, atol=1e-6)
        for key in ("fx", "fy", "cx", "cy", "width", "height"):
            assert getattr(one.camera, key) == getattr(other.camera, key)
        assert_close(one.image(), other.image())
        assert one.objects[0].sentences == other.objects[0].sentences


def test_opengl_camera_looks_along_minus_z_with_y_up(make_scene):
    small = make_scene(num_views=1).write_images()
    record = small.transforms(**LENS)
    record["frames"][0]["transform_matrix"] = np.eye(4).tolist()
    pose = load(small.write_transforms(record)).views[0].camera.world_to_camera
    assert_close(pose @ torch.tensor([1.0, 2, -3, 1]), torch.tensor([1.0, -2, 3, 1]))


def test_distortion_is_removed(small_scene):
    small_scene.model, small_scene.params = "OPENCV", (50, 48, 20.5, 14.5, -0.2, 0.05, 0.004, 0.001)
    wanted = load(small_scene.write_colmap())
    record = small_scene.transforms(**LENS, k1=-0.2, k2=0.05, p1=0.004, p2=0.001)
    scene = load(small_scene.write_transforms(record))
    assert scene.views[0].lens == wanted.views[0].lens
    assert_close(scene.views[0].image(), wanted.views[0].image())


def test_fisheye_photos_are_undistorted(small_scene):
    values = (50, 48, 20.5, 14.5, -0.1, 0.05, 0.0, 0.0)
    small_scene.model, small_scene.params = "OPENCV_FISHEYE", values
    wanted = load(small_scene.write_colmap())
    for name in ({"camera_model": "OPENCV_FISHEYE"}, {"is_fisheye": True}):
        record = small_scene.transforms(**LENS, **name, k1=-0.1, k2=0.05)
        scene = load(small_scene.write_transforms(record))
        assert scene.views[0].lens == wanted.views[0].lens
        assert_close(scene.views[0].image(), wanted.views[0].image())


def test_angle_stands_for_focal_length(small_scene):
    camera = load(small_scene.write_transforms(small_scene.transforms())).views[0].camera
    assert camera.fx == pytest.approx(50) == camera.fy
    assert (camera.cx, camera.cy) == (20, 15)
    angles = {"camera_angle_x": 0.8, "camera_angle_y": 0.6}
    camera = load(small_scene.write_transforms(small_scene.transforms(**angles))).views[0].camera
    assert camera.width / (2 * camera.fx) == pytest.approx(math.tan(0.4))
    assert camera.height / (2 * camera.fy) == pytest.approx(math.tan(0.3))


def test_each_frame_may_have_its_lens(small_scene):
    record = small_scene.transforms(**LENS)
    for index, frame in enumerate(record["frames"]):
        frame["fl_x"] = 60 + index
    views = load(small_scene.write_transforms(record)).views
    assert [view.camera.fx for view in views] == [60, 61, 62, 63]
    assert {view.camera.fy for view in views} == {48}


@pytest.mark.parametrize(
    "edit", [lambda p: p[:-4], lambda p: "./" + p, lambda p: p.replace("/", "\\")]
)
def test_paths_as_people_write_them(small_scene, edit):
    record = small_scene.transforms(**LENS)
    for frame in record["frames"]:
        frame["file_path"] = edit(frame["file_path"])
    assert load(small_scene.write_transforms(record)).views[0].path.name == "frame_00001.png"


def test_three_rows_are_enough(small_scene):
    record = small_scene.transforms(**LENS)
    wanted = load(small_scene.write_transforms(record)).views[0].camera
    record["frames"][0]["transform_matrix"].pop()
    camera = load(small_scene.write_transforms(record)).views[0].camera
    assert_close(camera.world_to_camera, wanted.world_to_camera)


def test_chosen_image_folder_wins(small_scene):
    folder = small_scene.path / "images_2"
    folder.mkdir()
    for name in small_scene.names:
        Image.open(small_scene.path / "images" / name).resize((20, 15)).save(folder / name)
    small_scene.write_transforms(small_scene.transforms(**LENS))
    camera = load(small_scene, images="images_2").views[0].camera
    assert (camera.width, camera.fx) == (20, 25)


def write_synthetic(small):
    """NeRF-synthetic: a folder and a file of poses per part, RGBA, names without suffix."""
    record = small.transforms()
    frames = record.pop("frames")
    for part, index in (("train", 0), ("train", 1), ("test", 2), ("val", 3)):
        path = small.path / part / f"r_{index % 2}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.full((small.height, small.width, 4), 255, dtype=np.uint8)
        pixels[:, :20, 3] = 0
        pixels[:, 20:30, 3] = 51
        Image.fromarray(pixels).save(path)
        frames[index]["file_path"] = f"./{part}/r_{index % 2}"
    for part, chosen in (("train", frames[:2]), ("test", frames[2:3]), ("val", frames[3:])):
        text = json.dumps({**record, "frames": chosen})
        (small.path / f"transforms_{part}.json").write_text(text)
    return small


def test_synthetic_scene_brings_its_split(make_scene):
    small = write_synthetic(make_scene())
    scene = load(small, eval=True)
    assert [view.name for view in scene.train] == ["train_r_0", "train_r_1"]
    assert [view.name for view in scene.test] == ["test_r_0"]
    assert len(load(small).train) == 3
    (small.path / "transforms_test.json").unlink()
    assert [view.name for view in load(small, eval=True).test] == ["val_r_1"]


@pytest.mark.parametrize(("white", "levels"), [(False, (0.0, 0.2)), (True, (1.0, 1.0))])
def test_transparent_pixels_show_the_background(make_scene, white, levels):
    view = load(write_synthetic(make_scene()), white_background=white).views[0]
    assert_close(view.image()[0, 3, [5, 25, 35]], torch.tensor([*levels, 1.0]))
    assert_close(view.alpha()[3, [5, 25, 35]], torch.tensor([0, 0.2, 1]))


def test_color_of_transparent_pixels_does_not_bleed(make_scene):
    """Pixels without opacity are green; averaged with white ones they must not tint them."""
    small = make_scene(num_views=1)
    (small.path / "images").mkdir(parents=True)
    pixels = np.zeros((30, 40, 4), dtype=np.uint8)
    pixels[..., 1] = 255
    pixels[:, 1::2] = 255
    Image.fromarray(pixels).save(small.path / "images" / small.names[0])
    view = load(small.write_transforms(small.transforms(**LENS)), resolution=2).views[0]
    image = view.image()
    assert_close(image[0], image[1])
    assert_close(view.alpha(), torch.full((15, 20), 0.5), rtol=0, atol=0.003)


def test_opaque_images_have_no_alpha(small_scene):
    for name in small_scene.names:
        path = small_scene.path / "images" / name
        Image.open(path).convert("RGBA").save(path)
    assert load(small_scene).views[0].alpha() is None


def test_nerfstudio_lists_and_points(small_scene):
    vertices = np.array(
        [(0, 1, 2, 255, 0, 51), (3, 4, 5, 0, 0, 0)],
        dtype=[(k, "f4") for k in "xyz"] + [(k, "u1") for k in ("red", "green", "blue")],
    )
    PlyData([PlyElement.describe(vertices, "vertex")]).write(small_scene.path / "cloud.ply")
    names = [f"images/{name}" for name in small_scene.names]
    record = small_scene.transforms(
        **LENS, ply_file_path="cloud.ply", train_filenames=names[1:], test_filenames=names[:1]
    )
    scene = load(small_scene.write_transforms(record), eval=True)
    assert [view.name for view in scene.test] == ["frame_00001"]
    assert_close(scene.points[0], torch.tensor([[0.0, 1, 2], [3, 4, 5]]))
    assert_close(scene.points[1], torch.tensor([[1, 0, 0.2], [0, 0, 0]]))


def test_null_is_absent(small_scene):
    fields = dict.fromkeys((*LENS, "camera_model", "ply_file_path", "test_filenames", "k1"))
    record = small_scene.transforms(**fields, camera_angle_x=0.8)
    record["frames"][0] |= {"mask_path": None, "fl_x": None}
    scene = load(small_scene.write_transforms(record))
    assert scene.views[0].camera.fx == pytest.approx(20 / math.tan(0.4))
    assert not any("mask" in warning for warning in scene.warnings)
    record = small_scene.transforms(**LENS)  # in a frame, it does not hide the common value
    record["frames"][0]["fl_x"] = None
    assert load(small_scene.write_transforms(record)).views[0].camera.fx == 50
    (small_scene.path / "meta.json").write_text('{"test_views": null}')
    assert load(small_scene, eval=True).split == "every 8th view"


def test_fields_without_effect_are_named(small_scene):
    record = small_scene.transforms(**LENS)
    record["frames"][0] |= {"mask_path": "masks/a.png", "depth_file_path": "a.npy"}
    warnings = "\n".join(load(small_scene.write_transforms(record)).warnings)
    assert_names(warnings, "mask_path of 1 frames", "depth_file_path")


def test_training_lists_hold_out_the_others(small_scene):
    names = [f"images/{name}" for name in small_scene.names]
    record = small_scene.transforms(**LENS, train_filenames=[names[0], names[3], "images/x.png"])
    scene = load(small_scene.write_transforms(record), eval=True)
    assert [view.name for view in scene.test] == ["frame_00002", "frame_00003"]
    assert any("1 listed files" in w and "images/x.png" in w for w in scene.warnings)


@pytest.mark.parametrize("prefix", ["/data/me/scene/images/", "C:\\scene\\images\\", ""])
def test_absolute_paths_of_another_machine(small_scene, prefix):
    record = small_scene.transforms(**LENS)
    for frame in record["frames"]:
        frame["file_path"] = prefix + frame["file_path"].removeprefix("images/")
    assert len(load(small_scene.write_transforms(record)).views) == 4


def test_two_files_of_a_name_without_suffix(small_scene, refusal):
    small_scene.write_image("images/frame_00002.jpg", (40, 30))
    record = small_scene.transforms(**LENS)
    for frame in record["frames"]:
        frame["file_path"] = frame["file_path"].removesuffix(".png")
    message = refusal(small_scene.write_transforms(record))
    assert_names(message, "frames[1]: file_path", "frame_00002.jpg and frame_00002.png", "suffix")


def test_test_frames_of_a_dataset_that_are_not_there(make_scene):
    small = make_scene("ramen").write()
    scene = load(small, eval=True)
    assert scene.split == "every 8th view"
    assert any("of 7 test frames" in warning for warning in scene.warnings)
