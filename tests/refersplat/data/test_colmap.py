"""COLMAP models: both formats, all camera models, undistortion."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from plyfile import PlyData, PlyElement
from torch.testing import assert_close

from refersplat.config import DataConfig
from refersplat.data import load_scene
from refersplat.data.lens import MODELS, Lens, Warp, _undistortion_maps
from tests.errors import assert_names

PARAMETERS = {
    "SIMPLE_PINHOLE": (50.0, 20.5, 14.5),
    "PINHOLE": (50.0, 48.0, 20.5, 14.5),
    "SIMPLE_RADIAL": (50.0, 20.5, 14.5, -0.1),
    "RADIAL": (50.0, 20.5, 14.5, 0.1, 0.05),
    "OPENCV": (50.0, 48.0, 20.5, 14.5, -0.2, 0.05, 0.004, -0.003),
    "OPENCV_FISHEYE": (50.0, 48.0, 20.5, 14.5, -0.1, 0.05, 0.02, -0.01),
    "FULL_OPENCV": (50.0, 48.0, 20.5, 14.5, 0.3, 0.1, 0.004, -0.003, 0.02, 0.4, 0.1, 0.05),
    "SIMPLE_RADIAL_FISHEYE": (50.0, 20.5, 14.5, 0.0),
    "RADIAL_FISHEYE": (50.0, 20.5, 14.5, 0.1, -0.05),
}


def reconstruct(small):
    """The scene as COLMAP's own library holds it, with a camera of each model."""
    pycolmap = pytest.importorskip("pycolmap")
    model = pycolmap.Reconstruction()
    for index, (name, values) in enumerate(PARAMETERS.items()):
        camera = pycolmap.Camera(
            camera_id=index + 1, model=name, width=small.width, height=small.height, params=values
        )
        model.add_camera_with_trivial_rig(camera)
        image = pycolmap.Image(
            name=small.names[index],
            image_id=index + 1,
            camera_id=index + 1,
            keypoints=np.zeros((len(small.points) * (index < 2), 2)),  # others' lines are empty
        )
        model.add_image_with_trivial_frame(image, pycolmap.Rigid3d(small.poses[index][:3]))
    for index, (point, color) in enumerate(zip(small.points, small.colors, strict=True)):
        track = pycolmap.Track()
        track.add_element(1, index)
        track.add_element(2, index)
        model.add_point3D(point, track, color)
    return model


@pytest.mark.parametrize("ending", ["bin", "txt"])
def test_reads_what_colmap_itself_writes(make_scene, ending):
    assert set(PARAMETERS) == set(MODELS)
    small = make_scene(num_views=len(PARAMETERS)).write_images()
    model, folder = reconstruct(small), small.path / "sparse/0"
    folder.mkdir(parents=True)
    (model.write_binary if ending == "bin" else model.write_text)(folder)
    scene = load_scene(DataConfig(scene=str(small.path)))
    np.testing.assert_allclose(scene.points[0].numpy(), small.points, rtol=1e-6)
    np.testing.assert_allclose(scene.points[1].numpy(), small.colors / 255, rtol=1e-6)
    for index, view in enumerate(scene.views):
        expected = [model.images[index + 1].project_point(point) for point in small.points]
        camera, lens = view.camera, view.lens
        pose = camera.world_to_camera.double().numpy()
        x, y, z = pose[:3, :3] @ small.points.T + pose[:3, 3:]
        # Poses are float32; measured at most 1e-5 of a pixel.
        np.testing.assert_allclose(np.stack(lens.project(x / z, y / z), 1), expected, atol=5e-5)
        assert (lens.cx, lens.cy) == (camera.cx, camera.cy)
        assert lens.is_distorted == ("PINHOLE" not in list(PARAMETERS)[index])
        if not lens.is_distorted:
            assert (lens.fx, lens.fy) == (camera.fx, camera.fy)


def test_text_and_binary_are_the_same_model(make_scene):
    scenes = [
        load_scene(DataConfig(scene=str(make_scene(f"{binary}").write(binary=binary).path)))
        for binary in (True, False)
    ]
    for one, other in zip(*(scene.views for scene in scenes), strict=True):
        assert_close(one.camera.world_to_camera, other.camera.world_to_camera, rtol=0, atol=0)
        assert replace(one.camera, world_to_camera=None) == replace(
            other.camera, world_to_camera=None
        )
    for one, other in zip(*(scene.points for scene in scenes), strict=True):
        assert_close(one, other, rtol=0, atol=0)


@pytest.mark.parametrize("folder", ["sparse/0", "sparse"])
def test_model_in_either_folder(small_scene, folder):
    small_scene.write_colmap(folder=folder)
    assert len(load_scene(DataConfig(scene=str(small_scene.path))).views) == 4


def test_without_points(small_scene):
    (small_scene.path / "sparse/0/points3D.bin").unlink()
    assert load_scene(DataConfig(scene=str(small_scene.path))).points is None


