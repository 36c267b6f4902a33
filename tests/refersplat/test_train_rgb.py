import json
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from refer3d.runs.errors import InputError
from refersplat.cameras import Camera
from refersplat.config import Config, DataConfig, RgbConfig
from refersplat.data import load_scene
from refersplat.rgb.fit import evaluate_rgb
from refersplat.rgb.initialize import gaussians_at, random_points
from refersplat.rgb.optimizer import learning_rates
from refersplat.rgb.state import RgbState
from refersplat.rgb.train import sh_degree, step, train, view_order
from refersplat.splats.checkpoints import load_gaussians
from tests.refersplat.splats import assert_equal

QUICK = RgbConfig(
    iterations=120,
    random_points=150,
    densify_from=20,
    densify_every=20,
    opacity_reset_every=50,
    checkpoint_every=40,
)


@pytest.fixture
def config(photo_scene, tmp_path):
    data = DataConfig(scene=str(photo_scene), eval=True)
    return Config(model_path=str(tmp_path / "out"), data=data, rgb=QUICK)


def test_training_comes_near_the_photos_and_leaves_its_files(config, tmp_path):
    config = replace(config, rgb=replace(QUICK, opacity_reset_every=3_000))
    scene = load_scene(config.data)
    gaussians = train(config, scene)
    before = evaluate_rgb(RgbState.start(config, scene, "cpu").adam.gaussians, scene.test)
    after = evaluate_rgb(gaussians, scene.test)
    assert after["psnr"] > before["psnr"] + 4
    assert after["l1"] < before["l1"] / 2

    out = tmp_path / "out"
    assert_equal(load_gaussians(out / "point_cloud/iteration_120/point_cloud.ply"), gaussians)
    assert_equal(load_gaussians(out / "chkpnt120.pth"), gaussians)
    assert_equal(load_gaussians(out / "rgb_state.pt"), gaussians)
    assert len(json.loads((out / "cameras.json").read_text())) == len(scene.views)
    assert (out / "cfg_args").is_file()
    assert list(out.glob("events.out.tfevents.*"))
    assert not list(out.rglob("*.tmp"))


def test_resuming_another_scene_is_refused(config):
    scene = load_scene(config.data)
    state = RgbState.start(config, scene, "cpu")
    path = config.model_path + "/rgb_state.pt"
    state.save(path, scene.train[1:], scene.extent)
    with pytest.raises(InputError, match=r"rgb_state\.pt: views: .* 7 .* 6 .*; use the same -s"):
        train(replace(config, resume=True), scene)


@pytest.mark.parametrize(("is_white", "expected"), [(False, 0), (True, 1)])
def test_on_white_opacities_are_lowered_when_densification_begins(config, is_white, expected):
    """As the published code does."""
    scene = load_scene(replace(config.data, white_background=is_white))
    state = RgbState.start(config, scene, "cpu")
    options = replace(QUICK, densify_from=3, densify_every=100)
    faint = 0
    for _ in range(4):
        step(state, [(scene.train[0], scene.train[0].image())], options, scene.extent, 1000)
        faint += int(state.adam.gaussians.opacities.max() < 0.0101)
    assert faint == expected


def test_an_emptied_scene_is_an_error(config):
    scene = load_scene(config.data)
    state = RgbState.start(config, scene, "cpu")
    state.adam.limit_opacities(1e-4)
    state.iteration = 39
    view = scene.train[0]
    with pytest.raises(InputError, match=r"iteration 40; .*--rgb\.opacity_reset_every"):
        step(state, [(view, view.image())], QUICK, scene.extent, 1000)


def test_a_step_lowers_the_loss_of_its_view(config):
    scene = load_scene(config.data)
    state = RgbState.start(config, scene, "cpu")
    view = scene.train[0]
    losses = [
        float(step(state, [(view, view.image())], QUICK, scene.extent, 1000)[1]) for _ in range(15)
    ]
    assert losses[-1] < 0.9 * losses[0]
    assert state.iteration == 15


def test_the_gradients_of_a_step_are_the_mean_of_its_views(config):
    scene = load_scene(config.data)
    photos = [(view, view.image()) for view in scene.train[:3]]
    moments = []
    for chosen in (*([photo] for photo in photos), photos):
        state = RgbState.start(config, scene, "cpu")
        options = replace(QUICK, views_per_step=len(chosen))
        step(state, chosen, options, scene.extent, 1000)
        moments.append(state.adam.first.means)
    assert moments[0].abs().max() > 1e-4
    # Float32 sums of gradients up to 1e-3; measured 1.5e-11.
    assert_close(moments[3], torch.stack(moments[:3]).mean(dim=0), rtol=0, atol=1e-9)
    assert state.statistics.views.max() == 3


