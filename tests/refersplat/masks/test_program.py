"""refersplat masks: whole runs, what a second call does, and what it says of wrong input."""

import errno
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from refer3d.runs.errors import InputError
from refersplat.data.images import decode_mask
from refersplat.data.names import ViewNames
from refersplat.data.ref_lerf import read
from refersplat.masks import program
from refersplat.masks.choose import Candidate
from refersplat.masks.options import MasksConfig, read_options
from tests.errors import raises

VIEWS = ("a_0", "a_1", "a_2")
SENTENCES = {"ball": ["the ball", "a round thing"], "wall": ["the wall"], "dog": ["a dog"]}


@pytest.fixture
def config(scene, tmp_path):
    path = tmp_path / "sentences.json"
    path.write_text(json.dumps(SENTENCES))
    return MasksConfig(str(scene), str(path), device="cpu")


class Planted:
    """Models that find the bright ball, for "round" beside a part; the rest as the wall; no dog."""

    def __init__(self):
        self.asked = []

    def __call__(self, photo):
        ball = photo.max(axis=2) > 120
        part = ball & (np.arange(ball.shape[1]) % 3 > 0)

        def find(sentence):
            self.asked.append(sentence)
            if "dog" in sentence:
                return []
            if "wall" in sentence:
                return [Candidate(~ball, 0.5)]
            parts = [Candidate(part, 0.9), Candidate(np.roll(ball, 9, axis=0), 0.8)]
            return [Candidate(ball, 0.6), *(parts if "round" in sentence else [])]

        return find


@pytest.fixture
def models(monkeypatch):
    planted = Planted()
    monkeypatch.setattr(program, "load_models", lambda config: planted)
    return planted


def annotations(scene):
    warnings = []
    names = ViewNames(VIEWS, [f"{view}.png" for view in VIEWS])
    found = read(scene, names, test=set(), masks="gt_mask", warnings=warnings)
    assert not warnings
    return found


def files(scene):
    return {
        path.relative_to(scene).as_posix(): path.read_bytes()
        for folder in ("json", "gt_mask", "masking")
        for path in sorted((scene / folder).rglob("*"))
        if path.is_file()
    }


def test_writes_what_ref_lerf_reads(config, scene, models):
    report = program.make_masks(config)
    found = annotations(scene)
    assert {*found} == {*VIEWS}
    for view, of_view in found.items():
        assert [item.category for item in of_view] == ["ball", "wall"]
        assert of_view[0].sentences == tuple(SENTENCES["ball"])
        photo = np.array(Image.open(scene / f"images/{view}.png"))
        # Both sentences found the ball; the surer part and the shifted copy have fewer votes.
        np.testing.assert_array_equal(of_view[0].mask.read(), photo.max(axis=2) > 120)
    assert [(item.name, item.photos) for item in report.objects] == [
        ("ball", 3), ("wall", 3), ("dog", 0),
    ]  # fmt: skip
    assert report.objects[2].absent == [*VIEWS]
    assert report.objects[2].silent == ["a dog"]
    assert not report.objects[0].silent
    assert json.loads((scene / "masking/report.json").read_text())["photos"] == 3
    assert "a dog" in (scene / "masking/report.txt").read_text()
    with Image.open(scene / "masking/sheet_01.jpg") as sheet:
        assert sheet.width > 1000


def test_sentences_without_objects(config, scene, models, tmp_path):
    path = tmp_path / "sentences.txt"
    path.write_text("the ball\nthe wall\n")
    program.make_masks(replace(config, sentences=str(path)))
    for of_view in annotations(scene).values():
        assert [item.category for item in of_view] == [None, None]
        assert [item.sentences for item in of_view] == [("the ball",), ("the wall",)]


def test_a_stopped_run_does_what_is_missing(config, scene, models, monkeypatch, tmp_path):
    write = program.PhotoRecord.write

    def stop_at_second(record, path):
        if path.stem == "a_1":
            raise KeyboardInterrupt
        write(record, path)

    monkeypatch.setattr(program.PhotoRecord, "write", stop_at_second)
    with pytest.raises(KeyboardInterrupt):
        program.make_masks(config)
    assert [path.name for path in (scene / "json").iterdir()] == ["a_0.json"]
    monkeypatch.setattr(program.PhotoRecord, "write", write)
    (scene / "gt_mask" / ".b.png.0123abcd.tmp").write_bytes(b"cut")
    models.asked.clear()
    program.make_masks(config)
    assert len(models.asked) == 2 * 4
    resumed = files(scene)
    for folder in ("json", "gt_mask", "masking"):
        (scene / folder).rename(tmp_path / folder)
    program.make_masks(config)
    assert files(scene) == resumed
    models.asked.clear()
    program.make_masks(config)
    assert not models.asked
    assert files(scene) == resumed