def test_other_models_are_mentioned(small_scene):
    (small_scene.path / "sparse/1").mkdir()
    scene = load_scene(DataConfig(scene=str(small_scene.path)))
    assert any("only model 0 is read" in warning for warning in scene.warnings)


@pytest.mark.parametrize("binary", [True, False])
def test_names_with_spaces_and_folders(make_scene, binary):
    names = ["left cam/frame 1.png", "right/frame 2.png"]
    small = make_scene(num_views=2, names=names).write(binary=binary)
    assert [v.name for v in load_scene(DataConfig(scene=str(small.path))).views] == [
        "frame 1",
        "frame 2",
    ]


def test_stems_that_occur_twice_take_their_folder_along(make_scene):
    small = make_scene(num_views=2, names=["left/1.png", "right/1.png"])
    small.write_images().write_colmap()
    scene = load_scene(DataConfig(scene=str(small.path)))
    assert [view.name for view in scene.views] == ["left_1", "right_1"]


def test_images_may_have_another_suffix(small_scene):
    for name in small_scene.names:
        path = small_scene.path / "images" / name
        Image.open(path).save(path.with_suffix(".jpg"))
        path.unlink()
    view = load_scene(DataConfig(scene=str(small_scene.path))).views[0]
    assert view.path.name == "frame_00001.jpg"


def test_cameras_follow_images_that_were_made_smaller(small_scene):
    folder = small_scene.path / "images_2"
    folder.mkdir()
    for name in small_scene.names:
        Image.open(small_scene.path / "images" / name).resize((20, 15)).save(folder / name)
    scene = load_scene(DataConfig(scene=str(small_scene.path), images="images_2"))
    camera = scene.views[0].camera
    assert (camera.width, camera.height, camera.fx, camera.cy) == (20, 15, 25.0, 7.25)
    assert any("cameras are scaled" in warning for warning in scene.warnings)
    assert scene.views[0].objects[0].mask().shape == (15, 20)  # drawn for the large photo


def opencv(fx, fy, cx, cy, width, height, **coefficients) -> Lens:
    values = {"fx": fx, "fy": fy, "cx": cx, "cy": cy, **coefficients}
    return MODELS["OPENCV"].lens(values, width, height, "camera")


def grid(lens: Lens, spacing: float) -> np.ndarray:  # [h, w] uint8
    """A photo of vertical lines in the world, dark on white, taken through ``lens``."""
    y, x = np.mgrid[: lens.height, : lens.width].astype(np.float64)
    pixels = np.stack([x.ravel(), y.ravel()], axis=-1)[:, None]
    stop = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 100, 1e-12)
    matrix = np.array([[lens.fx, 0, lens.cx - 0.5], [0, lens.fy, lens.cy - 0.5], [0, 0, 1]])
    values = dict(lens.coefficients)
    distortion = np.array([values.get(name, 0.0) for name in ("k1", "k2", "p1", "p2")])
    rays = cv2.undistortPoints(pixels, matrix, distortion, criteria=stop)
    phase = rays[:, 0, 0].reshape(lens.height, lens.width) / spacing
    return (255 * (1 - np.exp(-((phase - phase.round()) ** 2) / 0.02))).astype(np.uint8)


@pytest.mark.parametrize("k1", [-0.25, 0.25])
def test_straight_lines_become_straight(k1):
    lens = opencv(220, 220, 160, 120, 320, 240, k1=k1, k2=0.02, p1=0.002, p2=-0.001)
    spacing = 0.2
    photo = np.repeat(grid(lens, spacing)[..., None], 3, axis=2)
    warp = Warp(lens, 320, 240)
    dark = 255.0 - warp.image(photo)[..., 0].astype(np.float64)
    raw = 255.0 - photo[..., 0].astype(np.float64)
    for number in (-2, 1, 2):
        column = number * spacing * warp.target.fx + warp.target.cx - 0.5

        def bend(image, column=column):
            window = slice(round(column) - 9, round(column) + 10)
            weights = image[:, window]
            middle = (weights * np.arange(window.start, window.stop)).sum(axis=1)
            return np.abs(middle / weights.sum(axis=1) - column).max()

        # Measured: at most 0.12 pixels after undistortion, 2 and more before.
        assert bend(dark) < 0.3 < 1.5 < bend(raw)


@given(
    k1=st.floats(-0.2, 0.2),
    k2=st.floats(-0.02, 0.02),
    p1=st.floats(-0.005, 0.005),
    p2=st.floats(-0.005, 0.005),
    cx=st.floats(70, 90),
)
def test_undistorted_images_have_no_border_and_waste_nothing(k1, k2, p1, p2, cx):
    lens = opencv(120, 118, cx, 61, 160, 120, k1=k1, k2=k2, p1=p1, p2=p2)
    target = lens.undistorted()
    assert (target.cx, target.cy, target.width, target.height) == (cx, 61, 160, 120)
    assert target.fx / target.fy == pytest.approx(lens.fx / lens.fy)
    if lens.is_distorted:
        x, y = _undistortion_maps(lens)
        # Half a pixel lies between the outermost pixels' centres and the photo's border.
        assert -0.51 <= x.min() <= x.max() <= 159.51
        assert -0.51 <= y.min() <= y.max() <= 119.51
        slack = min(x.min() + 0.5, 159.5 - x.max(), y.min() + 0.5, 119.5 - y.max())
        assert slack < 1.0


