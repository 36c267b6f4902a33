"""refersplat export: what a sentence means, for viewers and annotation tools."""

import json

import numpy as np
import pytest
from PIL import Image

from refer3d.runs.errors import InputError
from refersplat.__main__ import main
from refersplat.export.coco import annotation, encode_mask
from refersplat.inference.trained_scene import TrainedScene
from refersplat.splats.checkpoints import load_gaussians
from tests.errors import raises

SENTENCE = "the green melon"


@pytest.fixture(scope="module")
def scene(trained):
    return TrainedScene.load(trained, "cpu")


def test_selected_gaussians_are_kept_or_removed(trained, scene, tmp_path):
    paths = {}
    for selection in ("keep", "remove"):
        paths[selection] = tmp_path / f"{selection}.ply"
        main(["export", "-m", str(trained), "--sentence", SENTENCE, "--selection", selection,
              "-o", str(paths[selection])])  # fmt: skip
    kept, removed = (load_gaussians(path) for path in paths.values())
    (selected,) = scene.select(scene.respond([SENTENCE]))
    assert 0 < kept.count == int(selected.sum())
    assert kept.count + removed.count == scene.gaussians.count
    np.testing.assert_array_equal(kept.means, scene.gaussians.means[selected])


def test_all_gaussians_and_files_are_converted(trained, tmp_path):
    main(["export", "-m", str(trained), "-o", str(tmp_path / "all.splat")])
    main(["export", "-m", str(tmp_path / "all.splat"), "-o", str(tmp_path / "all.glb")])
    assert (tmp_path / "all.glb").read_bytes()[:4] == b"glTF"


def test_masks_are_read_by_pycocotools(trained, scene, tmp_path, caplog):
    caplog.set_level("INFO")
    coco = pytest.importorskip("pycocotools.coco")
    name = sorted(scene.cameras)[0]
    sentences = [SENTENCE, "a big ball in the middle", "none of the balls"]
    main(["export", "-m", str(trained), "--sentence", *sentences, "--views", name,
          "-o", str(tmp_path / "masks.json")])  # fmt: skip
    dataset = coco.COCO(tmp_path / "masks.json")
    assert [category["name"] for category in dataset.loadCats(dataset.getCatIds())] == sentences
    assert not dataset.getAnnIds(catIds=[3])
    assert "none of the balls: a mask in 0 of 1 views" in caplog.text
    for number, sentence in enumerate(sentences[:2], 1):
        (entry,) = dataset.loadAnns(dataset.getAnnIds(catIds=[number]))
        mask = dataset.annToMask(entry).astype(bool)
        np.testing.assert_array_equal(mask, scene.mask(sentence, scene.cameras[name]))
        assert 0 < entry["area"] == mask.sum()
    (image,) = json.loads((tmp_path / "masks.json").read_text())["images"]
    assert image["file_name"] == f"{name}.png"


def test_masks_are_written_as_png(trained, scene, tmp_path):
    name = sorted(scene.cameras)[0]
    main(["export", "-m", str(trained), "--sentence", SENTENCE, "--views", name, "--amodal",
          "-o", str(tmp_path / "masks")])  # fmt: skip
    with Image.open(tmp_path / "masks" / f"{name}_01.png") as mask:
        expected = scene.mask(SENTENCE, scene.cameras[name], amodal=True).numpy()
        np.testing.assert_array_equal(np.asarray(mask), 255 * expected.astype(np.uint8))
    assert SENTENCE in (tmp_path / "masks" / "sentences.txt").read_text()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["-o", "a.ply"], ["-m"]),
        (["-m", "RUN"], ["-o"]),
        (["-m", "RUN", "-o", "a.obj"], ["-o", ".glb", ".json"]),
        (["-m", "RUN", "-o", "a.sog"], ["-o", "a.ply", "splat-transform"]),
        (["-m", "RUN", "-o", "a.json"], ["--sentence"]),
        (["-m", "RUN", "-o", "a.ply", "--sentence", " "], ["--sentence"]),
        (
            ["-m", "RUN", "-o", "a.ply", "--sentence", "the green melon", "--view", "none"],
            ["--view"],
        ),
        (["-m", "RUN", "-o", "a.json", "--sentence", "a ball", "--views", "none"], ["--views"]),
        (["-m", "RUN/nowhere", "-o", "a.ply"], ["nowhere"]),
    ],
)
def test_mistakes_are_named(trained, tmp_path, monkeypatch, options, words):
    monkeypatch.chdir(tmp_path)
    with raises(InputError, *words):
        main(["export", *(option.replace("RUN", str(trained)) for option in options)])
    assert not list(tmp_path.iterdir())


def test_a_file_has_no_language(trained, tmp_path):
    main(["export", "-m", str(trained), "-o", str(tmp_path / "a.splat")])
    with raises(InputError, "--sentence", "a.splat"):
        main(["export", "-m", str(tmp_path / "a.splat"), "--sentence", "a", "-o", "b.ply"])


@pytest.mark.parametrize(
    ("mask", "counts"),
    [
        ([[0, 0], [0, 0]], [4]),
        ([[1, 1], [1, 1]], [0, 4]),
        ([[0, 1], [1, 1], [0, 0]], [1, 1, 1, 2, 1]),
    ],
)
def test_run_lengths_go_down_columns(mask, counts):
    mask = np.array(mask, bool)
    assert encode_mask(mask) == {"size": list(mask.shape), "counts": counts}


def test_box_and_area():
    mask = np.zeros((6, 8), bool)
    mask[2:4, 3:7] = True
    entry = annotation(1, 2, 3, mask)
    assert (entry["bbox"], entry["area"]) == ([3, 2, 4, 2], 8)
    assert annotation(1, 2, 3, ~mask & mask)["bbox"] == [0, 0, 0, 0]
