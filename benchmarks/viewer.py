"""Uses ``refersplat view`` in Chromium: python benchmarks/viewer.py RUN --pictures FOLDER.

Two users open the window. One asks a sentence, and the other's view must not change. One draws
lassos around an object in two photos, names it and saves, in a copy of the scene; its masks are
compared with the scene's own. Then a browser is closed in the middle of a lasso. Last, it counts
frames per second. Needs playwright, and a Chromium in which WebGL runs in software if need be.
"""

from __future__ import annotations

import argparse
import functools
import shutil
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, sync_playwright

from benchmarks.labels import different_views, object_of, outline_of
from benchmarks.machine import describe, seconds
from refer3d.runs.folder import RunFolder
from refer3d.runs.options import override
from refer3d.viewer import ServerConfig, start_server
from refersplat.config import Config
from refersplat.data import Scene, View, load_scene
from refersplat.inference.trained_scene import TrainedScene
from refersplat.metrics import iou
from refersplat.splats.gaussians import Gaussians
from refersplat.splats.render import render
from refersplat.viewer.program import furnish
from refersplat.viewer.splats import SplatView
from refersplat.viewer.windows import first_place

SWITCHES = (
    *("--no-sandbox", "--disable-background-networking", "--disable-component-update"),
    *("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"),
)
WIDTH, HEIGHT, PANEL = 960, 600, 340
COUNT_FRAMES = """seconds => new Promise(resolve => {
  let count = 0, start = performance.now();
  const step = now => {
    if (now - start > 1000 * seconds) resolve(1000 * count / (now - start));
    else { count += 1; requestAnimationFrame(step); }
  };
  requestAnimationFrame(step);
})"""


@contextmanager
def serving(splats: SplatView, scene: Scene | None, port: int):
    """A server like that of ``refersplat view``."""
    server = start_server(ServerConfig(port=port), "benchmark")
    server.scene.set_up_direction(tuple(splats.up))
    place = first_place(splats.cameras, splats.gaussians.means)
    server.initial_camera.position, server.initial_camera.look_at = place
    server.on_client_connect(functools.partial(furnish, server, splats, scene, ""))
    try:
        yield
    finally:
        server.stop()


