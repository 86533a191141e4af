"""Names of outputs: bytes that are no UTF-8, and folders that are there already."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from tests.cli.terminal import call


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", np.random.default_rng(0).normal(size=(40, 3)))
    return tmp_path


@pytest.mark.parametrize("output", ["y.npy", "y.h5", "y.zarr", "y.npz"])
@pytest.mark.parametrize("statistics", ["s.json", "s.zarr"])
def test_names_that_are_no_utf8(folder, output, statistics):
    odd = os.fsdecode(b"n\xff")
    try:
        os.mkdir(odd)
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    source = f"{odd}/" + os.fsdecode(b"\xfe.npy")
    os.rename("x.npy", source)
    fitted, applied = f"{odd}/{statistics}", f"{odd}/{output}"
    assert call("fit", source, "-o", fitted).code == 0
    assert call("apply", source, "--stats", fitted, "-o", applied).code == 0
    assert call("verify", applied).code == 0
    assert "is sound" in call("verify", applied).err


@pytest.mark.parametrize("output", ["y.npy", "y.npz", "y.h5", "y.zarr"])
def test_a_folder_of_other_things_is_not_replaced(folder, output):
    Path(output).mkdir()
    kept = Path(output, "precious")
    kept.write_text("years of work")
    ended = call("apply", "x.npy", "-o", output, "--overwrite")
    assert ended.code == 2
    assert "is not replaced" in ended.err
    assert call("fit", "x.npy", "-o", f"{output}.json").code == 0
    assert kept.read_text() == "years of work"


@pytest.mark.parametrize("statistics", ["s.json", "s.npz", "s.zarr"])
def test_a_folder_is_not_replaced_by_statistics(folder, statistics):
    Path(statistics).mkdir()
    kept = Path(statistics, "precious")
    kept.write_text("years of work")
    assert call("fit", "x.npy", "-o", statistics, "--overwrite").code == 2
    assert kept.read_text() == "years of work"


def test_a_store_is_replaced(folder):
    for _ in range(2):
        assert call("apply", "x.npy", "-o", "y.zarr", "--overwrite").code == 0
    assert call("verify", "y.zarr").code == 0
