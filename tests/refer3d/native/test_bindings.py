"""Compiled functions take arrays of their own types, and no others."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from detailbase import ops as detailbase
from refer3d.native import load, operators
from refersplat import ops as refersplat
from refersplat.ops.adam import adam_step
from refersplat.ops.ssim import ssim
from tests.refersplat.splats import HEIGHT, WIDTH, camera, gaussians, splats


def refersplat_ops(rng) -> None:
    means, quats, scales, _, sh = (t.requires_grad_() for t in gaussians(rng, 9))
    projected = refersplat.project(means, quats, scales, camera())
    colors = refersplat.spherical_harmonics(means, sh, torch.zeros(3), 3)
    (projected.means2d.sum() + colors.sum()).backward()
    *geometry, values = splats(rng, 9, 3)
    values.requires_grad_()
    image, _ = refersplat.rasterize(*geometry, values, HEIGHT, WIDTH)
    blended = refersplat.blend_matrix(*geometry, HEIGHT, WIDTH).blend(values)
    (image + blended).sum().backward()
    refersplat.knn(means.detach(), means.detach(), 2)
    for padding in ("same", "valid"):
        ssim(image.detach().requires_grad_(), image.detach(), padding)
    adam_step(*(torch.rand(4, 3) for _ in range(4)), torch.rand(3), 1)


def detailbase_ops(rng) -> None:
    places = torch.randint(0, 5, (60, 3), generator=rng)
    voxels, _ = detailbase.voxelize(places, torch.zeros(60, dtype=torch.int64))
    kernel_map, _ = detailbase.submanifold_map(voxels), detailbase.strided_map(voxels)
    features = torch.randn(len(voxels), 4, generator=rng)
    weight = torch.randn(27, 4, 5, generator=rng, requires_grad=True)
    extras = {"bias": torch.zeros(5), "residual": torch.zeros(len(voxels), 5)}
    detailbase.sparse_conv(features, weight, kernel_map, **extras).sum().backward()
    for reduce in ("sum", "max"):
        detailbase.segment_reduce(features, voxels[:, 3], 5, reduce)
    points = torch.rand(30, 3, generator=rng)
    detailbase.cloud_superpoints(points)
    detailbase.mesh_superpoints(points, torch.arange(30).view(10, 3))
    edges = torch.arange(30).view(15, 2)
    detailbase.graph_superpoints(points, torch.rand(30, 3, generator=rng), edges)


@pytest.mark.parametrize(
    ("package", "run", "others"),
    [
        ("refersplat", refersplat_ops, set()),
        ("detailbase", detailbase_ops, {"has_bfloat16", "sparse_conv_bfloat16"}),
    ],
)
def test_no_array_is_converted(rng, monkeypatch, package, run, others):
    """A converted output would be a copy, and the result lost."""
    native, calls = load(package), {}
    others &= set(dir(native))  # not every processor multiplies bfloat16

    def recorded(name):
        def call(*arguments):
            calls[name] = arguments
            return getattr(native, name)(*arguments)

        return call

    names = {name for name in dir(native) if not name.startswith("__")} - others
    spies = {name: recorded(name) for name in names} | {n: getattr(native, n) for n in others}
    monkeypatch.setattr(operators, "cpu_ops", lambda *_: SimpleNamespace(**spies))
    run(rng)
    assert calls.keys() == names
    for name, arguments in calls.items():
        places = [i for i, given in enumerate(arguments) if isinstance(given, np.ndarray)]
        assert places, name
        for place in places:
            array = arguments[place]
            other = np.int16 if array.dtype.kind == "i" else np.float16  # NumPy casts them silently
            wrong = (*arguments[:place], array.astype(other), *arguments[place + 1 :])
            with pytest.raises(TypeError):
                getattr(native, name)(*wrong)
            wide = np.repeat(array, 2, axis=-1)[..., ::2] if array.size else None
            if wide is not None and not wide.flags.c_contiguous and name != "sparse_conv":
                wrong = (*arguments[:place], wide, *arguments[place + 1 :])
                with pytest.raises(TypeError):
                    getattr(native, name)(*wrong)
