"""refersplat view: answers as colours, labels by lasso, clients of their own, a static page."""

import asyncio
import math
import shutil
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from types import SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch

from refer3d.runs.errors import InputError
from refer3d.viewer import ServerConfig, add_question_form, start_server
from refersplat.__main__ import main
from refersplat.cameras import Camera
from refersplat.config import DataConfig
from refersplat.data import load_scene
from refersplat.inference.trained_scene import TrainedScene
from refersplat.labels.files import render_masks, save_label
from refersplat.labels.lasso import combine, select_mask
from refersplat.metrics import iou
from refersplat.splats.formats import SH_C0
from refersplat.splats.gaussians import Gaussians
from refersplat.splats.render import render
from refersplat.viewer import program
from refersplat.viewer.labelling import Labelling
from refersplat.viewer.options import read_options
from refersplat.viewer.program import furnish, view
from refersplat.viewer.splats import MODES, SplatView
from refersplat.viewer.windows import camera_of, field_of_view, go_to, pose_of, turn
from tests.errors import raises
from tests.refersplat.commands.conftest import BALLS, RADIUS

SENTENCE = "the green melon"
POINTS = 500


@pytest.fixture(scope="module")
def splats(trained):
    scene = TrainedScene.load(trained, "cpu")
    return SplatView(scene.gaussians, scene.cameras, scene)


def free_port():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def test_modes_show_the_answer(splats):
    responses, selected = splats.answer(SENTENCE, None)
    assert 0 < selected.sum() < len(selected)
    paints = {mode: splats.paint(selected, mode, responses) for mode in MODES}
    for colors, opacities in paints.values():
        assert colors.shape == (len(selected), 3)
        assert opacities.shape == (len(selected), 1)
        assert 0 <= colors.min() <= colors.max() <= 1
    marked = paints["mark"][0] - splats.colors
    assert (marked[selected][:, 0] - marked[selected][:, 2] > -0.01).all()  # towards orange
    assert (paints["mark"][0][~selected] <= splats.colors[~selected].max(1, keepdims=True)).all()
    assert (paints["alone"][1][~selected] == 0).all()
    assert (paints["without"][1][selected] == 0).all()
    assert (paints["amodal"][0] == paints["mark"][0]).all()
    assert (paints["amodal"][1][selected] == splats.opacities[selected]).all()
    assert (paints["amodal"][1][~selected] < 0.2).all()
    heat = paints["heat map"][0].sum(axis=1)
    assert heat[selected].min() > np.median(heat[~selected])


def test_every_object_is_an_example(splats):
    groups = splats.trained.answerer.language.group_of
    assert {groups[example] for example in splats.objects} == set(groups.values())


def test_covariances_are_those_of_the_gaussians(splats):
    gaussians = splats.trained.gaussians
    trace = np.trace(splats.covariances, axis1=1, axis2=2)
    np.testing.assert_allclose(trace, gaussians.scales.square().sum(dim=1), rtol=1e-4)


def window_at(camera):
    """A client's window at a camera, as viser describes it."""
    place = pose_of(camera)
    ahead = camera.world_to_camera[2, :3].numpy()
    return SimpleNamespace(
        fov=field_of_view(camera),
        aspect=camera.width / camera.height,
        near=0.01,
        look_at=place["position"] + 3 * ahead,
        **place,
    )


def test_a_window_at_a_camera_is_that_camera(splats):
    camera = next(iter(splats.cameras.values()))
    found = camera_of(window_at(camera))
    np.testing.assert_allclose(found.world_to_camera, camera.world_to_camera, atol=1e-6)
    assert found.fy / found.height == pytest.approx(camera.fy / camera.height)


class Window:
    """A window whose position moves along what it looks at, as viser's."""

    def __init__(self):
        self.look_at, self._position, self.fov = np.array([1.0, 0, 0]), np.array([3.0, 0, 1]), 1.0

    @property
    def position(self):
        return self._position

    @position.setter
    def position(self, position):
        self.look_at = self.look_at + position - self._position
        self._position = position


