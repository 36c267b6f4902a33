"""Photos and frames on their way to COLMAP: upright, of one size, with the lens of each."""

import json

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image

from refer3d.runs.errors import InputError
from refersplat.photos.collect import collect_photos, read_collection, sharpness
from refersplat.photos.video import collect_frames
from tests.errors import raises

ORIENTATION, FILM, MODEL = (ExifTags.Base.Orientation, ExifTags.Base.FocalLengthIn35mmFilm,
                            ExifTags.Base.Model)  # fmt: skip


def picture(width=160, height=120, seed=0):
    """Smooth colours: what JPEG changes is small."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC))


def save(image, path, **tags):
    exif = Image.Exif()
    for name, value in tags.items():
        exif[getattr(ExifTags.Base, name)] = value
    image.save(path, exif=exif, quality=95)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_are_turned_upright(tmp_path, orientation):
    upright = picture()
    undo = {1: (), 2: (0,), 3: (3,), 4: (1,), 5: (5,), 6: (2,), 7: (6,), 8: (4,)}[orientation]
    stored = upright
    for turn in undo:
        stored = stored.transpose(Image.Transpose(turn))
    (tmp_path / "in").mkdir()
    save(stored, tmp_path / "in" / "a.jpg", Orientation=orientation)
    (photo,) = collect_photos(tmp_path / "in", tmp_path / "out", 0).photos
    assert (photo.width, photo.height) == upright.size
    with Image.open(tmp_path / "out" / photo.name) as copy:
        assert copy.getexif().get(ORIENTATION, 1) == 1
        difference = np.abs(np.asarray(copy, float) - np.asarray(upright, float))
    assert difference.mean() < 3  # JPEG twice; a wrong turn gives more than 30


def test_each_lens_has_its_camera_and_exif_its_focal_length(tmp_path):
    (tmp_path / "in" / "b").mkdir(parents=True)
    for index in range(2):
        save(picture(seed=index), tmp_path / "in" / f"{index}.jpg", Model="P1",
             FocalLengthIn35mmFilm=27)  # fmt: skip
    save(picture(seed=2), tmp_path / "in" / "wide.jpg", Model="P1", FocalLengthIn35mmFilm=13)
    save(picture(120, 160, 3), tmp_path / "in" / "b" / "portrait.jpg", Model="P1",
         FocalLengthIn35mmFilm=27)  # fmt: skip
    picture(seed=4).save(tmp_path / "in" / "plain.png")
    photos = collect_photos(tmp_path / "in", tmp_path / "out", 0).photos
    by_name = {photo.name: photo for photo in photos}
    assert by_name["0.jpg"].lens == by_name["1.jpg"].lens
    assert len({photo.lens for photo in photos}) == 4
    assert by_name["0.jpg"].focal == pytest.approx(27 / 36 * 160)
    assert by_name["plain.png"].focal == 0
    assert "b_portrait.jpg" in by_name


def test_large_photos_become_smaller_others_are_copied(tmp_path):
    (tmp_path / "in").mkdir()
    save(picture(800, 600), tmp_path / "in" / "large.jpg", FocalLengthIn35mmFilm=36)
    save(picture(), tmp_path / "in" / "small.jpg")
    large, small = collect_photos(tmp_path / "in", tmp_path / "out", 400).photos
    assert (large.width, large.height, large.focal) == (400, 300, pytest.approx(400))
    copy = (tmp_path / "out" / small.name).read_bytes()
    assert copy == (tmp_path / "in" / "small.jpg").read_bytes()


def test_files_that_are_no_photos_are_named(tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    save(picture(), source / "a b.jpg")
    save(picture(seed=1), source / "a_b.jpg")
    (source / "again.jpg").write_bytes((source / "a_b.jpg").read_bytes())
    (source / "cut.jpg").write_bytes((source / "a_b.jpg").read_bytes()[:700])
    (source / "raw.DNG").write_bytes(b"raw")
    Image.new("RGBA", (90, 90), (9, 9, 9, 99)).save(source / "alpha.png")
    Image.fromarray(np.full((90, 90), 30_000, np.uint16)).save(source / "deep.tif")
    result = collect_photos(source, tmp_path / "out", 0)
    names = {photo.source: photo.name for photo in result.photos}
    assert names == {"a b.jpg": "a_b.jpg", "a_b.jpg": "a_b_2.jpg", "alpha.png": "alpha.png",
                     "deep.tif": "deep.jpg"}  # fmt: skip
    assert result.left_out.keys() == {"again.jpg", "cut.jpg", "raw.DNG"}
    assert "a_b.jpg" in result.left_out["again.jpg"]
    assert "JPEG" in result.left_out["raw.DNG"]


def test_heic_is_read_or_its_reader_named(tmp_path, monkeypatch):
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    (tmp_path / "in").mkdir()
    picture().save(tmp_path / "in" / "IMG_1.HEIC")
    (photo,) = collect_photos(tmp_path / "in", tmp_path / "out", 0).photos
    assert (photo.name, photo.width) == ("IMG_1.jpg", 160)
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)
    with pytest.raises(ValueError, match=r"IMG_1.HEIC.*refer3d\[photos\]"):
        collect_photos(tmp_path / "in", tmp_path / "out", 0)


def film(path, frames):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10, (160, 120))
    for frame in frames:
        writer.write(frame[..., ::-1])
    writer.release()
    return path


def moving(number):
    """A view that moves over a large picture."""
    wide = np.asarray(picture(160 + 8 * number, 120))
    grain = np.random.default_rng(3).integers(0, 60, wide.shape[:2])[..., None]
    wide = np.clip(wide.astype(int) + grain, 0, 255).astype(np.uint8)
    return [np.ascontiguousarray(wide[:, 8 * i : 8 * i + 160]) for i in range(number)]


def test_sharp_frames_are_taken_from_a_video(tmp_path):
    frames = moving(24)
    sharp = (2, 6, 13, 16, 20)
    blurred = [f if i in sharp else cv2.GaussianBlur(f, (0, 0), 3) for i, f in enumerate(frames)]
    video = film(tmp_path / "a.mp4", blurred)
    result = collect_frames(video, tmp_path / "out", 5, 0)
    assert [photo.name for photo in result.photos] == [f"frame_{i + 1:05}.jpg" for i in sharp]
    assert len({photo.lens for photo in result.photos}) == 1


def test_frames_of_a_still_camera_are_left_out(tmp_path):
    frames = moving(8)
    video = film(tmp_path / "a.mp4", frames[:4] + [frames[3]] * 12 + frames[4:])
    result = collect_frames(video, tmp_path / "out", 20, 0)
    assert len(result.photos) == 8
    assert len(result.left_out) == 12


def test_sharpness_falls_with_blur_not_with_size():
    sharp = moving(1)[0]
    assert sharpness(cv2.GaussianBlur(sharp, (0, 0), 2)) < 0.2 * sharpness(sharp)
    large = cv2.resize(sharp, (2560, 1920), interpolation=cv2.INTER_CUBIC)
    medium = cv2.resize(sharp, (1280, 960), interpolation=cv2.INTER_CUBIC)
    assert sharpness(large) == pytest.approx(sharpness(medium), rel=0.1)


PHOTO = {"name": "a b.jpg", "source": "x/a b.jpg", "width": 4, "height": 3, "lens": "", "focal": 0,
         "sharpness": 2.5}  # fmt: skip


def test_the_list_of_copies_comes_back(tmp_path):
    path = tmp_path / "photos.json"
    path.write_text(json.dumps({"photos": [PHOTO], "left_out": {"c": "cut"}}))
    collection = read_collection(path)
    assert vars(collection.photos[0]) == PHOTO
    assert collection.left_out == {"c": "cut"}


@pytest.mark.parametrize(
    ("photo", "names"),
    [
        ({}, ("photos", "name")),
        ({**PHOTO, "width": 0}, ("width", "from 1")),
        ({**PHOTO, "name": "../evil.jpg"}, ("names of copies", "'../evil.jpg'")),
        ({**PHOTO, "name": ".."}, ("names of copies",)),
    ],
)
def test_a_damaged_list_of_copies_is_refused(tmp_path, photo, names):
    path = tmp_path / "photos.json"
    path.write_text(json.dumps({"photos": [photo], "left_out": {}}))
    with raises(InputError, path, "delete it", *names):
        read_collection(path)
