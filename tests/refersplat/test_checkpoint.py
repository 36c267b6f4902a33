import gzip
import json
import os
import pickle
import zipfile

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
    check_resumed,
    load_gaussians,
    load_refersplat_field,
    save_viewer_files,
)
from refersplat.splats.gaussians import save_ply
from tests.errors import raises
from tests.refersplat.splats import assert_equal, random_gaussians

COUNT = 6
EXTENT = 2.5


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


@pytest.mark.parametrize("legacy", [False, True])
def test_reads_inria_checkpoints(rng, tmp_path, legacy):
    gaussians = random_gaussians(rng, COUNT)
    path = tmp_path / "chkpnt30000.pth"
    content = (inria_parts(gaussians), 30_000)
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    loaded = load_gaussians(path)
    assert_equal(loaded, gaussians)
    assert not any(tensor.requires_grad for tensor in loaded.tensors().values())
    assert load_refersplat_field(path) is None


def test_reads_numpy_numbers_of_any_version(rng, tmp_path):
    path = tmp_path / "chkpnt30000.pth"
    torch.save((inria_parts(random_gaussians(rng, COUNT)), 1), path)
    content = path.read_bytes()
    other = {b"numpy._core.multiarray": b"numpy.core.multiarray"}
    other |= {new: old for old, new in other.items()}
    name = next(name for name in other if name in content)
    assert b"scalar" in content
    # A legacy file is one pickle, in which a name can be exchanged without changing offsets.
    torch.save(
        (inria_parts(random_gaussians(rng, COUNT)), 1), path, _use_new_zipfile_serialization=False
    )
    path.write_bytes(path.read_bytes().replace(name, other[name]))
    assert load_gaussians(path).count == COUNT


@pytest.mark.parametrize("coefficients", [1, 4, 9])
def test_reads_lower_sh_degrees(rng, tmp_path, coefficients):
    gaussians = random_gaussians(rng, COUNT)
    torch.save((inria_parts(gaussians, coefficients), 7_000), tmp_path / "low.pth")
    sh = load_gaussians(tmp_path / "low.pth").sh
    assert_close(sh[:, :coefficients], gaussians.sh[:, :coefficients])
    assert (sh[:, coefficients:] == 0).all()


def test_reads_refersplat_checkpoints(rng, tmp_path):
    gaussians = random_gaussians(rng, COUNT)
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
    gaussians = random_gaussians(rng, COUNT)
    save_ply(gaussians, tmp_path / "point_cloud.ply")
    assert_equal(load_gaussians(tmp_path / "point_cloud.ply"), gaussians)
    assert load_refersplat_field(tmp_path / "point_cloud.ply") is None


def test_reads_checkpoints_of_gsplat_and_nerfstudio(rng, tmp_path):
    gaussians = random_gaussians(rng, COUNT)
    same = {"means": gaussians.means, "scales": gaussians.log_scales, "quats": gaussians.quats}
    harmonics = {"sh0": gaussians.sh_dc, "shN": gaussians.sh_rest}
    splats = {**same, **harmonics, "opacities": gaussians.logit_opacities}
    torch.save({"step": 29_999, "splats": splats}, tmp_path / "ckpt_29999_rank0.pt")
    assert_equal(load_gaussians(tmp_path / "ckpt_29999_rank0.pt"), gaussians)
    features = {"features_dc": gaussians.sh_dc[:, 0], "features_rest": gaussians.sh_rest}
    parameters = {**same, **features, "opacities": gaussians.logit_opacities[:, None]}
    pipeline = {f"_model.gauss_params.{name}": value for name, value in parameters.items()}
    pipeline["_model.background"] = torch.zeros(3)
    torch.save({"step": 29_999, "pipeline": pipeline}, tmp_path / "step-000029999.ckpt")
    assert_equal(load_gaussians(tmp_path / "step-000029999.ckpt"), gaussians)
    assert load_refersplat_field(tmp_path / "step-000029999.ckpt") is None
    torch.save({"splats": {"means": gaussians.means}}, tmp_path / "half.pt")
    with raises(InputError, "half.pt", "12 or 17", GIVE):
        load_gaussians(tmp_path / "half.pt")


@pytest.mark.parametrize("suffix", [".ksplat", ".sog"])
def test_files_of_viewers_are_named(tmp_path, suffix):
    (tmp_path / f"scene{suffix}").write_bytes(b"1234" * 8)
    with raises(InputError, f"scene{suffix}", suffix, "uncompressed .ply"):
        load_gaussians(tmp_path / f"scene{suffix}")


def test_a_point_cloud_is_known_by_its_content(rng, tmp_path):
    gaussians = random_gaussians(rng, COUNT)
    save_ply(gaussians, tmp_path / "scene.ply")
    (tmp_path / "scene.ply").rename(tmp_path / "scene.backup")
    assert_equal(load_gaussians(tmp_path / "scene.backup"), gaussians)


def test_inria_restores_what_is_written(rng, tmp_path):
    adam = Adam.start(random_gaussians(rng, COUNT))
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


