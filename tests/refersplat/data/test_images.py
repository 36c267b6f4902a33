"""Images, masks and file names as cameras, tools and systems write them."""

from __future__ import annotations

import os
import unicodedata

import numpy as np
import pytest
from PIL import Image

from refer3d.runs.errors import InputError
from refersplat.config import DataConfig
from refersplat.data import load_scene
from refersplat.data.images import ImageFolder, decode, decode_mask, list_files
from refersplat.data.names import ViewNames
from tests.errors import raises

MASK = np.zeros((8, 12), dtype=bool)
MASK[2:5, 3:9] = True
WHITE = MASK.astype(np.uint8) * 255
GRAY = np.tile(np.arange(0, 250, 10, dtype=np.uint8), (4, 1))
GRAY[0, 0] = 255


def palette(colors):
    """Indices 0 and 1, the object's, with these colours."""
    image = Image.fromarray(MASK.astype(np.uint8)).convert("P")
    image.putpalette(sum(colors, ()))
    return image


MASKS = {
    "quantized.png": Image.fromarray(WHITE).quantize(2),
    "adaptive.png": Image.fromarray(WHITE).convert("RGB").quantize(2, method=0),
    "white first.png": palette([(0, 0, 0), (255, 255, 255)]),
    "nearly black.png": palette([(3, 2, 4), (250, 255, 251)]),
    "voc.png": palette([(0, 0, 0), (128, 0, 0)]),
    "dark label.png": palette([(0, 0, 0), (0, 32, 0)]),
    "cmyk.tif": Image.fromarray(WHITE).convert("RGB").convert("CMYK"),
    "cmyk.jpg": Image.fromarray(WHITE).convert("RGB").convert("CMYK"),
    "ycbcr.tif": Image.fromarray(WHITE).convert("RGB").convert("YCbCr"),
    "bits.png": Image.fromarray(MASK),
    "rgb of 0 and 1.png": Image.fromarray(np.repeat(MASK.astype(np.uint8)[..., None], 3, 2)),
    "float.tif": Image.fromarray(MASK.astype(np.float32)),
    "float of bytes.tif": Image.fromarray(WHITE.astype(np.float32)),
    "int of 0 and 1.tif": Image.fromarray(MASK.astype(np.int32)),
    "int.tif": Image.fromarray(WHITE.astype(np.int32)),
    "16 bits of 0 and 1.png": Image.fromarray(MASK.astype(np.uint16)),
    "16 bits of 0 and 255.png": Image.fromarray(WHITE.astype(np.uint16)),
    "white on nothing.png": Image.merge("LA", [Image.fromarray(WHITE)] * 2),
    "with hidden white.png": Image.merge(
        "LA",
        [Image.fromarray(np.where(MASK | (np.arange(12) > 9), 255, 9).astype(np.uint8)),
         Image.fromarray(np.where(np.arange(12) > 9, 0, 255).astype(np.uint8)[None].repeat(8, 0))],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MASKS)
def test_masks_mean_what_a_viewer_shows(tmp_path, name):
    MASKS[name].save(tmp_path / name)
    np.testing.assert_array_equal(decode_mask(tmp_path / name), MASK)


def test_inverted_palettes_show_the_same(tmp_path):
    image = Image.fromarray((~MASK).astype(np.uint8)).convert("P")
    image.putpalette([255, 255, 255, 0, 0, 0])
    image.save(tmp_path / "a.png")
    np.testing.assert_array_equal(decode_mask(tmp_path / "a.png"), MASK)


def test_a_palette_without_black_is_refused(tmp_path):
    palette([(31, 119, 180), (255, 127, 14)]).save(tmp_path / "a.png")
    with raises(InputError, "a.png", "palette", "black and white"):
        decode_mask(tmp_path / "a.png")


IMAGES = {
    "16 bits.png": GRAY.astype(np.uint16) * 257,
    "16 bits.tif": GRAY.astype(np.uint16) * 257,
    "32 bits of bytes.tif": GRAY.astype(np.int32),
    "32 bits.tif": GRAY.astype(np.int32) * 257,
    "float.tif": GRAY.astype(np.float32) / 255,
    "float of bytes.tif": GRAY.astype(np.float32),
}


@pytest.mark.parametrize("name", IMAGES)
def test_gray_of_any_depth(tmp_path, name):
    Image.fromarray(IMAGES[name]).save(tmp_path / name)
    np.testing.assert_array_equal(decode(tmp_path / name), np.repeat(GRAY[..., None], 3, axis=2))


@pytest.mark.parametrize(
    "values",
    [
        GRAY.astype(np.uint16),  # 8 bits' numbers in 16: black, if they are what they say
        GRAY.astype(np.int32) - 1,
        GRAY.astype(np.int32) * 1000,
        GRAY.astype(np.float32) / 100,
        np.where(GRAY > 9, np.nan, 0).astype(np.float32),
    ],
)
def test_gray_on_no_scale_is_refused(tmp_path, values):
    Image.fromarray(values).save(tmp_path / "a.tif")
    with raises(InputError, "a.tif", "0 to 255", "save it with 8 bits"):
        decode(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("content", "name"),
    [(b"", "empty"), (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
     (b"<!DOCTYPE html>", "web page")],
)  # fmt: skip
def test_files_that_are_no_images_are_named(tmp_path, content, name):
    (tmp_path / "a.png").write_bytes(content)
    with raises(InputError, "a.png", "not an image", name):
        decode(tmp_path / "a.png")


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return ImageFolder(folder)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        (unicodedata.normalize("NFC", "é1.jpg"), unicodedata.normalize("NFD", "é1.jpg")),
        (unicodedata.normalize("NFD", "é1.jpg"), unicodedata.normalize("NFC", "é1.jpg")),
        (os.fsdecode("é1.jpg".encode("latin-1")), "é1.jpg"),
        ("cam0/a.JPG", r"cam0\a.jpg"),
        ("IMG_1.jpg", "img_1.png"),
        ("cam0/a.jpg", "/home/me/scene/images/cam0/a.jpg"),
        ("cam0/a.jpg", r"C:\scene\images\cam0\a.jpg"),
        ("a.jpg", r"D:\photos\a.jpg"),
        ("a.b.jpg", "a.b"),
    ],
)
def test_names_as_other_systems_write_them(tmp_path, file, name):
    folder = touch(tmp_path / "images", file)
    assert folder.find(name, "here") == tmp_path / "images" / file


