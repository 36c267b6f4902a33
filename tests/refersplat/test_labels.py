"""Labels by lasso: balls on a floor are selected, masked in all views and saved."""

import json
import math
import os

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from refer3d.runs.errors import InputError
from refersplat.cameras import Camera
from refersplat.config import DataConfig
from refersplat.data import load_scene
from refersplat.labels.files import category_of, label_of, render_masks, save_label
from refersplat.labels.lasso import combine, select_lasso
from refersplat.splats.gaussians import Gaussians
from refersplat.splats.render import frozen_blend, render
from tests.errors import raises

NUM_VIEWS, WIDTH, HEIGHT, FOCAL, RADIUS = 8, 96, 72, 90.0, 0.3
CENTERS = torch.tensor([[-0.7, 0.0, 0.3], [0.1, 0.4, 0.3], [0.8, -0.2, 0.3]])
FLOOR = len(CENTERS)
COLORS = torch.tensor([[1.5, -1, -1], [-1, 1, -1], [-1, -1, 1.5], [0.5, 0.4, 0.2]])


def make_scene():
    """Gaussians of three balls on a floor, and the object of each; z is up."""
    rng = torch.Generator().manual_seed(0)
    ways = torch.randn(len(CENTERS), 300, 3, generator=rng)
    balls = CENTERS[:, None] + RADIUS * ways / ways.norm(dim=2, keepdim=True)
    line = torch.linspace(-1.6, 1.6, 33)
    floor = torch.cartesian_prod(line, line, torch.zeros(1))
    means = torch.cat([balls.flatten(0, 1), floor])
    count = len(means)
    owner = torch.full((count,), FLOOR)
    owner[: len(means) - len(floor)] = torch.arange(FLOOR).repeat_interleave(300)
    sh = torch.zeros(count, 16, 3)
    sh[:, 0] = COLORS[owner] + 0.2 * torch.randn(count, 3, generator=rng)
    gaussians = Gaussians(
        means=means,
        log_scales=torch.full((count, 3), math.log(0.05)),
        quats=torch.tensor([1.0, 0, 0, 0]).expand(count, 4),
        logit_opacities=torch.full((count,), 3.0),
        sh=sh,
    )
    return gaussians, owner


def camera(index, width=WIDTH):
    """On a ring above the floor, looking at its middle."""
    angle = 2 * math.pi * index / NUM_VIEWS + 0.2
    position = torch.tensor([3 * math.cos(angle), 3 * math.sin(angle), 1.6])
    forward = (torch.tensor([0, 0, 0.2]) - position) / (torch.tensor([0, 0, 0.2]) - position).norm()
    right = torch.linalg.cross(forward, torch.tensor([0.0, 0, 1]))
    right = right / right.norm()
    pose = torch.eye(4)
    pose[:3, :3] = torch.stack([right, torch.linalg.cross(forward, right), forward])
    pose[:3, 3] = -pose[:3, :3] @ position
    return Camera(pose, FOCAL, FOCAL, WIDTH / 2, HEIGHT / 2, WIDTH, HEIGHT).resized(
        width, HEIGHT * width // WIDTH
    )


@pytest.fixture(scope="module")
def scene():
    return make_scene()


def shown(gaussians, selected, view):
    """[H, W] bool, where most of the light comes from the selected ones."""
    return frozen_blend(gaussians, view).blend(selected.float()[:, None])[0].numpy() >= 0.5


def rough_outline(gaussians, selected, view, margin=4):
    """Twelve corners around the whole object, hidden parts included, with a margin in pixels."""
    blend = frozen_blend(gaussians, view, selected)
    whole = blend.transmittance.numpy() < 0.5
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * margin + 1,) * 2)
    (outline, *_), _ = cv2.findContours(
        cv2.dilate(whole.astype(np.uint8), kernel), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )
    return outline[np.linspace(0, len(outline), 12, endpoint=False).astype(int), 0]


def iou(one, other):
    return (one & other).sum() / max(1, (one | other).sum())


def views():
    return [camera(index) for index in range(NUM_VIEWS)]


def overlaps(gaussians, selected, truth):
    return [iou(shown(gaussians, selected, v), shown(gaussians, truth, v)) for v in views()]


@pytest.mark.parametrize("ball", range(len(CENTERS)))
def test_two_rough_outlines_mask_an_object_in_all_views(scene, ball):
    gaussians, owner = scene
    truth = owner == ball
    lassos = [
        select_lasso(gaussians, view, rough_outline(gaussians, truth, view))
        for view in (camera(0), camera(2))
    ]
    selected = combine(gaussians, lassos)
    assert min(overlaps(gaussians, selected, truth)) > 0.8
    # One is not enough: the floor behind and what lies on it are inside.
    assert np.mean(overlaps(gaussians, combine(gaussians, lassos[:1]), truth)) < np.mean(
        overlaps(gaussians, selected, truth)
    )


def test_the_size_of_the_window_does_not_matter(scene):
    gaussians, owner = scene
    found = []
    for factor in (1, 3):
        polygons = {
            index: factor * rough_outline(gaussians, owner == 1, camera(index), 2)
            for index in (0, 2)
        }
        lassos = [
            select_lasso(gaussians, camera(index, factor * WIDTH), polygon)
            for index, polygon in polygons.items()
        ]
        found.append(combine(gaussians, lassos))
    assert iou(*found) > 0.95


