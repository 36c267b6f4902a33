import dataclasses

import numpy as np
import plyfile
import pytest
import torch
from torch.testing import assert_close

from refer3d.runs.errors import InputError
from refersplat.splats.gaussians import Gaussians, load_ply, ply_properties, save_ply
from tests.errors import raises
from tests.refersplat.splats import assert_equal, random_gaussians


def write_rows(path, columns, name="vertex", text=False):
    rows = np.zeros(len(next(iter(columns.values()))), [(n, "f4") for n in columns])
    for column, values in columns.items():
        rows[column] = values
    plyfile.PlyData([plyfile.PlyElement.describe(rows, name)], text=text).write(path)


def columns(rng, count=4, rest=45):
    names = ply_properties(rest)
    return {name: torch.randn(count, generator=rng).numpy() for name in names}


@pytest.mark.parametrize("count", [1, 7])
def test_ply_written_and_read_back_is_equal(rng, tmp_path, count):
    gaussians = random_gaussians(rng, count)
    save_ply(gaussians, tmp_path / "scene.ply")
    assert_equal(load_ply(tmp_path / "scene.ply"), gaussians)


def test_ply_has_the_properties_of_inria_in_their_order(rng, tmp_path):
    gaussians = random_gaussians(rng, 5)
    save_ply(gaussians, tmp_path / "scene.ply")
    vertices = plyfile.PlyData.read(tmp_path / "scene.ply")["vertex"]
    names = [p.name for p in vertices.properties]
    assert names[:6] == ["x", "y", "z", "nx", "ny", "nz"]
    assert names[6:10] == ["f_dc_0", "f_dc_1", "f_dc_2", "f_rest_0"]
    assert names[53:] == ["f_rest_44", "opacity", *(f"scale_{i}" for i in range(3))] + [
        f"rot_{i}" for i in range(4)
    ]
    # Channel-major: the first fifteen are red.
    assert_close(torch.tensor(vertices["f_rest_1"]), gaussians.sh[:, 2, 0])
    assert_close(torch.tensor(vertices["f_rest_15"]), gaussians.sh[:, 1, 1])
    assert_close(torch.tensor(vertices["rot_0"]), gaussians.quats[:, 0])


@pytest.mark.parametrize("rest", [0, 9, 24, 45])
@pytest.mark.parametrize("text", [False, True])
def test_lower_sh_degrees_are_padded(rng, tmp_path, rest, text):
    written = columns(rng, rest=rest)
    write_rows(tmp_path / "scene.ply", written, text=text)
    sh = load_ply(tmp_path / "scene.ply").sh
    assert sh.shape == (4, 16, 3)
    kept = 1 + rest // 3
    assert (sh[:, kept:] == 0).all()
    assert_close(sh[:, 0, 2], torch.from_numpy(written["f_dc_2"]))
    if rest:
        assert_close(sh[:, kept - 1, 2], torch.from_numpy(written[f"f_rest_{rest - 1}"]))


def cut(keep):
    def breaks(path, rng):
        save_ply(random_gaussians(rng, 20), path)
        path.write_bytes(path.read_bytes()[:keep])

    return breaks


def changed(**values):
    """A scene of four with other values in some rows; None removes the property."""

    def breaks(path, rng):
        written = columns(rng)
        for name, rows in values.items():
            if rows is None:
                del written[name]
            else:
                for row, value in rows.items():
                    written[name][row] = value
        write_rows(path, written)

    return breaks