def test_turning_keeps_distance_height_and_what_is_seen():
    client = SimpleNamespace(camera=Window(), atomic=nullcontext)
    turn(client, np.array([0, 0, 2.0]), np.pi / 2)
    np.testing.assert_allclose(client.camera.position, [1, 2, 1], atol=1e-12)
    np.testing.assert_allclose(client.camera.look_at, [1, 0, 0], atol=1e-12)


def test_a_window_goes_to_a_camera(splats):
    camera = next(iter(splats.cameras.values()))
    client = SimpleNamespace(camera=Window(), atomic=nullcontext)
    go_to(client, camera)
    np.testing.assert_allclose(client.camera.position, camera.position, atol=1e-6)
    ahead = (client.camera.look_at - client.camera.position) / 5**0.5
    np.testing.assert_allclose(ahead, camera.world_to_camera[2, :3], atol=1e-6)
    assert client.camera.fov == field_of_view(camera)


def test_a_page_needs_no_server(trained, tmp_path):
    pytest.importorskip("viser")
    page = tmp_path / "page.html"
    main(["view", "-m", str(trained), "--sentence", SENTENCE, "--export", str(page),
          "--port", str(free_port())])  # fmt: skip
    text = page.read_text(encoding="utf-8")
    assert text.lstrip().lower().startswith("<!doctype html>")
    assert len(text) > 100_000


@pytest.fixture
def server():
    pytest.importorskip("viser")
    server = start_server(ServerConfig(port=free_port()), "test")
    yield server
    server.stop()


def client_of(server, camera):
    """What viser gives a client, on the server itself, which needs no browser."""
    return SimpleNamespace(
        gui=server.gui, scene=server.scene, atomic=server.atomic, camera=window_at(camera),
        client_id=0,
    )  # fmt: skip


def test_controls_work_on_a_real_server(splats, server):
    client = client_of(server, next(iter(splats.cameras.values())))
    furnish(server, splats, None, SENTENCE, client)
    responses, selected = splats.answer(SENTENCE, camera_of(client.camera))
    colors, _ = splats.paint(selected, "mark", responses)
    shown = server.scene.get_handle_by_name("/gaussians").rgbs / 255
    np.testing.assert_allclose(shown, colors, atol=1 / 255)
    assert np.abs(colors - splats.colors).max() > 0.1


def test_clients_ask_at_once(splats):
    sentences = [SENTENCE, "the red apple", "the blue plum"] * 4
    expected = {sentence: splats.answer(sentence, None)[1] for sentence in sentences}
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda sentence: splats.answer(sentence, None)[1], sentences))
    for sentence, selected in zip(sentences, found, strict=True):
        np.testing.assert_array_equal(selected, expected[sentence])


@pytest.fixture(scope="module")
def exact(balls):
    """The balls as Gaussians on their surfaces, which the short run has not learned well."""
    rng = torch.Generator().manual_seed(0)
    ways = torch.randn(len(BALLS), POINTS, 3, generator=rng)
    centers = torch.tensor([center for center, _, _ in BALLS.values()])
    colors = torch.tensor([color for _, color, _ in BALLS.values()])
    means = centers[:, None] + RADIUS * ways / ways.norm(dim=2, keepdim=True)
    sh = torch.zeros(means[..., 0].numel(), 16, 3)
    sh[:, 0] = ((colors / 255 - 0.5) / SH_C0).repeat_interleave(POINTS, dim=0)
    gaussians = Gaussians(
        means=means.flatten(0, 1),
        log_scales=torch.full((len(sh), 3), math.log(0.016)),
        quats=torch.tensor([1.0, 0, 0, 0]).expand(len(sh), 4),
        logit_opacities=torch.full((len(sh),), 3.0),
        sh=sh,
    )
    views = load_scene(DataConfig(scene=str(balls))).views
    return SplatView(gaussians, {view.name: view.camera for view in views})