def test_strokes_add_and_take_away_what_is_visible(scene):
    gaussians, owner = scene
    view = camera(3)
    around = {ball: rough_outline(gaussians, owner == ball, view, margin=0) for ball in range(3)}
    first = select_lasso(gaussians, view, around[0])
    second = select_lasso(gaussians, view, around[2], "add")
    both = combine(gaussians, [first, second])
    assert torch.equal(both, combine(gaussians, [first]) | (second.inside & second.is_visible))
    ball = both & (owner == 2)
    assert 30 < ball.sum() < 250  # its front
    removed = combine(gaussians, [first, second, second._replace(action="take away")])
    assert torch.equal(removed, combine(gaussians, [first]) & ~(second.inside & second.is_visible))
    assert not (removed & second.is_visible & (owner == 2)).any()


def test_additions_alone_start_from_nothing(scene):
    gaussians, owner = scene
    view = camera(0)
    lasso = select_lasso(gaussians, view, rough_outline(gaussians, owner == 1, view, 0), "add")
    assert torch.equal(combine(gaussians, [lasso]), lasso.inside & lasso.is_visible)


def test_one_outline_leaves_out_what_is_far_behind(scene):
    gaussians, owner = scene
    wall = gaussians.select(owner == FLOOR)
    far = wall.means[:, [2, 0, 1]] * 2 + torch.tensor([-8.0, 0, 0])
    both = gaussians.joined(Gaussians(**(wall.tensors() | {"means": far})))
    view = camera(0)
    selected = combine(
        both, [select_lasso(both, view, rough_outline(gaussians, owner == 1, view, 8))]
    )
    assert selected[: gaussians.count].any()
    assert not selected[gaussians.count :].any()


def test_faults_are_told(scene):
    gaussians, _ = scene
    with raises(InputError, "lasso", "3 corners"):
        select_lasso(gaussians, camera(0), np.zeros((2, 2)))
    with raises(InputError, "nothing", "draw"):
        select_lasso(gaussians, camera(0), np.array([[0, 0], [2, 0], [0, 2]]))
    with raises(InputError, "lasso"):
        combine(gaussians, [])
    with raises(InputError, "name"):
        category_of(" ?! ")
    assert category_of(" Red  Mug #2 ") == "red_mug_2"


@pytest.fixture
def photos(scene, tmp_path):
    """The balls and the floor in photos of twice the training size, from a lens that bends."""
    gaussians, _ = scene
    frames = []
    (tmp_path / "images").mkdir()
    for index, view in enumerate(views()):
        pose = view.world_to_camera.inverse() @ torch.diag(torch.tensor([1.0, -1, -1, 1]))
        color = render(gaussians, view.resized(2 * WIDTH, 2 * HEIGHT)).color.permute(1, 2, 0)
        pixels = (color.clamp(0, 1) * 255).byte().numpy()
        Image.fromarray(pixels).save(tmp_path / "images" / f"{index:03}.png")
        frames.append({"file_path": f"images/{index:03}.png", "transform_matrix": pose.tolist()})
    lens = {"fl_x": 2 * FOCAL, "fl_y": 2 * FOCAL, "cx": WIDTH, "cy": HEIGHT, "k1": -0.1}
    content = {**lens, "w": 2 * WIDTH, "h": 2 * HEIGHT, "frames": frames}
    (tmp_path / "transforms.json").write_text(json.dumps(content))
    return DataConfig(scene=str(tmp_path), resolution=2)


def test_a_saved_label_is_read_for_training(scene, photos):
    gaussians, owner = scene
    before = load_scene(photos)
    for ball, name in enumerate(("Red ball", "green ball")):
        masks = {v.name: m for v, m in render_masks(gaussians, owner == ball, before.views)}
        assert {mask.shape for mask in masks.values()} == {(2 * HEIGHT, 2 * WIDTH)}
        assert save_label(before, name, [f"The {name}. ", "", f"The {name}."], masks)
    after = load_scene(photos)
    assert list(label_of(after)) == ["red_ball", "green_ball"]
    assert label_of(after)["red_ball"] == ["The Red ball."]
    for view in after.views:
        for item in view.objects:
            ball = ["red_ball", "green_ball"].index(str(item.category))
            assert iou(item.mask().numpy(), shown(gaussians, owner == ball, view.camera)) > 0.93
    seen = sum(len(view.objects) for view in after.views)
    assert seen >= 2 * NUM_VIEWS - 2


def test_photos_without_the_object_are_left_alone(photos):
    loaded = load_scene(photos)
    shape = (2 * HEIGHT, 2 * WIDTH)
    masks = {view.name: np.full(shape, view.name == "003") for view in loaded.views}
    draft = loaded.path / "json" / ".003.json.0123abcd.tmp"  # of a viewer that was killed
    draft.parent.mkdir()
    draft.touch()
    os.utime(draft, (0, 0))
    save_label(loaded, "ball", ["A ball."], masks)
    assert not draft.exists()
    assert [path.name for path in (loaded.path / "json").iterdir()] == ["003.json"]
    assert [path.name for path in (loaded.path / "gt_mask").iterdir()] == ["ball_003.png"]


def test_what_cannot_be_saved_is_told(photos):
    loaded = load_scene(photos)
    mask = {"003": np.ones((2 * HEIGHT, 2 * WIDTH), bool)}
    with raises(InputError, "name"):
        save_label(loaded, " ", ["A ball."], mask)
    with raises(InputError, "sentences", "ball"):
        save_label(loaded, "ball", ["  ", "..."], mask)
    with raises(InputError, "ball", "mask"):
        save_label(loaded, "ball", ["A ball."], {"003": np.zeros((4, 4), bool)})
    assert not (loaded.path / "json").exists()
