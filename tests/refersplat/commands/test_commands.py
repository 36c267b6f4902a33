"""train.py, render.py and eval.py, from the photos to the scores."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

import refersplat
import refersplat.command
import refersplat.evaluate
import refersplat.pictures
import refersplat.train
from refer3d.runs.config import load_yaml, save_yaml
from refer3d.runs.errors import InputError
from refer3d.runs.folder import RESOLVED
from refer3d.runs.states import Finite, load_state, save_state
from refersplat.config import Config, DataConfig
from refersplat.data import load_scene
from refersplat.inference.trained_scene import Responses, TrainedScene
from refersplat.pictures import Meaning, Summary, digest, slug, summary_lines
from refersplat.referring.state import FORMAT, trained_views
from refersplat.rgb.fit import protocol
from refersplat.rgb.poses import Motions, save_poses
from refersplat.splats.gaussians import load_ply
from tests.errors import raises
from tests.pages import read_page

TEST_VIEWS = ["frame_00001", "frame_00009"]


@pytest.fixture
def run(trained, tmp_path):
    """A copy of the trained run."""
    return shutil.copytree(trained, tmp_path / "run")


def test_training_writes_all_files_that_the_other_programs_need(trained, balls):
    expected = {
        *("config.yaml", "timings.json", "rgb_state.pt", "referring_state.pt", "referring.pt"),
        *("chkpnt120.pth", "cameras.json", "cfg_args", "point_cloud"),
    }
    assert expected <= {path.name for path in trained.iterdir()}
    assert not list(trained.rglob("*.tmp"))
    config = load_yaml(trained / RESOLVED, Config)
    assert (config.data.scene, config.rgb.iterations) == (str(balls), 120)
    timings = json.loads((trained / "timings.json").read_text())
    assert all(timings[stage]["finished"] for stage in ("rgb", "referring"))


def test_evaluation_scores_every_sentence_in_every_test_view(run, capsys):
    refersplat.evaluate.main(["-m", str(run)])
    results = json.loads((run / "results.json").read_text())
    metrics = results["metrics"]
    assert metrics["mIoU"] > 0.3
    assert metrics["mIoU_training_sentences"] == pytest.approx(metrics["mIoU"])  # the same ones
    assert metrics["mIoU_amodal"] > 0.3
    assert metrics["mIoU_best_threshold"] >= max(metrics["mIoU"], metrics["mIoU_threshold_0.5"])
    assert metrics["psnr"] > 10
    assert {"acc@0.25", "acc@0.5", "lerf_mIoU", "ssim"} <= set(metrics)
    assert list(results["per_view"]) == TEST_VIEWS
    assert set(results["per_object"]) == {"apple", "melon", "plum"}
    assert len(results["per_sentence"]) == 6
    assert results["counts"]["cases"] == len(results["cases"]) == 12
    assert np.mean([c["IoU"] for c in results["cases"]]) == pytest.approx(metrics["mIoU"], abs=1e-4)
    for key in ("threshold", "encoder", "seed", "versions", "git_commit", "backend", "config"):
        assert key in results
    assert results["threshold_chosen_by"] == "best mean IoU on 2 held-out training views"
    assert set(results["stages"]) == {"rgb", "referring", "evaluate"}
    assert results["peak_memory_mib"] > 50
    assert Image.open(run / "report.png").width > 1000
    page = read_page(run / "report.html")
    scores, objects, samples, options = page.tables
    assert ["mIoU", f"{metrics['mIoU']:.3f}"] in scores
    assert [row[0] for row in objects] == ["object", "apple", "melon", "plum"]
    ious = [float(row[5]) for row in samples[1:]]
    assert len(ious) == page.pictures == 12
    assert ious == sorted(ious)  # the worst first
    assert ["config.text.encoder", "hash"] in options
    assert {"rgb/loss", "referring/bce"} <= {name.partition(":")[0] for name in page.curves}
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("apple", "mIoU", "LERF convention", "amodal"))


def test_no_view_is_scored_that_was_trained_on(run, balls, tmp_path, caplog):
    """The split of the scene's files changes after the training, at each of its ends."""
    scene = shutil.copytree(balls, tmp_path / "scene")
    (scene / "meta.json").write_text(json.dumps({"test_views": [9, 3, 4, 5, 6]}))
    argv = ["-m", str(run), "-s", str(scene)]
    words = (run, scene, "meta.json", "4", "frame_00003", "another folder")
    with raises(InputError, *words):
        refersplat.evaluate.main(argv)
    assert not (run / "results.json").exists()

    targets = {"frame_00003": ["plum"], "frame_00009": ["plum"]}
    questions = tmp_path / "questions.json"
    questions.write_text(json.dumps([{"sentence": "plum", "kind": "word", "targets": targets}]))
    refersplat.evaluate.main([*argv, "--questions", str(questions)])
    assert "1 of the 2 views of the questions were trained on" in caplog.text

    views = load_scene(DataConfig(str(scene), eval=True)).views
    assert len(trained_views(run, views)) == 10
    other = torch.eye(4)
    others = [replace(v, camera=replace(v.camera, world_to_camera=other)) for v in views]
    assert not trained_views(run, others)  # photos of the same names
    learned = load_state(run / "referring.pt", FORMAT, {...: Finite})
    del learned["training_views"]
    save_state(run / "referring.pt", {"format": FORMAT, **learned})
    assert len(trained_views(run, views)) == 10  # by those of the Gaussians
    gaussians = run / "rgb_state.pt"
    gaussians.rename(gaussians.with_suffix(".old"))
    assert not trained_views(run, views)  # nothing tells
    gaussians.with_suffix(".old").rename(gaussians)

    (run / "referring.pt").unlink()
    for program in (
        refersplat.evaluate.main,
        lambda argv: refersplat.train.main([*argv, "--resume"]),
    ):
        with raises(InputError, *words):  # by the views of the Gaussians
            program(argv)
    assert not (run / "referring.pt").exists()


