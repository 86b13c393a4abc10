"""The panels in a real browser: JupyterLab on a copy of the notebooks, and Chromium driven by Playwright."""

import base64
import contextlib
import importlib.util
import io
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import numpy as np
import pytest
from PIL import Image

from course_utils import load_model, sample_image, techniques
from course_utils.images import encoded
from course_utils.widgets import Drawing

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.slow

PATIENCE = 30      # seconds; what takes longer has failed
# Every cell is drawn, not only those near the top of the window.
SETTINGS = {"notebook-extension/tracker": {"windowingMode": "none"}}
# The panel of notebook 13 without the minute and a half that the cells above it take.
PLAY_NOTEBOOK = """
import ipywidgets

from course_utils import load_model, play
from course_utils.techniques import generate_class_image

play(generate_class_image, model=load_model(), target=ipywidgets.IntSlider(130, 0, 999), steps=100_000)
"""
CLICK_NOTEBOOK = """
import ipywidgets

from course_utils import explore, sample_image


def crop(image, position, wobble):
    return image, f"at {position}, {wobble}"

explore(crop, image=sample_image("cat"),
        position=ipywidgets.Combobox(options=["anywhere"], value="anywhere"),
        wobble=ipywidgets.FloatSlider(1, tooltip="How far it is turned"))
"""
# The panel of notebook 21 without the cells above it.
SHEET_NOTEBOOK = """
import ipywidgets

from course_utils import class_picker, image_picker, load_model, play
from course_utils.techniques import own_sheet

play(own_sheet, total=17, image=image_picker(), target=class_picker(), model=load_model(),
     shuffle=ipywidgets.Checkbox(False), folder=ipywidgets.Text())
"""
NOTHING_RUNS = """
import os
import threading

assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"

for thread in threading.enumerate():
    if thread.name == "course panel":
        thread.join(5)
        assert not thread.is_alive()
"""


@pytest.fixture(scope="module")
def server(browser, tmp_path_factory):
    """The address of a JupyterLab on a copy of the notebooks, as a function of the notebook's name."""
    folder = tmp_path_factory.mktemp("jupyter")
    copy = folder / "notebooks"
    shutil.copytree(ROOT / "notebooks", copy, ignore=shutil.ignore_patterns(".ipynb_checkpoints", "output"))
    own = {"play": (PLAY_NOTEBOOK, NOTHING_RUNS), "click": (CLICK_NOTEBOOK,), "sheet": (SHEET_NOTEBOOK,)}
    for name, sources in own.items():
        cells = [nbformat.v4.new_code_cell(source.strip()) for source in sources]
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": {
            "name": "python3", "display_name": "Python 3", "language": "python"}}), copy / f"{name}.ipynb")
    shutil.copy(ROOT / "lectures" / "seeing.ipynb", copy)
    for plugin, settings in SETTINGS.items():
        file = folder / "JUPYTERLAB_SETTINGS_DIR" / "@jupyterlab" / f"{plugin}.jupyterlab-settings"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(settings))
    places = ["JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTERLAB_SETTINGS_DIR",
              "JUPYTERLAB_WORKSPACES_DIR", "IPYTHONDIR"]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    token = secrets.token_hex()
    command = [
        sys.executable, "-m", "jupyterlab", "--allow-root", "--no-browser", "--ip=127.0.0.1", f"--port={port}",
        "--ServerApp.port_retries=0", f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={copy}",
        "--LabApp.expose_app_in_browser=True",
        f"--LabApp.app_settings_dir={ROOT / 'lectures' / 'settings'}",      # the large type of the slides
    ]
    env = {**os.environ, **{name: str(folder / name) for name in places},
           "JUPYTER_CONFIG_PATH": str(ROOT / "tools" / "jupyter")}
    env.pop("OMP_WAIT_POLICY", None)      # that file sets it
    with open(folder / "log", "w") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log)
    try:
        wait_for(lambda: answers(f"http://127.0.0.1:{port}/api/status?token={token}"), 60,
                 lambda: (folder / "log").read_text())
        yield lambda name: f"http://127.0.0.1:{port}/lab/tree/{name}?token={token}&reset"
    finally:
        process.terminate()      # the kernels end with their server
        process.wait(30)


