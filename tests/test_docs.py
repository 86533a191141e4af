"""The commands of the documentation are run, and what they print must be what it shows."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.test_readme import BLOCK, ROOT, commands, run, still

PAGES = ("parameters.md",)


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_print_what_the_page_shows(page, tmp_path):
    pytest.importorskip("onnx")
    pytest.importorskip("safetensors")
    shutil.copytree(ROOT / "sample_data", tmp_path / "sample_data")
    found = BLOCK.findall((Path(ROOT) / "docs" / page).read_text())
    assert len(found) >= 4
    for block in found:
        printed = "".join(run(command, tmp_path) for command in commands(block))
        assert still(printed) == still(block)