def test_a_threshold_can_be_given(run):
    refersplat.evaluate.main(["-m", str(run), "--threshold", "1"])
    results = json.loads((run / "results.json").read_text())
    assert results["threshold_chosen_by"] == "given by --threshold"
    assert results["metrics"]["mIoU"] < 0.1


def test_pictures_of_the_test_views_are_named_by_view_object_and_sentence(run):
    refersplat.pictures.main(["-m", str(run)])
    folder = run / "renders" / "test"
    assert sorted(path.name for path in folder.iterdir()) == [*TEST_VIEWS, "report.html"]
    page = read_page(folder / "report.html")
    assert len(page.tables[0]) == 1 + 2 * 3 * 2
    assert page.pictures == 2 * 3 * 2
    assert "frame_00009 · plum" in page.tables[0][-1]
    stem = folder / "frame_00001" / "02_melon_01_the-green-melon"
    for kind, size in (("mask.png", (64, 48)), ("through.png", (64, 48)), ("heat.png", (64, 48))):
        assert Image.open(f"{stem}.{kind}").size == size
    mask, whole = (np.asarray(Image.open(f"{stem}.{kind}.png")) for kind in ("mask", "through"))
    assert set(np.unique(mask)) <= {0, 255}
    assert whole.sum() >= 0.9 * mask.sum()
    overlay = Image.open(f"{stem}.overlay.jpg")
    assert overlay.width >= 480
    assert overlay.height > overlay.width * 48 / 64  # the sentence stands below
    assert len(list((folder / "frame_00001").iterdir())) == 3 * 2 * 5


def test_any_sentence_is_drawn_in_any_view_and_overwrites_no_other(run):
    argv = ["-m", str(run), "--views", "3"]  # names or frame numbers
    refersplat.pictures.main([*argv, "--sentence", "the plum!", "the plum!"])
    for sentence in ("the plum!", "the plum?", "сливаと李"):
        refersplat.pictures.main([*argv, "--sentence", sentence])
    files = {path.name for path in (run / "renders/asked/views/frame_00003").glob("*.mask.png")}
    assert len(files) == 3
    assert f"the-plum_{digest('the plum!')}.mask.png" in files


def test_training_views_are_drawn_on_request(run):
    refersplat.pictures.main(["-m", str(run), "--split", "all", "--sentence", "the red apple"])
    assert len(list((run / "renders/asked/all").iterdir())) == 12 + 1


def test_an_orbit_becomes_a_video(run):
    argv = ["-m", str(run), "--orbit", "--render.frames", "3"]
    refersplat.pictures.main(argv)
    refersplat.pictures.main([*argv, "--sentence", "the red apple"])
    videos = sorted((run / "renders" / "orbit").iterdir())
    assert len(videos) == 2
    for path in videos:
        video = cv2.VideoCapture(str(path))
        assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 3
        is_read, frame = video.read()
        assert is_read
        assert frame.max() > 50


