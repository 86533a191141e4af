"""The commands of the documentation are run, and what they print must be what it shows."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import pytest

from tests.cli.terminal import call
from tests.test_readme import BLOCK, ROOT, commands, run, still

PAGES = ("parameters.md",)


def printed_by(command: str, folder: Path) -> str:
    """Return a command and what it prints; normcli is run in this process, the rest in a shell."""
    name, *arguments = shlex.split(command)
    if name != "normcli":
        return run(command, folder)
    ended = call(*arguments)
    assert ended.code == 0, ended.err
    # No command of the pages says anything on both.
    assert not (ended.out and ended.err)
    return f"$ {command}\n{ended.text}{ended.err}"


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_print_what_the_page_shows(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pytest.importorskip("onnx")
    pytest.importorskip("safetensors")
    shutil.copytree(ROOT / "sample_data", tmp_path / "sample_data")
    found = BLOCK.findall((Path(ROOT) / "docs" / page).read_text())
    assert len(found) >= 4
    for block in found:
        printed = "".join(printed_by(command, tmp_path) for command in commands(block))
        assert still(printed) == still(block)
