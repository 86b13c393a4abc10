"""What the site adds to the pages: numbers in titles, the table of contents, folds, the gallery, Binder."""

import base64
import hashlib
import html
import json
import mimetypes
import os
import re
import shutil
import subprocess
from io import BytesIO
from pathlib import Path

import imagesize
from myst_nb.core.render import NbElementRenderer
from notebook_rules import ROOT, code_cells, is_solution, lesson_paths, read

GALLERY, DEMO = "docs/gallery", "docs/demo"
TILE = 176      # pixels: the height of a picture in the gallery
BINDER = "https://mybinder.org"


def setup(app):
    app.connect("source-read", add_to_page)
    # The first two tell of all notebooks: they are made again whichever of them has changed. The demo has other files.
    app.connect("env-get-outdated", lambda *_: [app.config.root_doc, GALLERY, DEMO])
    app.connect("build-finished", name_first_page)
    NbElementRenderer.render_image = with_alternative_text(NbElementRenderer.render_image)


def add_to_page(app, name, source):
    app.env.metadata[name]["orphan"] = True      # some, like the solutions, are reached from other pages only
    path = Path(app.env.doc2path(name))
    if path.suffix == ".ipynb":
        source[0] = as_page(source[0], path)
    elif name == app.config.root_doc:
        source[0] = with_badge(source[0]) + contents(source[0])
    elif name == GALLERY:
        source[0] += gallery()
    elif name == DEMO:
        source[0] = with_demo(source[0])


def name_first_page(app, error):
    """A server, and whoever opens the folder, looks for index.html; links lead to the page by its own name."""
    if not error:
        shutil.copy(Path(app.outdir, f"{app.config.root_doc}.html"), Path(app.outdir, "index.html"))


# --- notebooks


def numbered(title, path):
    """The title of a notebook, after its number: `06 · Grad-CAM: where …`, `06 · Solutions: Grad-CAM`."""
    number = path.name[:2]
    return f"{number} · " + re.sub(rf"\b{number} (· )?", "", title)


def short_title(notebook, path):
    """The numbered title up to its colon."""
    title = re.search(r"^# (.+)", notebook.cells[0].source)[1]
    return numbered(title, path).split(":")[0]


def as_page(text, path):
    """A notebook as JSON, with its number in the title, a way to the solutions, and what JupyterLab folds folded."""
    notebook = json.loads(text)
    for cell in notebook["cells"]:
        folded = cell["metadata"].pop("jupyter", {})
        cell["metadata"].setdefault("tags", []).extend(
            {"source_hidden": "hide-input", "outputs_hidden": "hide-output"}[key] for key in folded)
    first = "".join(notebook["cells"][0]["source"])
    first = re.sub(r"^# (.+)", lambda title: f"# {numbered(title[1], path)}", first, count=1)
    if not is_solution(path):
        first = first.replace("#course-map)", f"#course-map) · [solutions](solutions/{path.name})", 1)
    notebook["cells"][0]["source"] = first
    return json.dumps(notebook)


def picture_name(data):
    """The id of a picture on its page; MyST-NB names the file by the same hash."""
    return f"picture-{hashlib.sha256(data).hexdigest()[:12]}"


def with_alternative_text(render_image):
    """MyST-NB looks for the alternative text among the settings of a cell; IPython writes it beside the output."""
    def render(self, data):
        nodes = render_image(self, data)
        identity = picture_name(base64.b64decode(data.content))
        for image in nodes:
            image["alt"] = data.output_metadata[data.mime_type]["alt"]
            if identity not in self.renderer.document.ids:
                image["ids"].append(identity)
                self.renderer.document.ids[identity] = image
        return nodes
    return render


# --- the table of contents


def contents(readme):
    """The navigation: lessons under their parts, as in the course map, then the pages that the first one links."""
    starts = {}      # a lesson -> the part that begins with it
    for part, lesson in re.findall(r"^\| \*\*(.+?)\*\* .*\n\| \[.+?\]\((.+?)\)", readme, flags=re.MULTILINE):
        starts[lesson] = part
    groups = [("The course", [])]
    for path in lesson_paths():
        name = path.relative_to(ROOT).as_posix()
        if name in starts:
            groups.append((starts[name], []))
        groups[-1][1].append(f"{short_title(read(path), path)} </{name}>")
    linked = re.findall(r"\]\(((?:docs/)?\w+\.md)\)", readme)
    groups.append(("More", [f"/{name}" for name in dict.fromkeys(linked)]))
    return "".join(f"\n\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n" + "\n".join(entries) + "\n```\n"
                   for caption, entries in groups)