def test_a_finished_run_is_not_trained_again(run, caplog):
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*.pt")}
    refersplat.train.main(["-m", str(run), "--resume"])
    assert before == {path: path.stat().st_mtime_ns for path in run.rglob("*.pt")}


def test_a_run_whose_scene_has_moved_is_resumed_from_its_new_place(run, balls, tmp_path):
    moved = shutil.copytree(balls, tmp_path / "moved")
    (run / "referring.pt").unlink()
    refersplat.train.main(["-m", str(run), "--resume", "-s", str(moved)])
    assert (run / "referring.pt").exists()
    assert load_yaml(run / RESOLVED, Config).data.scene == str(moved)
    shutil.rmtree(moved)
    with raises(InputError, moved, "new place", "-s"):
        refersplat.train.main(["-m", str(run), "--resume"])


def test_resuming_restores_a_lost_referring_field(run):
    lost = load_state(run / "referring.pt", FORMAT, {...: Finite})
    (run / "referring.pt").unlink()
    (run / "timings.json").unlink()  # which only tells how long it took
    refersplat.train.main(["-m", str(run), "--resume"])
    assert load_state(run / "referring.pt", FORMAT, {...: Finite})["features"].equal(
        lost["features"]
    )


def test_gaussians_of_another_run_are_taken(trained, balls, tmp_path, caplog):
    cloud = trained / "point_cloud/iteration_120/point_cloud.ply"
    out = tmp_path / "out"
    argv = ["-s", str(balls), "--eval", "--text.encoder", "hash", "--train.iterations", "2"]
    start = ["--start_checkpoint", str(cloud), "--data.test_views", "1", "2"]
    refersplat.train.main([*argv, "-m", str(out), *start])
    assert f"{trained} were trained on 1 of the 2 test views" in caplog.text
    (copied,) = out.glob("point_cloud/*/*.ply")
    assert load_ply(copied).means.equal(load_ply(cloud).means)

    theirs = tmp_path / "inria"  # a folder that another program has trained
    shutil.copytree(trained / "point_cloud", theirs / "point_cloud")
    refersplat.train.main([*argv, "-m", str(theirs)])
    assert not (theirs / "rgb_state.pt").exists()
    assert (theirs / "referring.pt").exists()


def test_two_sources_of_gaussians_are_refused(trained, balls, tmp_path):
    theirs = tmp_path / "inria"
    shutil.copytree(trained / "point_cloud", theirs / "point_cloud")
    argv = ["-s", str(balls), "-m", str(theirs), "--start_checkpoint", str(trained)]
    with pytest.raises(InputError, match=r"--start_checkpoint: .*name another folder"):
        refersplat.train.main(argv)
    assert [path.name for path in theirs.iterdir()] == ["point_cloud"]


def test_the_old_name_of_amodal_works_and_warns(run):
    scene = refersplat.TrainedScene.load(run)
    question = "the red apple", scene.cameras["frame_00001"]
    with pytest.warns(DeprecationWarning, match="amodal") as warned:
        whole = scene.mask(*question, through=True)
    assert warned[0].filename == __file__
    assert whole.equal(scene.mask(*question, amodal=True))