POINTS_ONLY = dict.fromkeys(("x", "y", "z", "red", "green", "blue"), np.ones(3))
TRAINED = "point_cloud/iteration_*/point_cloud.ply"
BROKEN = {
    "absent": (lambda path, rng: None, "give the .ply"),
    "empty": (lambda path, rng: path.write_bytes(b""), "copy it again"),
    "text": (lambda path, rng: path.write_text("ceci n'est pas un nuage\n"), "copy it again"),
    "truncated": (cut(-1000), "early end-of-file", "copy it again"),
    "cut header": (cut(200), "copy it again"),
    "missing property": (changed(opacity=None), "'opacity'", "expected x y z", "export it again"),
    "points only": (lambda path, rng: write_rows(path, POINTS_ONLY), "'f_dc_0'", TRAINED),
    "other element": (
        lambda path, rng: write_rows(path, columns(rng), name="face"),
        *("'vertex'", "give the .ply"),
    ),
    "SH count": (
        lambda path, rng: write_rows(path, columns(rng, rest=12)),
        *("12 f_rest", "0, 9, 24 or 45", "export"),
    ),
    "no rest of SH": (changed(f_dc_0=None), "spherical harmonics", "sh_coeffs"),
    "2DGS": (changed(scale_2=None), "2DGS", "two scales", "train.py"),
    "Mip-Splatting": (
        lambda path, rng: write_rows(path, columns(rng) | {"filter_3D": np.ones(4)}),
        *("Mip-Splatting", "create_fused_ply.py"),
    ),
    "compressed": (
        lambda path, rng: write_rows(path, {"packed_position": np.ones(4)}),
        *("SuperSplat", "uncompressed .ply"),
    ),
    "position beyond float32": (changed(y={2: 1e20}), "means of 1 of 4", "1e+12", "remove"),
    "scale beyond float32": (changed(scale_0={2: 60}), "log_scales of 1 of 4", "remove"),
    "rotation beyond float32": (changed(rot_0={2: 1e25}), "quats of 1 of 4", "remove"),
    "NaN position": (changed(y={2: np.nan}), "means of 1 of 4", "remove them"),
    "infinite scale": (changed(scale_1={0: np.inf, 1: np.inf}), "log_scales of 2 of 4", "remove"),
    "zero rotation": (changed(**{f"rot_{i}": {1: 0} for i in range(4)}), "quats of 1 of 4"),
    "no rows": (lambda path, rng: write_rows(path, columns(rng, count=0)), "no Gaussians", "give"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_ply_is_refused(rng, tmp_path, name):
    breaks, *words = BROKEN[name]
    breaks(tmp_path / "broken.ply", rng)
    with raises(InputError, "broken.ply", *words):
        load_ply(tmp_path / "broken.ply")


def test_a_failed_write_leaves_the_old_file(rng, tmp_path, monkeypatch):
    path = tmp_path / "scene.ply"
    gaussians = random_gaussians(rng, 3)
    save_ply(gaussians, path)

    def fail(self, file):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(plyfile.PlyData, "write", fail)
    with pytest.raises(OSError, match="disk full"):
        save_ply(random_gaussians(rng, 9), path)
    monkeypatch.undo()
    assert_equal(load_ply(path), gaussians)
    assert list(tmp_path.iterdir()) == [path]


def test_select_join_and_properties(rng):
    gaussians = random_gaussians(rng, 6)
    mask = torch.tensor([True, False] * 3)
    assert_equal(
        gaussians.select(mask)
        .joined(gaussians.select(~mask))
        .select(torch.tensor([0, 3, 1, 4, 2, 5])),
        gaussians,
    )
    assert gaussians.count == 6
    assert_close(gaussians.scales.log(), gaussians.log_scales)
    assert_close(gaussians.opacities.logit(), gaussians.logit_opacities)
    assert_close(torch.cat([gaussians.sh_dc, gaussians.sh_rest], dim=1), gaussians.sh)
    learned = gaussians.map(lambda tensor: tensor.clone().requires_grad_())
    assert not any(t.requires_grad for t in learned.detached().tensors().values())
    assert [f.name for f in dataclasses.fields(Gaussians)] == list(gaussians.tensors())


def test_rotations_turn_axes_into_the_world():
    quarter_turn_about_z = torch.tensor([[2**0.5, 0.0, 0.0, 2**0.5]])  # of length 2
    gaussian = Gaussians(
        *(torch.zeros(1, 3),) * 2, quarter_turn_about_z, torch.zeros(1), torch.zeros(1, 16, 3)
    )
    turned = gaussian.rotations[0] @ torch.tensor([1.0, 0.0, 0.0])
    assert_close(turned, torch.tensor([0.0, 1.0, 0.0]), atol=1e-6, rtol=0)
