"""What is drawn on a terminal, and what is not."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from normcli.cli.screen import Screen
from normcli.domain.grid import Grid
from normcli.engine.events import Progress
from normcli.planning.plan import Pass
from tests.cli.terminal import on_terminal

BAR = "━"


def test_a_live_bar_with_bytes_and_speed(folder: Path):
    code, text = on_terminal("apply", "x.npy", "-o", "y.npy", cwd=folder)
    assert code == 0
    assert BAR in text
    assert re.search(r"measuring \(pass 1 of 2\).*100 %, 960 B at [\d.]+ [KM]?i?B/s", text)
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")  # the cursor is back
    assert "apply done" in text
    # After the bar nothing of it remains but the summary.
    assert "normcli: measuring" not in text


def test_no_progress_draws_no_bar(folder: Path):
    code, text = on_terminal("apply", "x.npy", "-o", "y.npy", "--no-progress", cwd=folder)
    assert code == 0
    assert BAR not in text
    assert "measuring" not in text
    assert "\x1b[2K" not in text
    assert "apply done" in text


def test_no_color_and_dumb_terminals(folder: Path):
    _, plain = on_terminal("apply", "x.npy", "-o", "y.npy", cwd=folder, NO_COLOR="1")
    assert not re.search(r"\x1b\[[\d;]*m", plain)
    code, dumb = on_terminal("apply", "x.npy", "-o", "z.npy", cwd=folder, TERM="dumb")
    assert code == 0
    assert "\x1b" not in dumb
    assert BAR not in dumb
    assert "normalizing (pass 2 of 2): 100 %" in dumb


def test_quiet_is_quiet_on_a_terminal(folder: Path):
    assert on_terminal("fit", "x.npy", "-o", "s.json", "-q", cwd=folder) == (0, "")


def test_narrow_terminals_keep_the_columns(folder: Path):
    code, text = on_terminal("inspect", "x.npy", cwd=folder, columns=1, COLUMNS="1", NO_COLOR="1")
    assert code == 0
    assert "x.npy" in text
    assert "float32" in text


def test_binary_is_not_written_to_a_terminal_nor_read_from_one(folder: Path):
    code, text = on_terminal("apply", "x.npy", "-o", "-", cwd=folder, NO_COLOR="1")
    assert code == 2
    assert "Standard output is a terminal" in text
    code, text = on_terminal("fit", "-", "-o", "s.json", cwd=folder, NO_COLOR="1")
    assert code == 2
    assert "Standard input is a terminal" in text


@pytest.mark.parametrize(
    ("progress", "wait", "lines"), [(None, 11, 1), (None, 2, 0), (True, 2, 1), (False, 11, 0)]
)
def test_a_log_gets_a_line_now_and_then(capsys, monkeypatch, progress, wait, lines):
    clock = [100.0]
    monkeypatch.setattr("normcli.cli.screen.time.monotonic", lambda: clock[0])
    screen = Screen(progress=progress)
    work = Pass("measure", Grid((10, 4), (5, 4)), 8, 2000, 0, "")
    screen.started(work, 1, 1)
    clock[0] += wait
    screen.advanced(Progress(1, 1000, 0))
    told = capsys.readouterr().err
    assert told.count("\n") == lines
    if lines:
        speed = f"{1000 / wait:.0f} B/s"
        assert told == f"normcli: measuring: 50 %, 1000 B at {speed}, {wait:.1f} s left\n"
    clock[0] += wait
    screen.advanced(Progress(1, 1000, 0))
    screen.finished(2 * wait)
    assert ("100 %" in capsys.readouterr().err) == (progress is not False)


def test_a_warning_hides_no_control_codes(capsys):
    Screen().warn("a name \x1b[31m[red]\n\u202e", "and \x07 a hint")
    told = capsys.readouterr().err
    assert told == "normcli: warning: a name \\x1b[31m[red]\\n\\u202e\nHint: and \\x07 a hint\n"


def test_long_lines_of_a_log_stay_whole(capsys):
    Screen().table("plan", [("memory", "word " * 200)])
    assert capsys.readouterr().err.count("\n") == 2


def test_numbers_for_people():
    from normcli.cli.texts import counted, duration, shape_text, size

    assert [size(n) for n in (0, 1023, 1024, 300 << 20, 3 << 40)] == [
        "0 B", "1023 B", "1.0 KiB", "300 MiB", "3.0 TiB",
    ]  # fmt: skip
    assert [duration(s) for s in (0.04, 61, 3700)] == ["0.0 s", "1 min 01 s", "1 h 01 min"]
    assert [counted(n, "pass", "passes") for n in (1, 2)] == ["1 pass", "2 passes"]
    assert shape_text(np.zeros((2, 3)).shape) == "(2, 3)"
