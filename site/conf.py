"""The course as a website: `make site` builds it from the stored outputs of the notebooks, and runs nothing.

The pages are README.md, TEACHING.md and the like, docs/*.md and the notebooks, where they lie. What the site adds to
them (numbers in titles, the table of contents, the gallery, folds) is in pages.py beside this file.
"""

import importlib.metadata
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tools")]

import pages  # noqa: E402
from notebook_rules import ROOT, notebook_paths  # noqa: E402

project = html_title = "Visualizing CNNs, by hand"
author = "the authors of the course"
extensions = ["myst_nb", "sphinx_copybutton"]

# What is a page, from the root of the repository; the patterns of folders keep Sphinx from searching environments.
root_doc = "README"
include_patterns = ["*.md", "docs/*.md", "input_images/*.md", "course_utils/weights/*.md", "benchmarks/*.md",
                    *(path.relative_to(ROOT).as_posix() for path in notebook_paths())]
exclude_patterns = [".*", "build", "output", "**/.ipynb_checkpoints"]

# Notebooks and Markdown as JupyterLab and GitHub read them.
nb_execution_mode = "off"
nb_code_prompt_show = "Show the {type}"
nb_code_prompt_hide = "Hide the {type}"
nb_ipywidgets_js = {}                         # stored notebooks hold no widgets, and require.js comes from elsewhere
myst_enable_extensions = ["dollarmath", "amsmath", "html_image"]      # README has an image beside its text
myst_heading_anchors = 4
copybutton_exclude = ".linenos, .gp, .go"

# MathJax as one file that needs no fonts; the package holds the file of npm's mathjax 3.2.2, unchanged.
MATHJAX = "sphinx-mathjax-offline/static/mathjax/tex-svg-full.js"
mathjax_path = Path(MATHJAX).name
html_static_path = [str(HERE / "course.css"), str(HERE.parent / "build" / "site" / "static"),      # the demo
                    str(importlib.metadata.distribution("sphinx-mathjax-offline").locate_file(MATHJAX))]
html_css_files = ["course.css"]
html_favicon = str(HERE / "favicon.svg")

html_theme = "sphinx_book_theme"
html_context = {"default_mode": "auto"}       # light or dark as the reader's computer is, until the button is pressed
html_sidebars = {"**": ["search-button-field.html", "sbt-sidebar-nav.html"]}
html_show_copyright = False
html_theme_options = {
    "use_download_button": True,              # the notebook itself
    "show_toc_level": 2,
    "home_page_in_toc": True,
    "navbar_persistent": [],                  # the search stands in the sidebar
    **pages.repository_options(),
}


def setup(app):
    pages.setup(app)