def saved(content):
    return lambda path, rng: torch.save(content, path)


def changed(index, value):
    def breaks(path, rng):
        parts = list(inria_parts(random_gaussians(rng, COUNT)))
        parts[index] = value
        torch.save((tuple(parts), 7), path)

    return breaks


def truncated(path, rng):
    torch.save((inria_parts(random_gaussians(rng, 5_000)), 7), path)
    path.write_bytes(path.read_bytes()[:100_000])


def shortened(path, rng):
    torch.save((inria_parts(random_gaussians(rng, COUNT))[:10], 7), path)


def zipped(path, rng):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("meta.json", "{}")


def unlisted(path, rng):
    """A zip archive whose list of files is broken."""
    torch.save((inria_parts(random_gaussians(rng, COUNT)), 7), path)
    path.write_bytes(path.read_bytes().replace(b"PK\1\2", b"XX\1\2", 1))


GIVE = "give a chkpnt*.pth"
PICKLED = pickle.dumps(RunsCode(), protocol=2)
BROKEN = {
    "absent": (lambda path, rng: None, GIVE),
    "empty": (lambda path, rng: path.write_bytes(b""), "an empty file", "copy it again", GIVE),
    "gzip": (lambda path, rng: path.write_bytes(gzip.compress(b"NGSP")), "gzip", GIVE),
    "zip": (zipped, "a zip archive", GIVE),
    "list of a zip": (unlisted, "copy it again", GIVE),
    "text": (lambda path, rng: path.write_text("not a checkpoint\n"), "copy it again", GIVE),
    "truncated": (truncated, "copy it again", GIVE),
    "code": (saved((RunsCode(), 7)), "could run code", GIVE),
    "plain pickle": (lambda path, rng: path.write_bytes(PICKLED), "could run code", GIVE),
    "state dict": (saved(nn.Linear(2, 2).state_dict()), "12 or 17", "dict of 2", GIVE),
    "length": (shortened, "12 or 17", "tuple of 10", GIVE),
    "kind": (changed(1, "xyz"), "xyz", "a tensor", "got a str", GIVE),
    "NaN": (changed(1, torch.full((COUNT, 3), torch.nan)), "means of 6 of 6", "remove them"),
    "rows": (changed(4, torch.zeros(COUNT - 1, 3)), "log_scales", "[6, 3], got [5, 3]", "export"),
    "columns": (changed(5, torch.ones(COUNT, 3)), "quats", "[6, 4], got [6, 3]", "export"),
    "SH shape": (changed(3, torch.zeros(COUNT, 45)), "features_rest", "got [6, 45]", "export"),
    "SH count": (
        changed(3, torch.zeros(COUNT, 6, 3)),
        "features_rest",
        "4, 9 or 16",
        "got 7",
        GIVE,
    ),
    "format": (saved({"format": 99, "gaussians": {}}), "format 99", "1", "train the scene again"),
    "names": (saved({"format": 1, "gaussians": {"xyz": torch.zeros(1, 3)}}), "'xyz'", GIVE),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_checkpoint_is_refused(rng, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    breaks, *words = BROKEN[name]
    breaks(tmp_path / "broken.pth", rng)
    with raises(InputError, "broken.pth", *words):
        load_gaussians(tmp_path / "broken.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("index", "value", "words"),
    [
        (7, torch.zeros(2, 16), ("feature", "[6, C]", "[2, 16]")),
        (14, torch.zeros(2), ("mlp2", "state dict", "[2]")),
        (16, {"weight": 1.0}, ("cross_attention", "state dict", "dict of 1")),
    ],
)
def test_broken_referring_part_is_refused(rng, tmp_path, index, value, words):
    parts = list(refersplat_parts(random_gaussians(rng, COUNT), rng))
    parts[index] = value
    torch.save((tuple(parts), 1), tmp_path / "broken.pth")
    with raises(InputError, "broken.pth", *words, "as ReferSplat wrote it"):
        load_refersplat_field(tmp_path / "broken.pth")


def test_a_resumed_run_goes_on_with_its_own_scene(rng, tmp_path):
    class Photo:
        def __init__(self, name, x):
            self.name, pose = name, torch.eye(4)
            pose[0, 3] = x
            self.camera = Camera(pose, 100.0, 110.0, 32.0, 24.0, 64, 48)

    gaussians = random_gaussians(rng, COUNT)
    views = [Photo("a", 0), Photo("b", 1)]
    check_resumed(tmp_path, gaussians, None, views)  # no file yet, nothing to mix up
    save_viewer_files(tmp_path, views, DataConfig(scene="old"))
    check_resumed(tmp_path, gaussians, gaussians, views)
    for others in ([Photo("a", 0), Photo("c", 1)], [Photo("a", 0.5)]):
        with raises(InputError, "-s", tmp_path, others[-1].name, "moved"):
            check_resumed(tmp_path, gaussians, None, others)
    with raises(InputError, "--start_checkpoint", tmp_path, "6 Gaussians", "name their file"):
        check_resumed(tmp_path, gaussians, random_gaussians(rng, 3), views)