@pytest.fixture
def open_notebook(server, browser, request):
    """A function that opens a notebook, runs all its cells and returns the page; a failure leaves a screenshot."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(1000 * PATIENCE)
    complaints = []
    page.on("pageerror", lambda error: complaints.append(str(error)))

    def open_and_run(name):
        page.goto(server(name))
        page.wait_for_function("""() => {
            const panel = window.jupyterapp?.shell?.currentWidget;
            return panel?.context?.isReady && panel.sessionContext?.session?.kernel?.status === "idle";
        }""", timeout=90_000)
        run_all(page)
        return page

    failed = request.session.testsfailed
    yield open_and_run
    if request.session.testsfailed > failed:
        page.screenshot(path=ROOT / "output" / f"{re.sub(r'[^a-z0-9]+', '_', request.node.name)}.png")
    page.close()
    assert complaints == []


class Shown:
    """A panel on a page, used the way a learner uses it."""

    def __init__(self, page, part):
        self.page = page
        self.panel = page.locator(".course-panel").filter(has=page.locator(part)).first
        self.panel.scroll_into_view_if_needed()
        self.image = self.panel.locator("img.course-picture")

    def find(self, control, kind):
        return self.panel.locator(f".course-{control} {kind}").first

    def picture(self):
        """The picture on the screen, from the address that the browser shows."""
        data = self.image.evaluate("""async image => {
            const bytes = new Uint8Array(await (await fetch(image.src)).arrayBuffer());
            return btoa(Array.from(bytes, byte => String.fromCharCode(byte)).join(""));
        }""")
        return decoded(base64.b64decode(data))

    def status(self):
        return self.panel.locator(".course-status").inner_text().replace("\N{NO-BREAK SPACE}", " ")

    def upload(self, name, content):
        """Choose a file in the dialog of the image picker."""
        with self.page.expect_file_chooser() as chooser:
            self.find("image", "button").click()
        chooser.value.set_files({"name": name, "mimeType": "image/png", "buffer": content})

    def change(self, act):
        """Do something that changes the picture; returns the new one once it is there."""
        before = self.image.get_attribute("src")
        act()
        wait_for(lambda: self.image.get_attribute("src") != before, PATIENCE, self.status)
        return self.picture()


def decoded(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), dtype=float)


def as_png(picture):
    buffer = io.BytesIO()
    picture.save(buffer, "png")
    return buffer.getvalue()


def same(one, other):
    """Whether two pictures are the same but for the rounding of another process."""
    return one.shape == other.shape and np.abs(one - other).mean() < 0.5


def test_grad_cam_s_controls_show_what_the_same_call_gives_without_a_browser(open_notebook):
    page = open_notebook("06_grad_cam.ipynb")
    shown = Shown(page, ".course-layer")
    model = load_model()
    cat_dog, macaw_dog = sample_image("cat_dog"), sample_image("macaw_dog")
    own = sample_image("jaguars").transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    large = Image.fromarray(np.random.default_rng(0).integers(0, 256, (2000, 2000, 3), dtype=np.uint8))

    def expected(image, target, layer, kind):
        drawn, _ = techniques.draw_grad_cam(model, image, target, layer, Drawing(percentile=99.5), kind)
        return decoded(encoded(drawn))

    def choose(control, option):
        shown.find(control, "select").select_option(option)

    def enter(name):
        shown.find("target", "input").fill(name)
        shown.find("target", "input").press("Enter")

    before = shown.picture()
    assert same(before, expected(cat_dog, 281, "features.12", "for the class"))
    for act, *call in [
        (lambda: choose("image", "macaw_dog"), macaw_dog, 281, "features.12", "for the class"),
        (lambda: enter("macaw"), macaw_dog, 88, "features.12", "for the class"),
        (lambda: choose("layer", "features.9"), macaw_dog, 88, "features.9", "for the class"),
        (lambda: choose("kind", "not averaged"), macaw_dog, 88, "features.9", "not averaged"),
        (lambda: shown.upload("own.png", as_png(own)), own, 88, "features.9", "not averaged"),
        (lambda: shown.upload("large.png", as_png(large)), large, 88, "features.9", "not averaged"),      # 12 MB
        (lambda: shown.upload("own.png", as_png(own)), own, 88, "features.9", "not averaged"),
        (lambda: choose("kind", "for and against"), own, 88, "features.9", "for and against"),
    ]:
        picture = shown.change(act)
        assert same(picture, expected(*call)), call
        assert np.abs(picture - before).max() > 0
        shows = shown.image.get_attribute("title")
        assert shows.startswith(f"map for {call[1]} ") and shows in shown.status()
        assert " s · " in shown.status() and "Error" not in shown.status()
        before = picture

    # What is wrong is told beneath the control that it was given to, and the picture stays.
    shown.upload("broken.jpg", b"not a picture")
    enter("kingsnake")
    for control, said in {"image": "broken.jpg: the file is not a picture but text", "target": "king snake"}.items():
        message = shown.find(control, ".course-message")
        wait_for(lambda message=message, said=said: said in message.inner_text(), PATIENCE, message.inner_text)
    # A word as long as an address breaks within the column, and nothing is wider than its place.
    shown.find("target", "input").fill("x" * 100)
    shown.find("target", "input").press("Enter")
    wait_for(lambda: "x" * 100 in shown.find("target", ".course-message").inner_text(), PATIENCE)
    for part in [shown.panel, *shown.panel.locator(".widget-vbox, .widget-hbox, .widget-html").all()]:
        wide, room = part.evaluate("part => [part.scrollWidth, part.clientWidth]")
        assert wide <= room, part.get_attribute("class")
    assert same(shown.picture(), before)

    # Another network: the layer menu follows. Its weights are drawn at random, so there is nothing to compare.
    shown.change(lambda: shown.find("model", "select >> nth=1").select_option("random"))
    choose("model", "alexnet")
    wait_for(lambda: shown.find("layer", "select").input_value() == "features.11", PATIENCE, shown.status)
    assert "Error" not in shown.status()
    assert error_outputs(page) == []
    assert page.locator(".Toastify__toast").all_inner_texts() == []      # JupyterLab asks and offers nothing


def test_play_runs_shows_what_grows_and_stops(open_notebook):
    page = open_notebook("play.ipynb")
    shown = Shown(page, ".course-run")
    run, stop = shown.panel.locator(".course-run"), shown.panel.locator(".course-stop")
    late = []
    for _ in range(3):
        run.click()
        first = shown.change(lambda: None)
        for _ in range(3):
            latest = shown.change(lambda: None)
        assert run.is_disabled() and not same(first, latest)
        assert stop.evaluate("button => document.activeElement === button")
        # The clock runs in the page, so that it measures what a learner waits for.
        waited = stop.evaluate("""(button, panel) => new Promise(done => {
            const started = performance.now();
            const look = () => panel.querySelector(".course-status").innerText.includes("stopped")
                ? done((performance.now() - started) / 1000) : setTimeout(look, 5);
            button.click();
            look();
        })""", shown.panel.element_handle())
        number, seconds = re.search(r"step (\d+) .* stopped · ([\d.]+) s", shown.status()).groups()
        late.append(waited - float(seconds) / int(number))
        address, status = shown.image.get_attribute("src"), shown.status()
        time.sleep(0.5)
        assert (shown.image.get_attribute("src"), shown.status()) == (address, status)      # it stays
        assert run.is_enabled() and stop.is_disabled()
        assert run.evaluate("button => document.activeElement === button")
    # An interrupt of the kernel stops the run, although no cell is running.
    run.click()
    shown.change(lambda: None)
    page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.interrupt()")
    wait_for(lambda: " · stopped · " in shown.status(), PATIENCE, shown.status)
    # While a cell runs, the panel says that no control is heard.
    busy = page.evaluate_handle("""() => ({done: window.jupyterapp.shell.currentWidget.sessionContext.session.kernel
        .requestExecute({code: "import time; time.sleep(4)"}).done})""")
    waiting = shown.panel.locator(".course-waiting")
    wait_for(lambda: "A cell is running" in waiting.inner_text(), PATIENCE)
    busy.evaluate("busy => busy.done")
    wait_for(lambda: not waiting.is_visible(), PATIENCE)
    # Running the cells again ends the older work, which the notebook's own last cell asserts.
    run.click()
    shown.change(lambda: None)
    run_all(page)
    assert Shown(page, ".course-run").status() == "Press Run."
    print(f"Stop came {min(late):.2f} to {max(late):.2f} s later than a step takes")
    assert min(late) < 0.2, late      # the best of three: what else the machine does is not ours


def test_a_sheet_of_an_uploaded_picture_grows_stops_and_is_exported(open_notebook, tmp_path):
    page = open_notebook("sheet.ipynb")
    shown = Shown(page, ".course-folder")
    run, stop = shown.panel.locator(".course-run"), shown.panel.locator(".course-stop")
    shown.upload("own.png", as_png(sample_image("jaguars").transpose(Image.Transpose.FLIP_LEFT_RIGHT)))
    wait_for(lambda: shown.find("image", "select").input_value() == "own.png", PATIENCE, shown.status)
    shown.find("folder", "input").fill(str(tmp_path / "maps"))
    shown.find("folder", "input").press("Enter")

    first = shown.change(run.click)      # the report, and room for the maps
    step = re.compile(r"step (\d+) of 17")
    wait_for(lambda: (found := step.search(shown.status())) and int(found[1]) >= 4, 3 * PATIENCE, shown.status)
    stop.click()
    wait_for(lambda: " · stopped · " in shown.status(), 3 * PATIENCE, shown.status)
    number, partial = int(step.search(shown.status())[1]), shown.picture()
    assert 4 <= number < 17 and partial.shape == first.shape and not same(partial, first)
    assert run.is_enabled() and shown.panel.locator("img:visible").count() == 1      # and no curve
    assert len(list((tmp_path / "maps").glob("*.png"))) == number - 1
    assert "jaguar" in (tmp_path / "maps" / "report.txt").read_text()

    shown.panel.locator(".course-save-png").click()
    wait_for(lambda: shown.status().startswith("Saved "), PATIENCE, shown.status)
    file = Path(re.match(r"Saved (.*\.png) \(", shown.status())[1])
    try:
        with Image.open(file) as saved:
            recipe = json.loads(saved.text["recipe"])
            assert same(decoded(encoded(saved)), partial)      # the screen shows a JPEG
    finally:
        file.unlink()
    assert (recipe["technique"], recipe["image"], recipe["step"]) == ("own_sheet", "own.png", number)
    assert error_outputs(page) == []


def test_sliders_have_names_and_a_click_on_the_picture_chooses_a_position(open_notebook):
    page = open_notebook("click.ipynb")
    shown = Shown(page, ".course-position")
    handle = shown.panel.get_by_role("slider", name="wobble", exact=True)      # as a screen reader finds it
    wait_for(lambda: handle.count() == 1, PATIENCE)
    assert handle.get_attribute("aria-description") == "How far it is turned"
    wait_for(lambda: shown.status().startswith("at anywhere, 1.0"), PATIENCE, shown.status)
    box = shown.image.bounding_box()
    shown.image.click(position={"x": 0.25 * box["width"], "y": 0.75 * box["height"]})
    wait_for(lambda: "anywhere" not in shown.status(), PATIENCE, shown.status)
    across, down = map(float, re.match(r"at ([\d.]+) ([\d.]+), 1.0", shown.status()).groups())
    assert abs(across - 0.25) < 0.01 and abs(down - 0.75) < 0.01
    assert shown.find("position", "input").input_value() == f"{across:.3f} {down:.3f}"
    # In a wide window the picture is three times the network's 224 pixels; in a narrow one nothing is cut off.
    for width, picture in (1600, 672), (1280, 0), (720, 0):
        page.set_viewport_size({"width": width, "height": 900})
        wide, room = shown.panel.evaluate("part => [part.scrollWidth, part.clientWidth]")
        assert wide <= room and shown.image.bounding_box()["width"] >= picture
    page.set_viewport_size({"width": 1280, "height": 900})
    box = shown.image.bounding_box()
    # Scrolled out of sight and shown again, every click still counts once.
    page.evaluate("() => window.jupyterapp.commands.execute('notebook:hide-all-cell-outputs')")
    page.evaluate("() => window.jupyterapp.commands.execute('notebook:show-all-cell-outputs')")
    wait_for(lambda: handle.count() == 1, PATIENCE)
    shown.image.click(position={"x": 0.5 * box["width"], "y": 0.5 * box["height"]})
    wait_for(lambda: shown.status().startswith("at 0.5"), PATIENCE, shown.status)


@pytest.mark.skipif(importlib.util.find_spec("jupyterlab_slideshow") is None
                    and os.environ.get("COURSE_BROWSER_TEST") != "required", reason="without the extra `lecture`")
def test_slides_start_go_forward_and_their_panels_are_alive(open_notebook):
    page = open_notebook("seeing.ipynb")
    page.set_viewport_size({"width": 1280, "height": 720})
    seen = page.locator(".jp-deck-mod-visible")

    def on_screen(words):
        wait_for(lambda: any(words in text for text in seen.all_inner_texts()), PATIENCE, seen.all_inner_texts)

    def forward():
        page.evaluate("() => window.jupyterapp.commands.execute('deck:forward')")

    page.evaluate("""() => {
        window.jupyterapp.shell.currentWidget.content.activeCellIndex = 0;
        return window.jupyterapp.commands.execute("deck:start");
    }""")
    on_screen("What does a network see?")
    type_size = "part => getComputedStyle(part).fontSize"
    assert page.locator(".jp-deck-mod-visible p").first.evaluate(type_size) == "28px"
    forward()
    on_screen("Where are the votes cast?")
    shown = Shown(page, ".course-moved-by")
    assert shown.image.is_visible() and "def votes" not in " ".join(seen.all_inner_texts())      # the code is folded
    before = shown.picture()
    after = shown.change(lambda: shown.find("moved-by", ".noUi-handle").press("ArrowRight"))
    assert not same(before, after) and "bee eater 0.76" in shown.status()
    box = shown.panel.bounding_box()
    assert box["y"] >= 0 and box["y"] + box["height"] <= 720      # nothing hangs over the edge of the slide
    forward()
    on_screen("moved by five pixels")
    assert not shown.image.is_visible() and "jacamar" not in " ".join(seen.all_inner_texts())      # after the vote
    page.evaluate("() => window.jupyterapp.commands.execute('deck:stop')")
    assert error_outputs(page) == []


def answers(address):
    with contextlib.suppress(OSError), urllib.request.urlopen(address) as reply:
        return reply.status == 200


def wait_for(condition, seconds, explain=lambda: ""):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not true after {seconds} s {explain()}"
        time.sleep(0.02)


def run_all(page):
    page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-all-cells')")
    assert error_outputs(page) == []


def error_outputs(page):
    """The errors that stand in cells, as `name: message`."""
    return page.evaluate("""() => window.jupyterapp.shell.currentWidget.content.widgets
        .flatMap(cell => cell.model.type === "code" ? cell.model.outputs.toJSON() : [])
        .filter(output => output.output_type === "error").map(output => `${output.ename}: ${output.evalue}`)""")