def test_half_a_character_is_in_no_name(tmp_path):
    assert touch(tmp_path / "images", "a.png").matches("a\ud800.png") == []


def test_spelling_decides_where_case_does_not(tmp_path):
    folder = touch(tmp_path, "a.jpg", "A.jpg", "b.jpg", "b.png")
    assert (folder.find("A.jpg", "").name, folder.find("b.png", "").name) == ("A.jpg", "b.png")
    with raises(InputError, "here", "b.jpg and b.png", "suffix"):
        folder.find("b", "here")
    views = ViewNames(["a", "A", "É1"], ["a.jpg", "A.jpg", "É1.jpg"])
    names = ("a", "A", unicodedata.normalize("NFD", "é1.json"))
    assert [views.find(name) for name in names] == ["a", "A", "É1"]


def test_photos_of_another_kind_are_counted(tmp_path):
    with raises(InputError, "3 other files", "2 of them .heic", "convert"):
        touch(tmp_path, "a.heic", "b.heic", "c.mov").find("a", "here")


def test_links_to_folders_are_followed_but_not_in_circles(tmp_path):
    touch(tmp_path / "disk", "a.jpg", "._a.jpg", ".hidden/b.jpg")
    (tmp_path / "images").mkdir()
    (tmp_path / "images/cam0").symlink_to(tmp_path / "disk")
    (tmp_path / "images/cam1").symlink_to(tmp_path / "disk")
    (tmp_path / "disk/up").symlink_to(tmp_path / "images")
    assert list_files(tmp_path / "images") == ["cam0/a.jpg", "cam1/a.jpg"]


def test_linked_sentences_and_masks_are_read(small_scene):
    for folder in ("json", "gt_mask", "images"):
        (small_scene.path / folder).rename(small_scene.path / f"{folder}_on_a_disk")
    for link, target in (("json/train_json", "json"), ("gt_mask", "gt_mask"), ("images", "images")):
        (small_scene.path / link).parent.mkdir(exist_ok=True)
        (small_scene.path / link).symlink_to(small_scene.path / f"{target}_on_a_disk")
    scene = load_scene(DataConfig(scene=str(small_scene.path)))
    assert [len(view.objects) for view in scene.views] == [2] * 4