def test_random_background_leaves_photos_without_alpha_alone(config):
    scene = load_scene(config.data)
    state = RgbState.start(config, scene, "cpu")
    view, random = scene.train[0], replace(QUICK, random_background=True)
    renderings = [step(state, [(view, view.image())], random, 1e-6, 1000)[0] for _ in range(2)]
    corners = [rendering.color[:, 0, 0].detach() for rendering in renderings]
    assert (corners[0] - corners[1]).abs().max() > 0.05


def test_view_order_shows_each_view_once_in_a_round_and_can_go_on():
    views = list("abcde")
    whole = list(view_order(views, 1, 0, 23))
    assert len(whole) == 23
    for start in range(0, 20, 5):
        assert sorted(whole[start : start + 5]) == views
    assert whole[:5] != whole[5:10]
    for start in (1, 5, 12, 23):
        assert list(view_order(views, 1, start, 23)) == whole[start:]
    assert list(view_order(views, 2, 0, 23)) != whole


def test_learning_rates_follow_the_published_schedule():
    config = RgbConfig(iterations=30_000)
    first, last = (learning_rates(config, 2.0, i)["means"][0] for i in (0, 30_000))
    assert (first, last) == pytest.approx((2 * 1.6e-4, 2 * 1.6e-6))
    assert learning_rates(config, 1.0, 15_000)["means"][0] == pytest.approx(1.6e-5)
    assert learning_rates(config, 1.0, 90_000)["means"][0] == pytest.approx(1.6e-6)
    sh = learning_rates(config, 1.0, 0)["sh"]
    assert (len(sh), sh[2], sh[3]) == pytest.approx((48, 2.5e-3, 1.25e-4))
    assert [sh_degree(i, config) for i in (1, 999, 1_000, 2_500, 9_000)] == [0, 0, 1, 2, 3]


def test_gaussians_start_as_large_as_their_neighbours_are_far():
    points = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 2, 0], [0, 0, 2], [40, 0, 0]])
    colors = torch.full((5, 3), 0.75)
    gaussians = gaussians_at(points, colors)
    assert_close(gaussians.scales[0], torch.full((3,), 3**0.5))  # of 1, 4 and 4
    assert_close(gaussians.opacities, torch.full((5,), 0.1))
    assert_close(0.5 + 0.28209479 * gaussians.sh[:, 0], colors)
    assert gaussians_at(points[:1], colors[:1]).log_scales.isfinite().all()
    assert gaussians_at(points[[0, 0]], colors[:2]).log_scales.isfinite().all()


def looking(position, target):
    forward = torch.nn.functional.normalize(target - position, dim=0)
    right = torch.nn.functional.normalize(
        torch.linalg.cross(forward, torch.tensor([0, 0, 1.0])), dim=0
    )
    pose = torch.eye(4)
    pose[:3, :3] = torch.stack([right, torch.linalg.cross(forward, right), forward])
    pose[:3, 3] = -pose[:3, :3] @ position
    return Camera(pose, 50.0, 50.0, 32.0, 32.0, 64, 64)


def test_random_points_lie_where_the_cameras_look(rng):
    target = torch.tensor([5.0, -2.0, 1.0])
    cameras = [
        looking(target + torch.tensor([4 * x, 4 * y, 1.0]), target)
        for x, y in ((1, 0), (0, 1), (-1, 0), (0, -1))
    ]
    points = random_points(cameras, 4.0, 1_000, rng)
    assert points.shape == (1_000, 3)
    assert_close(points[:, :2].mean(dim=0), target[:2], atol=0.3, rtol=0)
    assert (points - target).abs().max() < 4.2


@pytest.mark.parametrize("turn", [0.0, 1.0])
def test_random_points_without_a_common_centre_surround_the_cameras(rng, turn):
    # Side by side, and back to back: no point lies before all of them.
    cameras = [
        looking(torch.tensor([x, 0.0, 0.0]), torch.tensor([x + turn * x, 9.0 - turn * 9, 0.1]))
        for x in (-1.0, 0.5, 1.0)
    ]
    points = random_points(cameras, 1.0, 50, rng)
    assert points.shape == (50, 3)
    assert points.isfinite().all()
    assert points.abs().max() < 5


def test_no_views_no_numbers(config):
    assert evaluate_rgb(gaussians_at(torch.zeros(1, 3), torch.zeros(1, 3)), []) == {}