def test_the_field_of_a_published_checkpoint_answers(trained, balls, tmp_path, caplog):
    caplog.set_level("INFO")
    learned = load_state(trained / "referring.pt", FORMAT, {...: Finite})
    names = ("mlp1", "mlp2", "mlp3", "cross_attention")
    networks = [
        {key.removeprefix(f"{n}."): v for key, v in learned["field"].items() if key.startswith(n)}
        for n in names
    ]
    parts, iteration = torch.load(trained / "chkpnt120.pth", weights_only=True)
    path, out = tmp_path / "chkpnt45000.pth", tmp_path / "out"
    torch.save(((*parts[:7], learned["features"], *parts[7:], *networks), iteration), path)
    argv = ["-s", str(balls), "--eval", "--text.encoder", "hash", "--start_checkpoint", str(path)]
    argv += ["--train.hold_out_every", "5"]
    refersplat.train.main([*argv, "-m", str(out), "--train.setting", "published"])
    adopted = load_state(out / "referring.pt", FORMAT, {...: Finite})
    assert adopted["features"].equal(learned["features"])
    assert all(adopted["field"][name].equal(t) for name, t in learned["field"].items())
    assert adopted["threshold"] == adopted["field_threshold"] == learned["field_threshold"]
    scene = refersplat.TrainedScene.load(out)
    camera = scene.cameras["frame_00001"]
    responses = scene.answerer.field_responses(["the red apple"])
    (probabilities,) = scene.visible(
        Responses(responses, [None], [adopted["threshold"]]), scene.blend(camera)
    )
    mask = scene.mask("the red apple", camera)
    assert mask.equal(probabilities >= adopted["threshold"])
    assert mask.any()

    refersplat.train.main([*argv, "-m", str(tmp_path / "anew"), "--train.iterations", "1"])
    assert "only its Gaussians are used" in caplog.text
    networks[0]["fc1.weight"] = networks[0]["fc1.weight"][:, :-1].clone()
    torch.save(((*parts[:7], learned["features"], *parts[7:], *networks), iteration), path)
    argv += ["-m", str(tmp_path / "other"), "--train.setting", "published"]
    with pytest.raises(InputError, match=r"chkpnt45000\.pth: .* name the --text\.encoder"):
        refersplat.train.main(argv)


def test_a_scene_without_sentences_is_only_rendered(balls, tmp_path, caplog):
    scene = tmp_path / "scene"
    for folder in ("images", "sparse"):
        shutil.copytree(balls / folder, scene / folder)
    out = tmp_path / "out"
    refersplat.train.main(["-s", str(scene), "-m", str(out), "--iterations", "2"])
    assert "no training view has a sentence" in caplog.text
    refersplat.pictures.main(["-m", str(out), "--orbit", "--render.frames", "2"])
    assert (out / "renders/orbit/scene.mp4").exists()
    with pytest.raises(InputError, match=r"scene: .* train with --eval"):
        refersplat.evaluate.main(["-m", str(out)])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The tall, yellow bottle.", "the-tall-yellow-bottle"),
        ("../../etc/passwd", "etc-passwd"),
        ("?!", "sentence"),
        ("x" * 300, "x" * 40),
        ("Grüße an Łukasz", "grüße-an-łukasz"),
    ],
)
def test_slugs_are_file_names(text, expected):
    assert slug(text) == expected


def test_views_without_sentences_are_scored_by_their_colours(run, balls, tmp_path, capsys):
    scene = shutil.copytree(balls, tmp_path / "scene")
    for stem in ("frame_00001", "frame_00009"):
        (scene / "json" / f"{stem}.json").write_text(json.dumps({"object": []}))
    refersplat.evaluate.main(["-m", str(run), "-s", str(scene)])
    number = r" +\d+\.\d{3}\n"
    names = ["PSNR", "SSIM", "L1", "PSNR, fitted", "SSIM, fitted", "L1, fitted"]
    lines = "".join(name + number for name in names)
    assert re.fullmatch(f"{lines}fitted: {protocol(None)}\n", capsys.readouterr().out)
    results = json.loads((run / "results.json").read_text())
    plain = {"psnr", "ssim", "l1"}
    assert results["metrics"].keys() == plain | {f"{name}_fitted" for name in plain}
    assert results["fitted"] == protocol(None)


def test_refined_poses_serve_the_sentences_too(run, tmp_path):
    for path in run.glob("referring*.pt"):
        path.unlink()
    scene = load_scene(load_yaml(run / RESOLVED, Config).data)
    motions = Motions.start(len(scene.train), "cpu")
    motions.values[0, 5] = 0.01
    save_poses(run, scene.train, motions, scene.extent)
    refersplat.train.main(["-m", str(run), "--resume"])
    cameras = TrainedScene.load(run).cameras
    for view in scene.views:
        shift = 0.01 * scene.extent * (view.name == scene.train[0].name)
        difference = cameras[view.name].position - view.camera.position
        assert_close(difference, torch.tensor([0, 0, shift]), atol=1e-5, rtol=0)


def test_another_scenes_scores_overwrite_nothing(run, balls, tmp_path):
    refersplat.evaluate.main(["-m", str(run)])
    before = {path: path.read_bytes() for path in run.glob("re[sp]*.*")}
    other = shutil.copytree(balls, tmp_path / "other")
    refersplat.evaluate.main(["-m", str(run), "-s", str(other)])
    assert (run / "results_other.json").is_file()
    assert (run / "report_other.png").is_file()
    assert (run / "report_other.html").is_file()
    assert before == {path: path.read_bytes() for path in before}
    assert len(before) == 3