def test_masks_are_warped_as_their_photos_are(make_scene):
    small = make_scene(width=80, height=60, model="SIMPLE_RADIAL", params=(60.0, 41, 29, -0.15))
    small.write()
    for name in small.names:
        cup = np.array(Image.open(small.path / f"gt_mask/cup_{name}"))
        Image.fromarray(np.repeat(cup[..., None], 3, axis=2)).save(small.path / "images" / name)
    for view in load_scene(DataConfig(scene=str(small.path), resolution=2)).views:
        photo, mask = view.image()[0], view.objects[0].mask()
        is_clear = (photo < 0.25) | (photo > 0.75)
        assert is_clear.float().mean() > 0.9
        assert torch.equal((photo > 0.5)[is_clear], mask[is_clear])


def warnings_of(small):
    return load_scene(DataConfig(scene=str(small.path))).warnings


def write_cloud(path, points):
    rows = np.array([tuple(point) for point in points], dtype=[(axis, "f4") for axis in "xyz"])
    PlyData([PlyElement.describe(rows, "vertex")]).write(str(path))


def test_a_point_cloud_in_the_model_comes_first(small_scene):
    """As in the reader of Kerbl et al., so that a cloud of one's own can replace COLMAP's."""
    model = small_scene.path / "sparse/0"
    write_cloud(model / "points3D.ply", small_scene.points[:5])
    scene = load_scene(DataConfig(scene=str(small_scene.path)))
    np.testing.assert_allclose(scene.points[0].numpy(), small_scene.points[:5], rtol=1e-6)
    assert any("points3D.ply: is read; points3D.bin" in warning for warning in scene.warnings)
    (model / "points3D.bin").unlink()
    assert not any("points3D.bin" in warning for warning in warnings_of(small_scene))


def test_the_format_that_is_not_read_is_named(small_scene):
    small_scene._write_text(small_scene.path / "sparse/0")
    warnings = "\n".join(warnings_of(small_scene))
    assert_names(warnings, "images.bin", "images.txt", "points3D.bin", "points3D.txt", "newer")
    (small_scene.path / "sparse/0/images.bin").unlink()  # half a model is none
    assert not any("images.txt" in warning for warning in warnings_of(small_scene))


def test_poses_that_are_not_read_are_named(small_scene):
    (small_scene.path / "transforms.json").write_text("{}")
    assert any("not transforms.json" in warning for warning in warnings_of(small_scene))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "latin-1"])
@pytest.mark.parametrize("newline", ["\r\n", "\r"])
def test_text_models_in_any_encoding(make_scene, encoding, newline):
    small = make_scene(num_views=2, names=["Küche 1.png", "Küche 2.png"]).write(binary=False)
    for path in (small.path / "sparse/0").iterdir():
        text = "# Büro\n" + path.read_text(encoding="utf-8")
        path.write_bytes(text.replace("\n", newline).encode(encoding))
    scene = load_scene(DataConfig(scene=str(small.path)))
    assert [view.name for view in scene.views] == ["Küche 1", "Küche 2"]
    assert len(scene.points[0]) == 12


@pytest.mark.parametrize("points", ["", "\n"], ids=["no lines", "empty lines"])
@pytest.mark.parametrize("name", ["a{}.png", "my photo {}.png", "one of {} photos.png"])
def test_images_whose_points_are_left_out(make_scene, points, name):
    """A name with two blanks makes a line of an image look like one of points."""
    small = make_scene(num_views=3, names=[name.format(i) for i in range(3)]).write(binary=False)
    path = small.path / "sparse/0/images.txt"
    lines = path.read_text().splitlines()[2::2]  # without header
    path.write_text("".join(f"{line}\n{points}" for line in lines))
    assert len(load_scene(DataConfig(scene=str(small.path))).views) == 3


def test_decimal_commas_are_named(make_scene, refusal):
    small = make_scene().write(binary=False)
    small.replace_text("sparse/0/images.txt", r"^2 (\S+?)\.", r"2 \1,")
    assert_names(refusal(small), "images.txt, line 5", "comma", "LC_ALL")


def test_binary_names_in_latin_1(make_scene):
    small = make_scene(num_views=2, names=["Küche 1.png", "Küche 2.png"]).write()
    path = small.path / "sparse/0/images.bin"
    path.write_bytes(path.read_bytes().replace("ü".encode(), "ü".encode("latin-1")))
    assert len(load_scene(DataConfig(scene=str(small.path))).views) == 2