def open_page(browser: Browser, port: int, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Page:
    """A window, when the Gaussians are drawn."""
    page = browser.new_page(viewport={"width": size[0], "height": size[1]})
    page.set_default_timeout(400_000)  # software rendering beside other work
    page.goto(f"http://localhost:{port}")
    page.get_by_role("tab", name="Cameras").wait_for()
    page.wait_for_timeout(6000)
    warning = page.locator(".mantine-Notification-closeButton")
    if warning.count():
        warning.first.click()
    return page


def field(page: Page, label: str) -> Locator:
    """The input beside a label."""
    return page.locator(
        f'xpath=//label[text()="{label}"]/ancestor::div[contains(@class, "mantine-Flex-root")][1]'
        '//*[(self::input and not(@type="hidden")) or self::textarea]'
    )


def choose(page: Page, label: str, value: str) -> None:
    """Chooses from a dropdown."""
    field(page, label).click()
    field(page, label).fill(value)
    page.get_by_role("option", name=value, exact=True).click()


def tab(page: Page, name: str) -> None:
    """Opens a tab."""
    page.get_by_role("tab", name=name).click()
    page.wait_for_timeout(500)


def picture(page: Page, path: Path) -> np.ndarray:  # [h, w, 3]
    """The window without the panel, also as a file with it."""
    page.wait_for_timeout(3000)
    page.screenshot(path=path)
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"), np.float32)[:, :-PANEL]


def on_page(points: np.ndarray, view: View) -> np.ndarray:  # [P, 2]
    """Finds where the window at a photo's camera shows pixels of the photo."""
    camera = view.camera
    scale = HEIGHT / camera.height
    return (points + 0.5 - (camera.cx, camera.cy)) * scale + np.array([WIDTH, HEIGHT]) / 2


def draw_lasso(
    page: Page, view: View, outline: np.ndarray, path: Path | None = None, release: bool = True
) -> None:
    """Goes to a photo's camera and drags along an outline [P, 2] in its pixels."""
    tab(page, "Cameras")
    choose(page, "Camera", view.name)
    page.wait_for_timeout(3000)
    tab(page, "Label")
    field(page, "Draw").check()
    page.wait_for_timeout(1500)
    points = on_page(outline, view)
    page.mouse.move(*points[0])
    page.mouse.down()
    for point in (*points[1:], points[0]):
        page.mouse.move(*point)
        page.wait_for_timeout(150)
    if path is not None:
        page.screenshot(path=path)
    if release:
        page.mouse.up()
        page.get_by_text("Gaussians").last.wait_for()
        page.wait_for_timeout(4000)
        field(page, "Draw").uncheck()


def use(browser: Browser, arguments: argparse.Namespace, folder: Path) -> None:
    """Asks, labels, and closes a browser in the middle of a lasso."""
    run = Path(arguments.run)
    data = RunFolder(run, Config).config().data
    original = load_scene(data)
    shutil.copytree(data.scene, folder / "scene")
    for name in ("json", "gt_mask", "gt_mask_amodal"):
        shutil.rmtree(folder / "scene" / name, ignore_errors=True)
    scene = load_scene(override(data, {"scene": str(folder / "scene")}))
    trained = TrainedScene.load(run, "cpu")
    splats = SplatView(trained.gaussians, trained.cameras, trained)
    pictures = Path(arguments.pictures)
    pictures.mkdir(parents=True, exist_ok=True)
    with serving(splats, scene, arguments.port):
        start = time.perf_counter()
        page = open_page(browser, arguments.port)
        print(f"first window after {time.perf_counter() - start:.1f} s")
        before = picture(page, pictures / "scene.png")
        other = open_page(browser, arguments.port, (WIDTH // 2, HEIGHT // 2))
        untouched = picture(other, pictures / "other.png")
        field(page, "Sentence").fill(arguments.sentence)
        start = time.perf_counter()
        field(page, "Sentence").press("Enter")
        page.get_by_text("Gaussians").last.wait_for()
        print(f"answer after {time.perf_counter() - start:.2f} s")
        after = picture(page, pictures / "ask.png")
        print(f"the window changed by {np.abs(after - before).mean():.1f} of 255 a pixel")
        still = picture(other, pictures / "other.png")
        print(f"the other user's by {np.abs(still - untouched).mean():.1f}")
        other.close()

        category = arguments.category
        free = [  # of the panel
            view
            for view in original.views
            if object_of(view, category)
            and on_page(outline_of(view, category), view)[:, 0].max() < WIDTH - PANEL
        ]
        for index, view in enumerate(different_views(free, category)):
            path = pictures / f"drawing_{index + 1}.png"
            draw_lasso(page, view, outline_of(view, category), path)
            picture(page, pictures / f"lasso_{index + 1}.png")
        field(page, "Name").fill(arguments.category.replace("_", " "))
        field(page, "Sentences").fill(f"{arguments.sentence}\nwhat the lasso is around")
        page.wait_for_timeout(1000)
        start = time.perf_counter()
        page.get_by_role("button", name="Save").click()
        page.get_by_text("Saved").wait_for()
        print(f"saved after {time.perf_counter() - start:.1f} s")
        picture(page, pictures / "saved.png")
        labelled = {v.name: v for v in load_scene(override(data, {"scene": str(scene.path)})).views}
        scores = [
            float(iou(mine.mask(), item.mask()))
            for view in original.views
            for item in view.objects
            for mine in labelled[view.name].objects
            if item.category == mine.category == arguments.category
        ]
        print(f"{len(scores)} masks, IoU {np.mean(scores):.3f}, at least {min(scores):.3f}")

        files = {path: path.read_bytes() for path in scene.path.rglob("*") if path.is_file()}
        draw_lasso(page, original.views[0], np.array([[9, 9], [99, 9], [60, 60]]), None, False)
        page.close()
        page = open_page(browser, arguments.port)
        assert files == {p: p.read_bytes() for p in scene.path.rglob("*") if p.is_file()}
        print("closed in the middle of a lasso: nothing saved is lost, the next window opens")
        page.close()


def count_frames(browser: Browser, arguments: argparse.Namespace) -> None:
    """Frames per second while the window turns, and the server's own time for a frame."""
    trained = TrainedScene.load(arguments.run, "cpu")
    repeats = -(-arguments.count // trained.gaussians.count)
    gaussians: Gaussians = trained.gaussians
    for seed in range(1, repeats):
        noise = torch.randn(
            trained.gaussians.means.shape, generator=torch.Generator().manual_seed(seed)
        )
        tensors = trained.gaussians.tensors()
        tensors |= {"means": tensors["means"] + trained.gaussians.scales * noise}
        gaussians = gaussians.joined(Gaussians(**tensors))
    gaussians = gaussians.select(torch.arange(gaussians.count) < arguments.count)
    camera = next(iter(trained.cameras.values())).resized(WIDTH, HEIGHT)
    own = seconds(lambda: render(gaussians, camera))
    with serving(SplatView(gaussians, trained.cameras), None, arguments.port):
        page = open_page(browser, arguments.port)
        tab(page, "Cameras")
        field(page, "Orbit").check()
        page.wait_for_timeout(3000)
        rate = page.evaluate(COUNT_FRAMES, arguments.seconds)
        page.close()
    size = f"{gaussians.count} Gaussians at {WIDTH}x{HEIGHT}"
    print(f"{size}: {rate:.2f} frames per second in the browser, {1000 * own:.0f} ms on the server")


def main() -> None:
    """Runs all of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", help="folder of a trained run of an annotated scene")
    parser.add_argument("--pictures", default="output/viewer", help="folder of the screenshots")
    parser.add_argument("--sentence", default="the tall yellow bottle")
    parser.add_argument("--category", default="mustard_bottle", help="object to label by lasso")
    parser.add_argument("--count", type=int, default=200_000, help="Gaussians of the last part")
    parser.add_argument("--part", choices=("use", "frames", "all"), default="all")
    parser.add_argument("--seconds", type=float, default=60, help="time of counting frames")
    parser.add_argument("--port", type=int, default=8137)
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    arguments = parser.parse_args()
    print(describe())
    with sync_playwright() as play, tempfile.TemporaryDirectory() as folder:
        browser = play.chromium.launch(executable_path=arguments.chromium, args=list(SWITCHES))
        if arguments.part != "frames":
            use(browser, arguments, Path(folder))
        if arguments.part != "use":
            count_frames(browser, arguments)
        browser.close()


if __name__ == "__main__":
    main()