def test_changed_sentences_are_masked_again_and_no_others(config, scene, models):
    program.make_masks(config)
    (scene / "gt_mask/ball_a_1.png").write_bytes((scene / "gt_mask/wall_a_1.png").read_bytes())
    before = files(scene)
    changed = {"ball": SENTENCES["ball"], "wall": ["a round wall"], "cat": ["the cat's ball"]}
    (scene.parent / "sentences.json").write_text(json.dumps(changed))
    models.asked.clear()
    report = program.make_masks(config)
    assert {*models.asked} == {"a round wall", "the cat's ball"}
    after = files(scene)
    kept = "gt_mask/ball_a_1.png"  # mended by hand
    assert after[kept] == before[kept]
    assert [item.category for item in annotations(scene)["a_0"]] == ["ball", "wall", "cat"]
    # In a_1 the mask that was mended by hand is the wall's.
    assert {(one, other): count for one, other, count in report.same} == {
        ("ball", "cat"): 2, ("ball", "wall"): 1,
    }  # fmt: skip
    (scene.parent / "sentences.json").write_text(json.dumps({"ball": SENTENCES["ball"]}))
    models.asked.clear()
    program.make_masks(config)
    assert not models.asked
    assert {path.name for path in (scene / "gt_mask").iterdir()} == {
        f"ball_{view}.png" for view in VIEWS
    }


def test_other_options_are_refused(config, scene, models):
    program.make_masks(config)
    before = files(scene)
    with raises(InputError, "--box_threshold", "0.3", "0.5", "delete"):
        program.make_masks(replace(config, box_threshold=0.5))
    assert files(scene) == before


def test_some_views_at_a_time(config, scene, models):
    program.make_masks(replace(config, views=("1",)))
    assert [path.name for path in (scene / "json").iterdir()] == ["a_1.json"]
    report = program.make_masks(replace(config, views=("a_0",)))
    assert report.photos == 2
    with raises(InputError, "--views", "b_7"):
        program.make_masks(replace(config, views=("b_7",)))


def test_foreign_masks_are_never_overwritten(config, scene, models):
    for name in ("json", "gt_mask"):
        (scene / name).mkdir()
        (scene / name / "a_0.json").write_text("{}")
        with raises(InputError, scene / name, "move it away"):
            program.make_masks(config)
        (scene / name / "a_0.json").unlink()
    assert not models.asked


@pytest.mark.parametrize("segmenter", ["sam", "sam2", "sam3"])
def test_tiny_models_mask_a_scene(request, config, scene, grounding_dino, segmenter):
    folder = request.getfixturevalue(segmenter)
    config = replace(
        config, detector=str(grounding_dino), segmenter=str(folder), box_threshold=0.01,
        text_threshold=0.01, candidates=4,
    )  # fmt: skip
    report = program.make_masks(config)
    found = annotations(scene)
    masks = [item.mask.read() for of_view in found.values() for item in of_view]
    assert len(masks) == sum(item.photos for item in report.objects) > 0
    assert all(mask.shape == (45, 60) and mask.any() for mask in masks)
    for path in scene.glob("gt_mask/*.png"):
        assert decode_mask(path).any()


def test_a_photo_that_cannot_be_read_is_told_first(config, scene, models):
    path = scene / "images" / "a_2.png"
    path.write_bytes(path.read_bytes()[:200])
    with raises(InputError, path, "copy or export it again"):
        program.make_masks(config)
    assert not models.asked
    assert not (scene / "masking").exists()


def test_scenes_without_photos(config, scene, models, tmp_path):
    with raises(InputError, tmp_path / "none", "no such folder"):
        program.make_masks(replace(config, scene=str(tmp_path / "none")))
    with raises(InputError, scene / "pictures", "--images"):
        program.make_masks(replace(config, images="pictures"))


def test_a_full_disk_names_the_file_and_leaves_none(config, scene, models, monkeypatch):
    def save(self, stream, **options):
        stream.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", save)
        with pytest.raises(OSError) as error:  # noqa: PT011, runs.errors.run prints it as one line
            program.make_masks(config)
    assert error.value.filename == str(scene / "gt_mask" / "ball_a_0.png")
    assert not [path for path in scene.rglob("*") if "ball" in path.name]
    program.make_masks(config)
    assert len(annotations(scene)) == 3


def test_a_damaged_record_names_the_file(config, scene, models):
    program.make_masks(config)
    path = scene / "json" / "a_1.json"
    path.write_text('{"object": [{"sentence": ["the ball"]}], "absent": [], "same": []}')
    with raises(InputError, path, "segmentation", "delete it"):
        program.make_masks(config)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], ["refersplat masks", "SCENE"]),
        (["scene"], ["--sentences", "FILE"]),
        (["scene", "--sentences", "s.txt", "--box_threshold", "2"], ["--box_threshold", "2"]),
        (["scene", "--sentences", "s.txt", "--candidates", "0"], ["--candidates", "0"]),
    ],
)
def test_wrong_options(argv, words):
    with raises(InputError, *words):
        read_options(argv)