@pytest.fixture
def labelling(exact, server, balls, tmp_path):
    """The controls of a client whose scene has photos alone, and what it was shown last."""
    for folder in ("images", "sparse"):
        shutil.copytree(balls / folder, tmp_path / folder)
    scene = load_scene(DataConfig(scene=str(tmp_path)))
    client = client_of(server, scene.views[0].camera)
    shown = []
    controls = Labelling(exact, scene, client, shown.append)
    controls.shown = shown
    return controls


def drag(controls, camera, polygon, phases=("start", "update", "end")):
    """Drags along a polygon [P, 2] in pixels, as viser reports it."""
    controls.client.camera = window_at(camera)
    controls.draw.value = True
    corners = polygon / (camera.width, camera.height)

    async def move():
        for index, corner in enumerate(corners[1:], 1):
            phase = phases[0] if index == 1 else phases[1]
            phase = phases[2] if index == len(corners) - 1 else phase
            position = {"start_screen_pos": tuple(corners[0]), "end_screen_pos": tuple(corner)}
            await controls.drag(SimpleNamespace(phase=phase, **position))

    asyncio.run(move())
    controls.draw.value = False


def around(truth):
    """A circle around an object, a tenth wider."""
    rows, columns = np.nonzero(np.asarray(truth))
    middle = np.array([columns.mean(), rows.mean()]) + 0.5
    radius = 1.1 * max(np.ptp(columns), np.ptp(rows)) / 2 + 1
    angles = np.linspace(0, 2 * np.pi, 16)
    return middle + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def test_an_object_is_labelled_by_lasso(labelling, exact, balls):
    truth = {v.name: v for v in load_scene(DataConfig(scene=str(balls))).views}
    views = labelling.scene.views
    for photo in (views[0], views[3]):
        drag(labelling, photo.camera, around(truth[photo.name].objects[1].amodal_mask()))
    assert "outline, outline" in labelling.about.content
    assert labelling.preview.visible
    assert 0 < labelling.shown[-1].sum() < len(labelling.shown[-1])
    labelling.name.value, labelling.sentences.value = "Melon", "the melon\nthe green thing"
    labelling._try(labelling.save)
    assert "Saved" in labelling.about.content
    assert not labelling.shown[-1].any()
    melon = torch.arange(len(BALLS)).repeat_interleave(POINTS) == list(BALLS).index("melon")
    drawn = dict(render_masks(exact.gaussians, melon, labelling.scene.views))
    for photo in load_scene(DataConfig(scene=str(labelling.scene.path))).views:
        (expected,) = (mask for view, mask in drawn.items() if view.name == photo.name)
        assert len(photo.objects) == expected.any()
        for item in photo.objects:
            assert (item.category, item.sentences) == ("melon", ("the melon", "the green thing"))
            assert iou(item.mask(), torch.from_numpy(expected)) > 0.9
    labelling.lassos, labelling.name.value = [object()], "melon"
    labelling.sentences.value = "the melon"
    labelling._try(labelling.save)
    assert "Replace" in labelling.about.content


def test_a_stroke_can_be_undone(labelling, balls):
    photo = load_scene(DataConfig(scene=str(balls))).views[0]
    drag(labelling, photo.camera, around(photo.objects[1].mask()))
    once = labelling.shown[-1]
    labelling.action.value = "take away"
    drag(labelling, photo.camera, around(photo.objects[1].mask()))
    assert labelling.shown[-1].sum() < once.sum()
    labelling._change(labelling.lassos[:-1])
    np.testing.assert_array_equal(labelling.shown[-1], once)


class ColorSam:
    """A SAM that outlines the pixels of the clicked one's colour."""

    def click(self, picture, point):
        height, width = picture.shape[:2]
        seed = picture[int(point[1] * height), int(point[0] * width)]
        return np.abs(picture.astype(int) - seed).max(axis=2) < 40


