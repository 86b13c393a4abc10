"""`make check` says in words what works here, and what to do where something is missing."""

import os
import shutil
import subprocess
import sys

import check
import psutil
import pytest
from notebook_rules import ROOT


def run(*options, **env):
    command = [sys.executable, *options, str(ROOT / "tools" / "check.py")]
    return subprocess.run(command, env={**os.environ, **env}, capture_output=True, text=True, encoding="utf-8")


def told(capsys):
    """What main prints, and what it exits with."""
    with pytest.raises(SystemExit) as end:
        check.main()
    return capsys.readouterr().out, str(end.value)


@pytest.mark.slow
def test_all_is_well_here():
    result = run(PYTHONPATH=str(ROOT))
    assert result.returncode == 0, result.stdout
    lines = result.stdout.splitlines()
    assert [line[:9] for line in lines] == ["ok       "] * len(check.CHECKS) + ["Everythin"]
    assert "the red panda is a lesser panda" in result.stdout and max(map(len, lines)) <= 120


def test_without_any_package_it_starts_and_names_them():
    result = run("-S", PYTHONPATH="")      # without site-packages
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert "missing: torch, torchvision, numpy," in result.stdout
    assert "pip install --editable ." in " ".join(result.stdout.split())
    assert "ok       both networks are whole" in result.stdout      # which takes no package
    assert result.stderr.startswith(f"{len(check.CHECKS) - 2} of {len(check.CHECKS)} are in trouble")


@pytest.mark.parametrize("versions, said", [
    ({"torch": None}, "missing: torch."), ({"torch": "2.3.1"}, "too old: torch 2.3.1 (needs 2.4)."),
    ({"torch": "2.10.0+cpu"}, None),
])
def test_versions(monkeypatch, versions, said):
    real = check.importlib.metadata.version

    def version(name):
        if versions.get(name, "") is None:
            raise check.importlib.metadata.PackageNotFoundError(name)
        return versions.get(name) or real(name)

    monkeypatch.setattr(check.importlib.metadata, "version", version)
    if said is None:
        assert "torch 2.10.0+cpu" in check.packages()
    else:
        with pytest.raises(check.Trouble) as trouble:
            check.packages()
        assert said in str(trouble.value)


def test_a_package_that_cannot_be_imported(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(check.Trouble, match="cannot be imported: torchvision .*make clean"):
        check.packages()


@pytest.fixture
def weights(tmp_path, monkeypatch):
    for file in check.WEIGHTS.glob("*.pth*"):
        shutil.copy(file, tmp_path)
    monkeypatch.setattr(check, "WEIGHTS", tmp_path)
    monkeypatch.setattr(check, "CHECKS", [check.weights])
    return tmp_path


def test_damaged_or_missing_weights(weights, capsys):
    assert check.weights() == "both networks are whole: efficientnet_lite0, squeezenet1_1"
    file = weights / "efficientnet_lite0.pth"
    content = bytearray(file.read_bytes())
    content[1000] ^= 1
    file.write_bytes(content)
    out, end = told(capsys)
    assert out.startswith("TROUBLE  efficientnet_lite0.pth is damaged") and "git checkout" in " ".join(out.split())
    assert end.startswith("1 of 1 are in trouble")
    file.unlink()
    assert told(capsys)[0].startswith("TROUBLE  efficientnet_lite0.pth is missing")
    file.with_suffix(".pth.sha256").unlink()
    assert "hashes of the two networks" in told(capsys)[0]


def test_little_memory(monkeypatch):
    monkeypatch.setenv("MEM_LIMIT", str(psutil.Process().memory_info().rss + 10**9))
    with pytest.raises(check.Trouble, match="1.0 GB of memory are free.*Shut Down All Kernels"):
        check.memory()


def test_a_device_that_is_not_there(monkeypatch):
    monkeypatch.setenv("COURSE_DEVICE", "abacus")
    with pytest.raises(check.Trouble, match="abacus.*COURSE_DEVICE=cpu make lab"):
        check.device()


def test_another_clone_and_an_old_python(monkeypatch, tmp_path):
    monkeypatch.setattr(check.sys, "version", "3.9.18 (main)")
    with pytest.raises(check.Trouble, match="this is Python 3.9.18, and the course needs 3.10"):
        check.python()
    monkeypatch.setattr(check, "ROOT", tmp_path)
    with pytest.raises(check.Trouble, match="not of this folder"):
        check.course()
