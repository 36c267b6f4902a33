import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch.testing import assert_close

from refer3d.runs.errors import InputError
from refersplat.cameras import Camera
from refersplat.config import DataConfig, RgbConfig
from refersplat.data import Scene, load_scene
from refersplat.ops import project
from refersplat.rgb.corrections import begin_corrections
from refersplat.rgb.densify import DensificationStatistics
from refersplat.rgb.exposure import Exposures, expose, fit_exposure
from refersplat.rgb.fit import evaluate_rgb
from refersplat.rgb.losses import psnr
from refersplat.rgb.optimizer import Adam
from refersplat.rgb.poses import POSES_FILE, Motions, moved, save_poses, with_refined_poses
from refersplat.rgb.state import RgbState
from refersplat.rgb.train import step
from refersplat.splats.gaussians import Gaussians
from refersplat.splats.render import render
from tests.refersplat.splats import assert_equal

WIDTH, HEIGHT, EXTENT, COUNT = 32, 24, 3.0, 6
OPTIONS = RgbConfig(iterations=200, densify_from=1_000, opacity_reset_every=1_000)


def ball(rng, count=50):
    """Gaussians of all colours in a ball of radius 1."""
    sh = torch.zeros(count, 16, 3)
    sh[:, 0] = 2.5 * torch.rand(count, 3, generator=rng) - 1.25
    return Gaussians(
        means=torch.nn.functional.normalize(torch.randn(count, 3, generator=rng), dim=1)
        * torch.rand(count, 1, generator=rng),
        log_scales=torch.full((count, 3), math.log(0.2)),
        quats=torch.tensor([1.0, 0, 0, 0]).repeat(count, 1),
        logit_opacities=torch.full((count,), 1.0),
        sh=sh,
    )


def camera_at(angle):
    pose = torch.eye(4)
    sin, cos = math.sin(angle), math.cos(angle)
    pose[:3, :3] = torch.tensor([[-sin, cos, 0], [0, 0, -1], [-cos, -sin, 0]])
    pose[2, 3] = EXTENT
    return Camera(pose, 27.0, 27.0, WIDTH / 2, HEIGHT / 2, WIDTH, HEIGHT)


def random_exposures(rng, count):
    """Exposures with the identity as mean: black backgrounds show no mean offset."""
    gains = 0.75 + 0.5 * torch.rand(count, 3, generator=rng)
    offsets = 0.1 * torch.rand(count, 3, 1, generator=rng)
    exposures = torch.cat([torch.diag_embed(gains), offsets], dim=2)
    return exposures - exposures.mean(dim=0) + torch.eye(3, 4)


def random_motions(rng, count):
    motions = 0.01 * torch.randn(count, 6, generator=rng)
    return motions - motions.mean(dim=0)


@torch.no_grad()
def scene_of(gaussians, exposures=None, motions=None, count=COUNT):
    """Photos with exposures, whose cameras are given with motions that they do not have."""
    views = []
    for i in range(count):
        camera = camera_at(2 * math.pi * i / count)
        photo = render(gaussians, camera).color
        photo = photo if exposures is None else expose(photo, exposures[i])
        given = camera if motions is None else moved(camera, motions[i], EXTENT)
        view = {"name": f"{i}", "camera": given, "background": 0.0, "true": camera}
        views.append(SimpleNamespace(**view, image=lambda photo=photo: photo))
    none = dict.fromkeys(("path", "points", "split", "dataset"))
    return Scene(views=views, train=views, test=[], extent=EXTENT, warnings=[], **none)


def state_of(gaussians, scene):
    adam = Adam.start(gaussians.map(torch.clone))
    statistics = DensificationStatistics.start(adam.gaussians)
    rows = {view.name: row for row, view in enumerate(scene.train)}
    return RgbState(adam, statistics, torch.Generator(), rows=rows)


def train_steps(state, scene, options, count):
    turns = (scene.train[i % len(scene.train)] for i in range(count))
    return [step(state, [(view, view.image())], options, EXTENT, 1_000)[0] for view in turns]


def test_the_exposure_of_known_colors_is_found(rng):
    image = torch.rand(3, 20, 30, generator=rng)
    exposure = random_exposures(rng, 2)[0]
    photo = expose(image, exposure)
    assert_close(photo[:, 3, 4], exposure[:, :3] @ image[:, 3, 4] + exposure[:, 3])
    # The ridge draws 1 % towards the identity.
    assert_close(expose(image, fit_exposure(image, photo)), photo, atol=0.01, rtol=0)
    assert_close(fit_exposure(image, image), torch.eye(3, 4), atol=1e-5, rtol=0)


