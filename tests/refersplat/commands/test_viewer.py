"""refersplat view: answers as colours of Gaussians, clients of their own, a page without server."""

import socket
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from refer3d.runs.errors import InputError
from refer3d.viewer import ServerConfig, add_question_form, start_server
from refersplat.__main__ import main
from refersplat.inference.trained_scene import TrainedScene
from refersplat.viewer.options import read_options
from refersplat.viewer.program import SplatView, _camera_of, _furnish, _pose
from tests.errors import raises

SENTENCE = "the green melon"


@pytest.fixture(scope="module")
def splats(trained):
    return SplatView(TrainedScene.load(trained, "cpu"))


def free_port():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def test_modes_show_the_answer(splats):
    responses, selected = splats.answer(SENTENCE, None)
    assert 0 < selected.sum() < len(selected)
    paints = {mode: splats.paint(responses, selected, mode)
              for mode in ("mark", "alone", "without", "heat map")}  # fmt: skip
    for colors, opacities in paints.values():
        assert colors.shape == (len(selected), 3)
        assert opacities.shape == (len(selected), 1)
        assert 0 <= colors.min() <= colors.max() <= 1
    marked = paints["mark"][0] - splats.colors
    assert (marked[selected][:, 0] - marked[selected][:, 2] > -0.01).all()  # towards orange
    assert (paints["mark"][0][~selected] <= splats.colors[~selected].max(1, keepdims=True)).all()
    assert (paints["alone"][1][~selected] == 0).all()
    assert (paints["without"][1][selected] == 0).all()
    heat = paints["heat map"][0].sum(axis=1)
    assert heat[selected].min() > np.median(heat[~selected])


def test_every_object_is_an_example(splats):
    groups = splats.trained.answerer.language.group_of
    assert {groups[example] for example in splats.objects} == set(groups.values())


def test_covariances_are_those_of_the_gaussians(splats):
    gaussians = splats.trained.gaussians
    trace = np.trace(splats.covariances, axis1=1, axis2=2)
    np.testing.assert_allclose(trace, gaussians.scales.square().sum(dim=1), rtol=1e-4)


def test_a_window_at_a_camera_is_that_camera(splats):
    camera = next(iter(splats.trained.cameras.values()))

    class Window:
        class camera:
            fov, aspect = 2 * np.arctan(camera.height / 2 / camera.fy), camera.width / camera.height
            wxyz, position = _pose(camera)["wxyz"], _pose(camera)["position"]

    found = _camera_of(Window)
    np.testing.assert_allclose(found.world_to_camera, camera.world_to_camera, atol=1e-6)
    assert found.fy / found.height == pytest.approx(camera.fy / camera.height)


def test_a_page_needs_no_server(trained, tmp_path):
    pytest.importorskip("viser")
    page = tmp_path / "page.html"
    main(["view", "-m", str(trained), "--sentence", SENTENCE, "--export", str(page),
          "--port", str(free_port())])  # fmt: skip
    text = page.read_text(encoding="utf-8")
    assert text.lstrip().lower().startswith("<!doctype html>")
    assert len(text) > 100_000


def test_controls_work_on_a_real_server(splats):
    pytest.importorskip("viser")
    server = start_server(ServerConfig(port=free_port()), "test")
    try:
        camera = next(iter(splats.trained.cameras.values()))
        window = SimpleNamespace(fov=0.8, aspect=4 / 3, **_pose(camera))
        client = SimpleNamespace(
            gui=server.gui, scene=server.scene, atomic=server.atomic, camera=window
        )
        _furnish(splats, SENTENCE, client)
        colors, _ = splats.paint(*splats.answer(SENTENCE, _camera_of(client)), "mark")
        shown = server.scene.get_handle_by_name("/gaussians").rgbs / 255
        np.testing.assert_allclose(shown, colors, atol=1 / 255)
        assert np.abs(colors - splats.colors).max() > 0.1
    finally:
        server.stop()


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
            raise InputError("sentence: expected words, got '?'; write some")
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
