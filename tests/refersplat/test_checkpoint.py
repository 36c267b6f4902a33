import json
import os
import pickle

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from refer3d.runs.errors import InputError
from refersplat.cameras import Camera
from refersplat.config import DataConfig, RgbConfig
from refersplat.rgb.densify import DensificationStatistics
from refersplat.rgb.optimizer import Adam, learning_rates
from refersplat.rgb.state import RgbState, save_inria_checkpoint
from refersplat.splats.checkpoints import (
    load_gaussians,
    load_refersplat_field,
    save_viewer_files,
)
from refersplat.splats.gaussians import Gaussians, save_ply

COUNT = 6
EXTENT = 2.5


def random_gaussians(rng, count=COUNT):
    shapes = {"means": (3,), "log_scales": (3,), "quats": (4,), "logit_opacities": ()}
    return Gaussians(
        **{name: torch.randn(count, *shape, generator=rng) for name, shape in shapes.items()},
        sh=torch.randn(count, 16, 3, generator=rng),
    )


def inria_parts(gaussians, coefficients=16):
    """The 12-tuple of the published ``GaussianModel.capture``."""
    sh = gaussians.sh[:, :coefficients]
    return (
        3,
        nn.Parameter(gaussians.means),
        nn.Parameter(sh[:, :1].contiguous()),
        nn.Parameter(sh[:, 1:].contiguous()),
        nn.Parameter(gaussians.log_scales),
        nn.Parameter(gaussians.quats),
        nn.Parameter(gaussians.logit_opacities[:, None]),
        torch.zeros(gaussians.count),
        torch.zeros(gaussians.count, 1),
        torch.zeros(gaussians.count, 1),
        {"state": {}, "param_groups": []},
        np.float64(EXTENT),
    )


def refersplat_parts(gaussians, rng):
    parts = inria_parts(gaussians)
    feature = nn.Parameter(torch.randn(gaussians.count, 16, generator=rng))
    networks = [nn.Linear(2, 3).state_dict() for _ in range(4)]
    return (*parts[:7], feature, *parts[7:], *networks)


def assert_equal(got, want):
    for name, tensor in want.tensors().items():
        assert torch.equal(getattr(got, name), tensor), name


@pytest.mark.parametrize("legacy", [False, True])
def test_reads_inria_checkpoints(rng, tmp_path, legacy):
    gaussians = random_gaussians(rng)
    path = tmp_path / "chkpnt30000.pth"
    content = (inria_parts(gaussians), 30_000)
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    loaded = load_gaussians(path)
    assert_equal(loaded, gaussians)
    assert not any(tensor.requires_grad for tensor in loaded.tensors().values())
    assert load_refersplat_field(path) is None


def test_reads_numpy_numbers_of_any_version(rng, tmp_path):
    path = tmp_path / "chkpnt30000.pth"
    torch.save((inria_parts(random_gaussians(rng)), 1), path)
    content = path.read_bytes()
    other = {b"numpy._core.multiarray": b"numpy.core.multiarray"}
    other |= {new: old for old, new in other.items()}
    name = next(name for name in other if name in content)
    assert b"scalar" in content
    # A legacy file is one pickle, in which a name can be exchanged without changing offsets.
    torch.save((inria_parts(random_gaussians(rng)), 1), path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes().replace(name, other[name]))
    assert load_gaussians(path).count == COUNT


@pytest.mark.parametrize("coefficients", [1, 4, 9])
def test_reads_lower_sh_degrees(rng, tmp_path, coefficients):
    gaussians = random_gaussians(rng)
    torch.save((inria_parts(gaussians, coefficients), 7_000), tmp_path / "low.pth")
    sh = load_gaussians(tmp_path / "low.pth").sh
    assert_close(sh[:, :coefficients], gaussians.sh[:, :coefficients])
    assert (sh[:, coefficients:] == 0).all()


