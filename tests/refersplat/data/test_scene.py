"""Views of a scene: sizes, lazy images, memory."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from refer3d.runs.errors import InputError
from refersplat.config import DataConfig
from refersplat.data import images, load_ahead, load_scene
from refersplat.data.images import PixelCache, decode, decode_mask


def load(small, **options):
    return load_scene(DataConfig(scene=str(small.path), **options))


@pytest.mark.parametrize(
    ("size", "resolution", "expected"),
    [
        ((40, 30), -1, (40, 30)),
        ((40, 30), 1, (40, 30)),
        ((40, 30), 2, (20, 15)),
        ((33, 27), 2, (16, 14)),
        ((33, 27), 3, (11, 9)),
        ((64, 80), 8, (8, 10)),
        ((40, 30), 32, (32, 24)),
        ((40, 30), 400, (40, 30)),
        ((2001, 301), -1, (1600, 241)),
    ],
)
def test_size_of_images(make_scene, size, resolution, expected):
    small = make_scene(
        num_views=1, width=size[0], height=size[1], params=(50, 48, size[0] / 2, size[1] / 2)
    )
    view = load(small.write(), resolution=resolution).views[0]
    width, height = expected
    camera = view.camera
    assert (camera.width, camera.height) == expected
    assert view.image().shape == (3, height, width)
    assert view.objects[0].mask().shape == (height, width)
    assert camera.fx == pytest.approx(50 * width / size[0])
    assert camera.cy == pytest.approx(height / 2)


def test_smaller_images_are_means_and_masks_majorities(small_scene):
    full = load(small_scene).views[1]
    half = load(small_scene, resolution=2).views[1]
    means = full.image().reshape(3, 15, 2, 20, 2).mean(dim=(2, 4))
    assert_close(half.image(), means, rtol=0, atol=0.5 / 255 + 1e-6)
    assert_close(half.objects[0].mask(), full.objects[0].mask()[::2, ::2])
    assert half.objects[0].mask().sum() == 15 * 10


def test_image_is_the_file(small_scene):
    view = load(small_scene).views[2]
    pixels = np.array(Image.open(view.path)).transpose(2, 0, 1)
    assert_close(view.image(), torch.from_numpy(pixels) / 255)
    assert view.image().is_contiguous()
    view.image().zero_()  # a caller's copy: the cached pixels stay
    assert view.image().max() > 0


def test_nothing_is_decoded_before_it_is_needed(small_scene, monkeypatch):
    decoded = []
    monkeypatch.setattr("refersplat.data.views.decode", lambda p: decoded.append(p) or decode(p))
    scene = load(small_scene)
    assert decoded == []
    scene.views[0].image()
    scene.views[0].image()
    assert decoded == [scene.views[0].path]


@pytest.mark.parametrize(("fits", "num_decoded"), [(4, 4), (3, 8), (0, 8)])
def test_cache_keeps_to_its_budget(small_scene, monkeypatch, fits, num_decoded):
    decoded = []
    monkeypatch.setattr("refersplat.data.views.decode", lambda p: decoded.append(p) or decode(p))
    scene = load(small_scene, image_cache_gb=(fits * 3600 + 1) / 2**30)
    for view in scene.views * 2:
        view.image()
    assert len(decoded) == num_decoded
    assert scene.views[0]._cache.used == fits * 3600


def test_cache_drops_what_was_used_longest_ago():
    cache = PixelCache(20)
    loaded = []

    def get(key):
        cache.get(key, lambda: loaded.append(key) or np.zeros(10, dtype=np.uint8))

    for key in "abacab":
        get(key)
    assert "".join(loaded) == "abcb"


def test_threads_load_a_key_once():
    cache, gate, loads = PixelCache(100), threading.Event(), []

    def load_slowly():
        loads.append(1)
        gate.wait(5)
        return np.ones(3)

    results = []
    threads = [
        threading.Thread(target=lambda: results.append(cache.get("key", load_slowly)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    gate.set()
    for thread in threads:
        thread.join()
    assert len(loads) == 1
    assert all(result is results[0] for result in results)


def test_failed_load_is_tried_again():
    cache = PixelCache(100)
    with pytest.raises(ZeroDivisionError):
        cache.get("key", lambda: 1 / 0)
    assert cache.get("key", lambda: np.ones(2)).sum() == 2


def test_load_ahead_keeps_the_order(small_scene):
    scene = load(small_scene, image_cache_gb=0)
    order = [scene.views[index] for index in (3, 0, 2, 2, 1, 0, 3, 1)]
    ahead = list(load_ahead(order))
    assert [view for view, _ in ahead] == order
    for view, image in ahead:
        assert torch.equal(image, view.image())
    assert list(load_ahead([])) == []


def test_extent_is_inrias(small_scene):
    scene = load(small_scene)
    centres = np.stack([np.linalg.inv(pose)[:3, 3] for pose in small_scene.poses])
    distances = np.linalg.norm(centres - centres.mean(axis=0), axis=1)
    assert scene.extent == pytest.approx(1.1 * distances.max(), rel=1e-6)
    single = load(small_scene, eval=True, test_views=("1", "2", "3"))
    assert single.extent == 1.0
    assert any("have one position" in warning for warning in single.warnings)


@pytest.mark.parametrize("mode", ["L", "P", "1", "RGB", "RGBA", "0/1", "I;16"])
def test_masks_of_any_kind(tmp_path, mode):
    wanted = np.zeros((6, 9), dtype=bool)
    wanted[2:4, 3:7] = True
    image = Image.fromarray(wanted.astype(np.uint8) * (1 if mode in ("0/1", "P") else 255))
    if mode == "P":
        image.putpalette([0, 0, 0, 128, 0, 0])
    elif mode == "I;16":
        image = Image.fromarray(wanted.astype(np.uint16) * 65535)
    elif mode != "0/1":
        image = image.convert(mode)
    image.save(tmp_path / "mask.png")
    np.testing.assert_array_equal(decode_mask(tmp_path / "mask.png"), wanted)


@pytest.mark.parametrize("color", [(255, 255, 255), (0, 0, 0), (200, 30, 30)])
def test_a_mask_drawn_on_nothing(tmp_path, color):
    wanted = np.zeros((6, 9), dtype=bool)
    wanted[2:4, 3:7] = True
    pixels = np.zeros((6, 9, 4), dtype=np.uint8)
    pixels[wanted] = (*color, 255)
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    np.testing.assert_array_equal(decode_mask(tmp_path / "mask.png"), wanted)


def test_a_mask_of_faint_pixels_is_refused(tmp_path):
    """They may be noise of an empty mask, or numbers of objects."""
    Image.fromarray(np.array([[0, 3], [0, 0]], dtype=np.uint8)).save(tmp_path / "mask.png")
    with pytest.raises(InputError, match=r"mask\.png: .*got 3 .*; save it"):
        decode_mask(tmp_path / "mask.png")


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "LA", "I;16"])
def test_images_of_any_kind(tmp_path, mode):
    gray = np.tile(np.arange(0, 250, 10, dtype=np.uint8), (4, 1))
    if mode == "I;16":
        image = Image.fromarray(gray.astype(np.uint16) * 257)
    else:
        image = Image.fromarray(gray).convert(mode)
    path = tmp_path / ("image.tif" if mode == "CMYK" else "image.png")
    image.save(path)
    pixels = decode(path)
    assert pixels.shape == (4, 25, 3)
    np.testing.assert_array_equal(pixels[..., 1], gray)


def test_only_doubtful_files_are_decoded_to_learn_their_size(small_scene, monkeypatch):
    path = small_scene.path / "images" / small_scene.names[0]
    monkeypatch.setattr(Image.Image, "load", lambda image: pytest.fail("decoded"))
    assert images.read_size(path) == (40, 30)