def test_gray_pictures_do_not_tell_how_other_colors_change(rng):
    gray = torch.rand(1, 20, 30, generator=rng).expand(3, -1, -1)
    fitted = fit_exposure(gray, 0.8 * gray)
    red_less_green = torch.tensor([1.0, -1.0, 0.0])
    assert_close(fitted[:, :3] @ red_less_green, red_less_green, atol=1e-4, rtol=0)


def test_exposures_of_all_photos_have_the_identity_as_mean(rng):
    exposures = Exposures.start(5, "cpu")
    image = torch.rand(3, 9, 9, generator=rng)
    for row in range(5):
        exposures = exposures.fitted(row, image, (0.5 + 0.1 * row) * image)
    mean = torch.stack([exposures[row] for row in range(5)]).mean(dim=0)
    assert_close(mean, torch.eye(3, 4))
    assert exposures[4][0, 0] > exposures[0][0, 0] + 0.3


def test_a_camera_turns_about_its_centre_and_shifts_along_the_world():
    camera = camera_at(0.3)
    assert_close(moved(camera, torch.zeros(6), EXTENT).world_to_camera, camera.world_to_camera)
    turn = torch.tensor([0, 0, math.pi / 2, 0, 0, 0])
    turned = moved(camera, turn, EXTENT)
    assert_close(turned.position, camera.position)
    expected = camera_at(0.3 + math.pi / 2).world_to_camera[:3, :3]
    assert_close(turned.world_to_camera[:3, :3], expected)
    shifted = moved(camera, torch.tensor([0, 0, 0, 0, 0.1, 0]), EXTENT)
    assert_close(shifted.position - camera.position, torch.tensor([0, 0.1 * EXTENT, 0]))


def test_gradients_of_a_motion():
    def pose(motion):
        return moved(camera_at(1.0), motion, EXTENT).world_to_camera

    assert torch.autograd.gradcheck(pose, torch.zeros(6, dtype=torch.float64, requires_grad=True))


def test_motions_move_one_camera_and_keep_their_mean():
    motions = Motions.start(4, "cpu")
    motions.step(1, torch.ones(6), 0.1)
    assert_close(motions.values[1] - motions.values[0], torch.full((6,), -0.1))
    assert_close(motions.values.mean(dim=0), torch.zeros(6))
    assert motions.steps == [0, 1, 0, 0]


@pytest.mark.parametrize("are_alike", [False, True])
def test_auto_corrects_photos_that_differ(rng, are_alike):
    gaussians = ball(rng)
    differences = () if are_alike else (random_exposures(rng, COUNT), random_motions(rng, COUNT))
    state = state_of(gaussians, scene := scene_of(gaussians, *differences))
    begin_corrections(state, OPTIONS, scene, sh_degree=3)
    assert (state.exposures is None, state.motions is None) == (are_alike, are_alike)
    # Nothing else has changed: where it stays off, training goes on to the bits of "never".
    assert_equal(state.adam.gaussians, gaussians)
    assert state.adam.gaussians.means.grad is None
    assert torch.equal(state.generator.get_state(), torch.Generator().get_state())


@pytest.mark.parametrize(("option", "expected"), [("always", True), ("never", False)])
def test_options_decide_against_the_photos(rng, option, expected):
    gaussians = ball(rng)
    differences = () if expected else (random_exposures(rng, COUNT), random_motions(rng, COUNT))
    state = state_of(gaussians, scene := scene_of(gaussians, *differences))
    options = replace(OPTIONS, exposure=option, refine_poses=option)
    begin_corrections(state, options, scene, sh_degree=3)
    assert (state.exposures is not None, state.motions is not None) == (expected, expected)