def test_reads_refersplat_checkpoints(rng, tmp_path):
    gaussians = random_gaussians(rng)
    parts = refersplat_parts(gaussians, rng)
    torch.save((parts, 45_000), tmp_path / "chkpnt45000.pth")
    assert_equal(load_gaussians(tmp_path / "chkpnt45000.pth"), gaussians)
    field = load_refersplat_field(tmp_path / "chkpnt45000.pth")
    assert torch.equal(field.feature, parts[7])
    assert {name.partition(".")[0] for name in field.weights} == {
        *("mlp1", "mlp2", "mlp3", "cross_attention")
    }
    assert torch.equal(field.weights["mlp2.weight"], parts[14]["weight"])


def test_reads_point_clouds_too(rng, tmp_path):
    gaussians = random_gaussians(rng)
    save_ply(gaussians, tmp_path / "point_cloud.ply")
    assert_equal(load_gaussians(tmp_path / "point_cloud.ply"), gaussians)
    assert load_refersplat_field(tmp_path / "point_cloud.ply") is None


def test_inria_restores_what_is_written(rng, tmp_path):
    adam = Adam.start(random_gaussians(rng))
    rates = learning_rates(RgbConfig(), EXTENT, 10)
    for tensor in adam.gaussians.tensors().values():
        tensor.grad = torch.randn(tensor.shape, generator=rng)
    adam.step(rates)
    statistics = DensificationStatistics.start(adam.gaussians)
    path = tmp_path / "chkpnt10.pth"
    state = RgbState(adam, statistics, rng, iteration=10)
    save_inria_checkpoint(path, state, rates, 3, EXTENT)
    assert_equal(load_gaussians(path), adam.gaussians.detached())

    parts, iteration = torch.load(path, weights_only=True)
    (degree, xyz, f_dc, f_rest, scaling, rotation, opacity, radii, gradient, views, saved, size) = (
        parts
    )
    assert (iteration, degree, size) == (10, 3, EXTENT)
    assert radii.shape == (COUNT,)
    assert gradient.shape == views.shape == (COUNT, 1)
    # As the published training_setup and restore do.
    named = [("xyz", xyz), ("f_dc", f_dc), ("f_rest", f_rest)]
    named += [("opacity", opacity), ("scaling", scaling), ("rotation", rotation)]
    groups = [{"params": [tensor], "lr": 0.1, "name": name} for name, tensor in named]
    optimizer = torch.optim.Adam(groups, lr=0.0, eps=1e-15)
    optimizer.load_state_dict(saved)
    assert [group["lr"] for group in optimizer.param_groups[:3]] == pytest.approx(
        [rates["means"][0], 2.5e-3, 2.5e-3 / 20]
    )
    gradients = {name: torch.randn(tensor.shape, generator=rng) for name, tensor in named}
    for name, tensor in named:
        tensor.grad = gradients[name].clone()
    optimizer.step()

    ours = adam.gaussians
    ours.means.grad, ours.quats.grad = gradients["xyz"], gradients["rotation"]
    ours.log_scales.grad = gradients["scaling"]
    ours.logit_opacities.grad = gradients["opacity"][:, 0]
    ours.sh.grad = torch.cat([gradients["f_dc"], gradients["f_rest"]], dim=1)
    adam.step(rates)
    # The same step in another order of float32 operations.
    assert_close(ours.means.detach(), xyz.detach(), rtol=1e-6, atol=1e-7)
    assert_close(ours.sh_rest.detach(), f_rest.detach(), rtol=1e-6, atol=1e-7)


def test_viewer_files_are_text_in_inrias_form(tmp_path):
    class Photo:
        name = "frame_00001"
        camera = Camera(torch.eye(4), 100.0, 110.0, 32.0, 24.0, 64, 48)

    Photo.camera.world_to_camera[:3, 3] = torch.tensor([1.0, 2.0, 3.0])
    save_viewer_files(tmp_path, [Photo], DataConfig(scene="some/scene", white_background=True))
    (camera,) = json.loads((tmp_path / "cameras.json").read_text())
    assert camera["position"] == [-1, -2, -3]
    assert camera["rotation"] == torch.eye(3).tolist()
    assert (camera["fx"], camera["width"], camera["img_name"]) == (100, 64, "frame_00001")
    arguments = (tmp_path / "cfg_args").read_text()
    assert arguments.startswith("Namespace(sh_degree=3, source_path='/")
    assert arguments.endswith("white_background=True, data_device='cpu', eval=False)")


