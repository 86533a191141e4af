"""Storage that fails to read or to list: what is told of it is never damage, nor an emptiness."""

from __future__ import annotations

import errno
import itertools
from pathlib import Path

import numpy as np
import pytest
import zarr

from normcli.bundles.statistics_file import read_statistics
from tests.examples import pairs
from tests.faults.commands import FORMATS, source
from tests.faults.forked import Forks

# Reads of a verification are hit one in so many; all of them where time is no matter.
STEP = 8


def verified(forks: Forks, inputs: Path, folder: Path, name: str, step: int) -> None:
    """Let reads of a verification fail, once and for good, from the first to the last."""
    output = f"y{Path(name).suffix}"
    assert forks.run("apply", source(inputs, name), "-o", output, cwd=folder).code == 0
    for number in itertools.count(1, step):
        once = forks.run(
            *("verify", output), cwd=folder, at=number, errno=errno.EIO, ops="read", match=output
        )
        assert once.code == 0, (number, once.hits, once.err)
        if not once.hits:
            break
        for_good = forks.run(
            *("verify", output),
            cwd=folder,
            at=number,
            errno=errno.EIO,
            ops="read",
            match=output,
            persist=1,
        )
        assert for_good.code == 6, (number, for_good.hits, for_good.code, for_good.err)
        assert output in for_good.err
        assert for_good.err.count("normcli: error: ") == 1
        assert "damage" not in for_good.err + for_good.out
        assert "Traceback" not in for_good.err
    assert number > 5


@pytest.mark.parametrize("name", ["x.npy", "x.h5", "x.zarr"])
def test_verify_reads_again(forks: Forks, inputs, tmp_path, name):
    verified(forks, inputs, tmp_path, name, STEP)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", FORMATS)
def test_verify_reads_again_every_time(forks: Forks, inputs, tmp_path, name):
    verified(forks, inputs, tmp_path, name, 1)


@pytest.mark.parametrize("suffix", [".json", ".npz", ".h5", ".zarr"])
def test_verify_of_statistics_reads_again(forks: Forks, inputs, tmp_path, suffix):
    output = f"s{suffix}"
    assert forks.run("fit", source(inputs, "x.npy"), "-o", output, cwd=tmp_path).code == 0
    for number in (1, 3):
        faults = {"at": number, "errno": errno.EIO, "ops": "read", "match": output}
        once = forks.run("verify", output, cwd=tmp_path, **faults)
        assert once.hits or number > 1
        assert once.code == 0, once.err
        for_good = forks.run("verify", output, cwd=tmp_path, persist=1, **faults)
        assert for_good.code == (6 if for_good.hits else 0), for_good.err


def two_arrays(folder: Path) -> str:
    """Make a store whose only array of numbers has to be looked for, and return its name."""
    group = zarr.open_group(folder / "two.zarr", mode="w")
    group.create_group("a").create_array("x", data=np.arange(24.0).reshape(6, 4), chunks=(2, 4))
    return str(folder / "two.zarr")


LISTINGS = {
    "EIO": ("EIO", False, 0),
    "ESTALE": ("ESTALE", False, 0),
    "EIO for good": ("EIO", True, 6),
    "EACCES": ("EACCES", False, 3),
}


@pytest.mark.parametrize(("kind", "number"), pairs(LISTINGS, [1, 2, 3, 5]))
def test_a_folder_that_cannot_be_listed(forks: Forks, tmp_path, kind, number):
    """It is not empty: the array in it may be the one that is meant."""
    error, persist, code = LISTINGS[kind]
    name = two_arrays(tmp_path)
    ended = forks.run(
        *("fit", name, "-o", "s.json", "--layout", "NC"),
        cwd=tmp_path,
        at=number,
        errno=getattr(errno, error),
        ops="list",
        match="two.zarr",
        **({"persist": 1} if persist else {}),
    )
    assert ended.hits, number
    assert ended.code == code, ended.err
    if code:
        assert "two.zarr" in ended.err
        assert ended.err.count("normcli: error: ") == 1
        assert not (tmp_path / "s.json").exists()
    else:
        assert read_statistics(str(tmp_path / "s.json")).mean.tolist() == [10, 11, 12, 13]


@pytest.mark.parametrize(("number", "persist"), pairs([1, 4, 9], [False, True]))
def test_a_store_that_cannot_be_listed_is_not_verified(
    forks: Forks, inputs, tmp_path, number, persist
):
    """Files that are no part of an output are only seen in a listing."""
    assert forks.run("apply", source(inputs, "x.zarr"), "-o", "y.zarr", cwd=tmp_path).code == 0
    ended = forks.run(
        *("verify", "y.zarr"),
        cwd=tmp_path,
        at=number,
        errno=errno.EIO,
        ops="list",
        match="y.zarr",
        **({"persist": 1} if persist else {}),
    )
    assert ended.hits
    assert ended.code == (6 if persist else 0), ended.err


def test_what_overwrite_would_replace_must_be_listed(forks: Forks, inputs, tmp_path):
    """What cannot be seen may be somebody's data."""
    command = ["apply", source(inputs, "x.zarr"), "-o", "y.zarr", "--overwrite"]
    assert forks.run(*command, cwd=tmp_path).code == 0
    (tmp_path / "y.zarr" / "notes.txt").write_text("mine")
    for number in (1, 2, 3):
        faults = {"at": number, "errno": errno.EIO, "ops": "list", "match": "y.zarr", "persist": 1}
        ended = forks.run(*command, cwd=tmp_path, **faults)
        assert ended.code in (2, 5, 6), ended.err
        assert (tmp_path / "y.zarr" / "notes.txt").read_text() == "mine"