def test_training_finds_exposures_and_poses(rng):
    gaussians = ball(rng)
    exposures, motions = random_exposures(rng, COUNT), random_motions(rng, COUNT)
    state = state_of(gaussians, scene := scene_of(gaussians, exposures, motions))
    rates = ("position_lr_init", "position_lr_final", "feature_lr", "opacity_lr", "scaling_lr")
    still = dict.fromkeys((*rates, "rotation_lr"), 1e-9)  # six small photos determine no Gaussians
    options = replace(OPTIONS, **still, pose_lr=5e-3, exposure="always", refine_poses="always")
    begin_corrections(state, options, scene, sh_degree=3)
    renderings = train_steps(state, scene, options, 25 * COUNT)[-COUNT:]
    for view, rendering in zip(scene.train, renderings, strict=True):
        assert psnr(rendering.color.detach(), view.image()) > 35
    # In pixels: turning and shifting a camera look alike from afar.
    errors, before = [], []
    for view, motion in zip(scene.train, state.motions.values, strict=True):
        at = (view.true, moved(view.camera, motion, EXTENT), view.camera)
        true, found, given = (
            project(gaussians.means, gaussians.quats, gaussians.scales, camera) for camera in at
        )
        errors.append((found.means2d - true.means2d).norm(dim=1).mean())
        before.append((given.means2d - true.means2d).norm(dim=1).mean())
    assert sum(errors) < 0.2 * sum(before)


def test_fitted_scores_do_not_depend_on_exposure_and_pose(rng):
    gaussians = ball(rng)
    scenes = (
        scene_of(gaussians),
        scene_of(gaussians, random_exposures(rng, COUNT), random_motions(rng, COUNT)),
    )
    clean, disturbed = (evaluate_rgb(gaussians, scene.views[:2], EXTENT) for scene in scenes)
    exposed = evaluate_rgb(gaussians, scenes[1].views[:2])
    assert clean["psnr"] > 100
    assert disturbed["psnr"] == exposed["psnr"] < 27
    assert disturbed["psnr"] + 1 < exposed["psnr_fitted"] < disturbed["psnr_fitted"] - 3


def test_a_saved_state_trains_on_to_the_same_bits(rng, tmp_path):
    gaussians = ball(rng)
    scene = scene_of(gaussians, random_exposures(rng, COUNT), random_motions(rng, COUNT))
    state = state_of(gaussians, scene)
    options = replace(OPTIONS, exposure="always", refine_poses="always")
    begin_corrections(state, options, scene, sh_degree=3)
    train_steps(state, scene, options, 11)
    state.save(tmp_path / "state.pt", scene.train, EXTENT)
    resumed = RgbState.load(tmp_path / "state.pt", scene.train, EXTENT, "cpu")
    for one in (state, resumed):
        train_steps(one, scene, options, 11)
    assert_equal(resumed.adam.gaussians, state.adam.gaussians)
    assert torch.equal(resumed.exposures.values, state.exposures.values)
    assert torch.equal(resumed.motions.values, state.motions.values)


@pytest.mark.parametrize("name", ["exposures", "motions"])
def test_corrections_of_other_photos_are_refused(rng, tmp_path, name):
    gaussians = ball(rng)
    state = state_of(gaussians, scene := scene_of(gaussians))
    kinds = {"exposures": Exposures, "motions": Motions}
    setattr(state, name, kinds[name].start(7, "cpu"))
    state.save(tmp_path / "state.pt", scene.train, EXTENT)
    with pytest.raises(InputError, match=rf"state\.pt: {name}: values: expected .* 6 views, got 7"):
        RgbState.load(tmp_path / "state.pt", scene.train, EXTENT, "cpu")


def test_refined_poses_are_of_the_views_that_were_refined(photo_scene, tmp_path):
    scene = load_scene(DataConfig(scene=str(photo_scene), eval=True))
    assert with_refined_poses(scene, tmp_path) is scene
    motions = Motions.start(len(scene.train), "cpu")
    motions.values[1, 3] = 0.1
    save_poses(tmp_path, scene.train, motions, scene.extent)
    refined = with_refined_poses(scene, tmp_path)
    shifts = [
        float((new.camera.position - old.camera.position)[0])
        for new, old in zip(refined.train, scene.train, strict=True)
    ]
    expected = [0.1 * scene.extent * (row == 1) for row in range(len(shifts))]
    assert shifts == pytest.approx(expected, abs=1e-6)
    assert [view.name for view in refined.test] == [view.name for view in scene.test]
    # Photos of another scene may have the same names.
    views = [replace(v, camera=moved(v.camera, torch.full((6,), 0.1), 1.0)) for v in scene.views]
    elsewhere = with_refined_poses(replace(scene, views=views, train=views, test=[]), tmp_path)
    assert elsewhere.views == views
    (tmp_path / POSES_FILE).write_bytes(b"cut")
    with pytest.raises(InputError, match=r"refined_poses\.pt: .*train into a new folder"):
        with_refined_poses(scene, tmp_path)
