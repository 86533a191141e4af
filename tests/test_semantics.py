"""The commands of docs/semantics.md do what the page says of them."""

from __future__ import annotations

import re
import shlex
import shutil

from tests.cli.terminal import SAMPLES, call
from tests.test_readme import ROOT

PAGE = (ROOT / "docs" / "semantics.md").read_text()
COMMAND = re.compile(r"`(normcli [^`]+)`(?: \(exit (\d)\))?")
ROW = re.compile(r"^\| (\d+) \|", re.M)


def test_each_promise_has_a_row():
    assert sorted(map(int, ROW.findall(PAGE))) == list(range(1, 50))


def test_the_commands_run(tmp_path, monkeypatch):
    folder = tmp_path / "sample_data"
    shutil.copytree(SAMPLES, folder)
    monkeypatch.chdir(folder)
    found = COMMAND.findall(PAGE)
    assert len(found) > 60
    wrong = []
    for text, code in found:
        words = shlex.split(text)[1:]
        more = ["--overwrite"] if "-o" in words and words[words.index("-o") + 1] != "-" else []
        ended = call(*words, *more, "-q")
        if ended.code != int(code or 0):
            wrong.append(f"{text}: {ended.code}: {ended.err}")
        if ended.code:
            assert ended.err.startswith("normcli: error: "), text
    assert not wrong, "\n".join(wrong)