class RunsCode:
    def __reduce__(self):
        return os.system, ("touch ran",)


def save_changed(path, rng, index, value):
    parts = list(inria_parts(random_gaussians(rng)))
    parts[index] = value
    torch.save((tuple(parts), 7), path)


def break_empty(path, rng):
    path.write_bytes(b"")


def break_text(path, rng):
    path.write_text("not a checkpoint at all\n")


def break_truncated(path, rng):
    torch.save((inria_parts(random_gaussians(rng, 5_000)), 7), path)
    path.write_bytes(path.read_bytes()[:100_000])


def break_code(path, rng):
    torch.save((RunsCode(), 7), path)


def break_plain_pickle(path, rng):
    path.write_bytes(pickle.dumps(RunsCode(), protocol=2))


def break_state_dict(path, rng):
    torch.save(nn.Linear(2, 2).state_dict(), path)


def break_length(path, rng):
    torch.save((inria_parts(random_gaussians(rng))[:10], 7), path)


def break_type(path, rng):
    save_changed(path, rng, 1, "xyz")


def break_nan(path, rng):
    save_changed(path, rng, 1, torch.full((COUNT, 3), torch.nan))


def break_rows(path, rng):
    save_changed(path, rng, 4, torch.zeros(COUNT - 1, 3))


def break_columns(path, rng):
    save_changed(path, rng, 5, torch.ones(COUNT, 3))


def break_sh_shape(path, rng):
    save_changed(path, rng, 3, torch.zeros(COUNT, 45))


def break_sh_count(path, rng):
    save_changed(path, rng, 3, torch.zeros(COUNT, 6, 3))


def break_format(path, rng):
    torch.save({"format": 99, "gaussians": {}}, path)


def break_names(path, rng):
    torch.save({"format": 1, "gaussians": {"xyz": torch.zeros(1, 3)}}, path)


@pytest.mark.parametrize(
    ("break_file", "message"),
    [
        (lambda path, rng: None, "no such file; give a chkpnt"),
        (break_empty, ".*copy it again, or give a chkpnt"),
        (break_text, ".*copy it again, or give a chkpnt"),
        (break_truncated, ".*copy it again, or give a chkpnt"),
        (break_code, ".*could run code; give a chkpnt"),
        (break_plain_pickle, ".*could run code; give a chkpnt"),
        (break_state_dict, ".*got a OrderedDict of 2; give a chkpnt"),
        (break_length, ".*got a tuple of 10; give a chkpnt"),
        (break_type, "xyz .* got a str; give a chkpnt"),
        (break_nan, "means of 6 of 6 .*; remove them"),
        (break_rows, r"log_scales .*\[6, 3\], got \[5, 3\]; export the scene again"),
        (break_columns, r"quats .*\[6, 4\], got \[6, 3\]; export the scene again"),
        (break_sh_shape, r"features_rest .*\[6, K, 3\], got \[6, 45\]; export"),
        (break_sh_count, "features_dc and features_rest: .*16 .* got 7; give a chkpnt"),
        (break_format, ".*format 99, .* 1; train the scene again"),
        (break_names, ".*'xyz'.*; give a chkpnt"),
    ],
)
def test_broken_checkpoint_says_what_is_wrong(rng, tmp_path, monkeypatch, break_file, message):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "broken.pth"
    break_file(path, rng)
    with pytest.raises(InputError, match=rf"broken\.pth: {message}"):
        load_gaussians(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("index", "value", "message"),
    [
        (
            7,
            torch.zeros(2, 16),
            r"referring feature .*\[6, C\], got a tensor .*as ReferSplat wrote it",
        ),
        (14, torch.zeros(2), "mlp2 .*got a tensor of shape .*as ReferSplat wrote it"),
        (16, {"weight": 1.0}, "cross_attention .*got a dict of 1; .*as ReferSplat wrote it"),
    ],
)
def test_broken_referring_part_says_what_is_wrong(rng, tmp_path, index, value, message):
    parts = list(refersplat_parts(random_gaussians(rng), rng))
    parts[index] = value
    torch.save((tuple(parts), 1), tmp_path / "broken.pth")
    with pytest.raises(InputError, match=message):
        load_refersplat_field(tmp_path / "broken.pth")