def visible_middle(gaussians, camera, ball):
    """A point of a ball, in shares, where nothing hides it; None if it is hidden."""
    ids = torch.eye(len(BALLS)).repeat_interleave(POINTS, dim=0)
    shares = render(gaussians, camera, features=ids).features
    rows, columns = np.nonzero(np.asarray(shares[ball] > 0.9))
    if len(rows) < 20:
        return None
    nearest = np.argmin((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2)
    return (columns[nearest] + 0.5) / camera.width, (rows[nearest] + 0.5) / camera.height


def test_an_object_is_labelled_by_clicks(labelling, monkeypatch):
    melon = torch.arange(len(BALLS)).repeat_interleave(POINTS) == list(BALLS).index("melon")
    splats = labelling.splats
    monkeypatch.setattr(splats, "sam", ColorSam())
    for photo in (labelling.scene.views[0], labelling.scene.views[3]):
        labelling.client.camera = window_at(photo.camera)
        window = camera_of(labelling.client.camera, 480)
        point = visible_middle(splats.gaussians, window, list(BALLS).index("melon"))
        labelling.click(SimpleNamespace(screen_pos=point))
    assert "outline, outline" in labelling.about.content
    # 0.94: pixels of the rim are mixed with the background, and outside.
    assert iou(torch.from_numpy(labelling.shown[-1]), melon) > 0.9
    labelling.action.value = "take away"
    labelling.click(SimpleNamespace(screen_pos=point))
    assert labelling.shown[-1].sum() < melon.sum() / 1.5
    labelling.client.camera = window_at(labelling.scene.views[0].camera)
    monkeypatch.setattr(ColorSam, "click", lambda *_: np.zeros((480, 640), bool))
    labelling.click(SimpleNamespace(screen_pos=(0.5, 0.5)))
    assert "nothing" in labelling.about.content


def test_clicks_are_caught_where_there_is_a_sam(labelling, monkeypatch):
    scene = MagicMock()
    monkeypatch.setattr(labelling.client, "scene", scene)
    labelling._catch()
    labelling.draw.value = True
    labelling._catch()
    sphere = scene.add_icosphere.return_value
    sphere.on_click.assert_not_called()
    monkeypatch.setattr(labelling.splats, "sam", ColorSam())
    labelling._catch()
    sphere.on_click.assert_called_once_with(labelling.click)


def test_what_hides_an_object_does_not_take_it_away(exact):
    """Where another ball hides half of a ball, a mask of the other half says nothing of it."""
    half = torch.arange(2 * POINTS) < POINTS
    means = exact.gaussians.means[: 2 * POINTS].clone()
    means[~half] = means[half] + torch.tensor([RADIUS, -3.0, 0])  # nearer to the second camera
    tensors = {n: t[: 2 * POINTS] for n, t in exact.gaussians.tensors().items()}
    gaussians = Gaussians(**{**tensors, "means": means})
    middle = means[half].mean(dim=0)
    lassos = []
    for away in ((5.0, 0, 0), (0, -6.0, 0)):
        ahead = -torch.tensor(away) / max(map(abs, away))
        down = torch.tensor([0.0, 0, -1])
        pose = torch.eye(4)
        pose[:3, :3] = torch.stack([torch.linalg.cross(down, ahead), down, ahead])
        pose[:3, 3] = -pose[:3, :3] @ (middle + torch.tensor(away))
        camera = Camera(pose, 300, 300, 80, 60, 160, 120)
        ids = torch.stack([half, ~half], dim=1).float()
        mask = np.asarray(render(gaussians, camera, features=ids).features[0] > 0.5)
        lassos.append(select_mask(gaussians, camera, mask))
    assert iou(lassos[0].inside & lassos[1].inside, half) < 0.75
    assert iou(combine(gaussians, lassos), half) > 0.9


def test_faults_of_a_label_are_told(labelling):
    photo = labelling.scene.views[0]
    drag(labelling, photo.camera, np.array([[1.0, 1], [3, 1], [1, 3], [1, 1]]))
    assert "nothing" in labelling.about.content
    labelling._try(labelling.save)
    assert "name" in labelling.about.content
    labelling.name.value = "melon"
    labelling._try(labelling.save)
    assert "sentences" in labelling.about.content
    labelling.sentences.value = "the melon"
    labelling._try(labelling.save)
    assert "lasso" in labelling.about.content
    assert not (labelling.scene.path / "json").exists()


def test_a_browser_that_goes_leaves_what_was_saved(labelling, balls):
    photo = load_scene(DataConfig(scene=str(balls))).views[0]
    save_label(labelling.scene, "plum", ["a plum"], {photo.name: photo.objects[2].mask().numpy()})
    files = {p: p.read_bytes() for p in labelling.scene.path.rglob("*") if p.is_file()}
    circle = around(photo.objects[1].mask())
    drag(labelling, photo.camera, circle, phases=("start", "update", "update"))
    assert labelling.lassos == []
    assert files == {p: p.read_bytes() for p in labelling.scene.path.rglob("*") if p.is_file()}


def test_a_run_without_language_can_be_labelled(trained, tmp_path, monkeypatch):
    for name in ("config.yaml", "point_cloud"):
        copy = shutil.copytree if (trained / name).is_dir() else shutil.copy
        copy(trained / name, tmp_path / name)
    server = MagicMock()
    monkeypatch.setattr(program, "start_server", lambda *_: server)
    monkeypatch.setattr(program, "serve", lambda *_: None)
    view(read_options(["-m", str(tmp_path)]))
    ((furnish_client,),) = [call.args for call in server.on_client_connect.mock_calls]
    client = MagicMock()
    furnish_client(client)
    tabs = client.gui.add_tab_group.return_value.add_tab.call_args_list
    assert [call.args[0] for call in tabs] == ["Label", "Cameras"]
    with raises(InputError, "--sentence"):
        view(read_options(["-m", str(tmp_path), "--sentence", SENTENCE]))
    with raises(InputError, "--sam", "SAM or SAM 2"):
        view(read_options(["-m", str(tmp_path), "--sam", str(tmp_path)]))


def test_a_question_of_one_client_leaves_the_others_alone():
    class Gui:
        """Records what viser would show."""

        def __init__(self):
            self.submit, self.about = None, None

        def add_form(self, label):
            return self

        def on_submit(self, function):
            self.submit = function

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        def add_text(self, label, value, hint):
            self.text = type("Text", (), {"value": value})()
            return self.text

        def add_markdown(self, text):
            self.about = type("Markdown", (), {"content": text})()
            return self.about

    def draw(sentence):
        if sentence == "?":
            raise InputError("sentence: expected words, got '<?>'; write some")
        return f"drawn {sentence}"

    clients = [type("Client", (), {"gui": Gui()})() for _ in range(2)]
    asks = [add_question_form(client, draw) for client in clients]
    clients[0].gui.text.value = " a mug "
    clients[0].gui.submit(None)
    assert [client.gui.about.content for client in clients] == ["drawn a mug", "Type a sentence."]
    asks[1]()  # again, though nothing was asked yet
    assert clients[1].gui.about.content == "Type a sentence."
    asks[1]("?")
    assert "expected words" in clients[1].gui.about.content
    assert "<?>" not in clients[1].gui.about.content  # viser would take it for HTML


def test_a_taken_port_is_named():
    pytest.importorskip("viser")
    with socket.socket() as taken:
        taken.bind(("localhost", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with raises(InputError, "--port", port):
            start_server(ServerConfig(port=port), "test")


def test_without_viser_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "viser", None)
    with raises(InputError, "refer3d[viewer]"):
        start_server(ServerConfig(), "test")


def test_options():
    with raises(InputError, "-m"):
        read_options([])
    assert read_options(["-m", "out", "--port", "9000"]).server == ServerConfig(port=9000)
