"""The portable check runs what it says, and says so when the machine does not follow it."""

import platform

import portable
import pytest

X86 = platform.machine().lower() in ("x86_64", "amd64")


@pytest.mark.slow
@pytest.mark.skipif(not X86, reason="the settings choose between kernels for x86")
@pytest.mark.parametrize("setting", portable.SETTINGS)
def test_torch_follows_the_settings(setting):
    variables, expected = portable.SETTINGS[setting]
    assert portable.kernels_in_use(variables) == expected


def test_a_machine_that_does_not_follow_is_told_and_nothing_is_run(monkeypatch, capsys):
    monkeypatch.setattr(portable, "kernels_in_use", lambda variables: ("DEFAULT", None))
    monkeypatch.setattr(portable.sys, "argv", ["portable.py", "00"])
    with pytest.raises(SystemExit, match="setting A, B"):
        portable.main()
    said = capsys.readouterr()
    assert "Setting A: ATen uses DEFAULT, oneDNN uses None." in said.out and "passed" not in said.out
    assert said.err.count("does not follow the setting") == 2


@pytest.mark.parametrize("arguments, settings, notebooks", [
    ([], "A", None), (["--settings", "B"], "B", None), (["00"], "AB", 2), (["00", "6", "--settings", "A"], "A", 4),
])
def test_all_lessons_run_under_one_setting_and_named_ones_under_both(monkeypatch, arguments, settings, notebooks):
    runs = []
    monkeypatch.setattr(portable, "run", lambda setting, paths: runs.append((setting, len(paths))) or True)
    monkeypatch.setattr(portable.sys, "argv", ["portable.py", *arguments])
    with pytest.raises(SystemExit) as end:
        portable.main()
    assert end.value.code == 0
    count = notebooks or len(portable.chosen([]))
    assert runs == [(setting, count) for setting in settings]