def test_the_meaning_of_each_sentence_is_logged(run, caplog):
    caplog.set_level("INFO")
    refersplat.pictures.main(["-m", str(run), "--split", "all", "--sentence", "the red apple"])
    assert re.search(r"the red apple → apple, visible in \d+ of 12 views", caplog.text)
    (trace, *_) = sorted((run / "renders/asked/all/frame_00001").glob("*.trace.txt"))
    assert "→" in trace.read_text(encoding="utf-8")


def test_a_sentence_that_means_nothing_says_so(run, caplog):
    caplog.set_level("INFO")
    sentence = "a locomotive that is not there"
    refersplat.pictures.main(["-m", str(run), "--views", "3", "--sentence", sentence])
    assert f"{sentence} → nothing\n" in caplog.text
    _, row = read_page(run / "renders/asked/views/report.html").tables[0]
    assert row[2:4] == [sentence, "nothing"]
    assert row[4].endswith("→ nothing")


def test_an_explanation_names_the_views_where_the_viewpoint_matters():
    left, right = Meaning(("left 'box' → can",), ["a"]), Meaning(("left 'box' → cup",), ["b", "c"])
    lines = list(
        summary_lines("?", Summary({"can": left, "cup": right}, [True, False, True]), True)
    )
    assert lines == [
        *("? → can; cup, visible in 2 of 3 views", "  from a:", "  left 'box' → can"),
        *("  from b, c:", "  left 'box' → cup"),
    ]


def test_a_trained_scene_returns_masks_in_python(run, balls, tmp_path, monkeypatch):
    """From any folder, and without the photos."""
    lost = load_yaml(run / RESOLVED, Config)
    save_yaml(replace(lost, data=replace(lost.data, scene="/nowhere")), run / RESOLVED)
    monkeypatch.chdir(tmp_path)
    scene = refersplat.TrainedScene.load("run")
    camera = scene.cameras["frame_00001"]
    truth = np.asarray(Image.open(balls / "gt_mask/apple_frame_00001.png")) > 0
    mask = scene.mask("the red apple", camera).numpy()
    assert (mask & truth).sum() > 0.3 * (mask | truth).sum()
    whole = scene.mask("the red apple", camera, amodal=True)
    assert whole.shape == mask.shape
    assert scene.groups == ("apple", "melon", "plum")
    for name in ("frame_00001", "frame_00001.png", "1"):
        assert scene.mask("the red apple", name).equal(scene.find("the red apple", camera).mask)
    first = scene.find("the red apple")
    assert first.mask.equal(scene.mask("the red apple", "frame_00002"))  # 1 and 9 are for testing
    assert (first.groups, first.names) == ((0,), ("apple",))
    assert first.probabilities == {"apple": 1.0, "melon": 0.0, "plum": 0.0}
    assert "apple" in first.trace[-1]
    with raises(InputError, "camera", "'frame_00099'", "12"):
        scene.find("the red apple", "frame_00099")
    with raises(InputError, "camera", "give one"):
        replace(scene, cameras={}).mask("the red apple")
    older = replace(scene, training_views=())
    assert older.camera() is scene.cameras["frame_00001"]
    strict = refersplat.TrainedScene.load("run", threshold=1.0)
    assert not strict.mask("the red apple", camera).any()


def test_a_run_is_a_start_checkpoint(run, balls, tmp_path):
    config = refersplat.command.read_options(
        ["-s", str(balls), "-m", str(tmp_path / "out"), "--start_checkpoint", str(run)],
        "train",
    )
    assert Path(config.rgb.start_checkpoint).name == "point_cloud.ply"
    assert Path(config.rgb.start_checkpoint).is_relative_to(run)


def test_resuming_no_run_starts_one(balls, tmp_path, caplog):
    out, argv = tmp_path / "out", ["-s", str(balls), "--resume", "--text.encoder", "hash"]
    argv += ["--iterations", "1", "--train.iterations", "1", "--train.hold_out_every", "0"]
    refersplat.train.main([*argv, "-m", str(out)])
    assert f"--resume: {out} holds no run yet" in caplog.text