# --- the gallery


def pictures(notebook):
    """(kind, bytes, alternative text) of every picture among the outputs, each once."""
    found = {}
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            for kind, data in output.get("data", {}).items():
                if kind.startswith("image/"):
                    found.setdefault(base64.b64decode(data), (kind, output.metadata[kind]["alt"]))
    return [(kind, data, alt) for data, (kind, alt) in found.items()]


def tile(path, kind, data, alt):
    """A picture as a link to its place in the lesson. The page stands one folder below the root of the site."""
    width, height = imagesize.get(BytesIO(data))
    file = hashlib.sha256(data).hexdigest() + mimetypes.guess_extension(kind)
    return (f'<a href="../notebooks/{path.stem}.html#{picture_name(data)}"><img src="../_images/{file}" '
            f'width="{round(width * TILE / height)}" height="{TILE}" loading="lazy" alt="{html.escape(alt)}"></a>')


def gallery():
    """Every picture of every lesson, animations first."""
    moving, still, saving = [], [], []
    for path in lesson_paths():
        notebook = read(path)
        link = f"[{short_title(notebook, path)}](../notebooks/{path.name})"
        if "save_animation(" in "".join(cell.source for cell in code_cells(notebook)):
            saving.append(link)
        tiles = {"image/gif": [], "other": []}
        for kind, data, alt in pictures(notebook):
            tiles.get(kind, tiles["other"]).append(tile(path, kind, data, alt))
        moving += tiles["image/gif"]
        still.append(f"### {link}\n\n{wall(tiles['other'])}")
    more = f"Run {', '.join(saving)}, and more and larger ones lie in the folder `output`."
    return "\n\n".join(["", "## Animations", wall(moving), more, "## All pictures", *still])


def wall(tiles):
    return '<div class="course-gallery">\n' + "\n".join(tiles) + "\n</div>"


# --- the demo


def photographs():
    """Name -> what it shows, as SOURCES.md begins to tell it; the montage of cat and dog first."""
    sources = (ROOT / "input_images" / "SOURCES.md").read_text(encoding="utf-8").split("\n\n")
    table = next(part for part in sources if part.startswith("| file | what it shows"))
    return dict(re.findall(r"^\| (\w+)\.jpg \| ([^:(|]+\b)", table, flags=re.MULTILINE))


def with_demo(text):
    """The page of the demo, live where the text says that it is not."""
    static = "../_static/demo"      # the page stands one folder below the root of the site
    shown = photographs()
    buttons = [f'<button type="button" data-photograph="{name}" aria-pressed="false"><img width="64" height="64" '
               f'src="{static}/thumbnails/{name}.jpg" alt="{html.escape(words)}"></button>'
               for name, words in shown.items()]
    first, words = next(iter(shown.items()))
    page = (ROOT / "site" / "demo" / "demo.html").read_text(encoding="utf-8")
    for mark, value in {"STATIC": static, "PHOTOGRAPHS": "\n".join(buttons), "FIRST": first, "WORDS": words}.items():
        page = page.replace(f"{{{mark}}}", value)
    before, _, after = re.split(r"^(> .+\n)+", text, maxsplit=1, flags=re.MULTILINE)
    return f"{before}```{{raw}} html\n{page}```\n{after}"


# --- where the repository is


def origin():
    """The address that this clone came from; empty where there is none, or no git."""
    try:
        return subprocess.run(["git", "remote", "get-url", "origin"], cwd=ROOT, capture_output=True, text=True).stdout
    except OSError:
        return ""


def github_repository():
    """`owner/name` of the repository on GitHub, as a workflow or the remote `origin` says, or None."""
    if name := os.environ.get("GITHUB_REPOSITORY"):
        return name
    found = re.search(r"[@/]github\.com[:/]([\w.-]+/[\w.-]+?)(\.git)?/?$", origin().strip())
    return found[1] if found else None


def repository_options():
    """Buttons that lead to the repository and to Binder; none where the repository is not on GitHub."""
    name = github_repository()
    if not name:
        return {}
    return {"repository_url": f"https://github.com/{name}", "use_repository_button": True,
            "launch_buttons": {"binderhub_url": BINDER, "notebook_interface": "jupyterlab"}}


def with_badge(readme):
    name = github_repository()
    if not name:
        return readme
    start = f"{BINDER}/v2/gh/{name}/main?urlpath=lab/tree/notebooks/00_start_here.ipynb"
    badge = f'<p><a class="btn btn-primary" href="{start}">Open the course in Binder</a></p>'
    return readme.replace("\n## ", f"\n{badge}\n\n## ", 1)
