"""A fit that is killed keeps the exact sums that its sidecar holds."""

from __future__ import annotations

import shutil

import pytest

from normcli.bundles.formats import read_bundle
from tests.cli.terminal import run
from tests.examples import steps
from tests.faults.commands import CHANGES
from tests.faults.forked import Forks

PART = ("--part", "2/3")


@pytest.mark.parametrize(
    ("suffix", "more"),
    [
        ("json", ()),
        ("npz", PART),
        pytest.param("json", PART, marks=pytest.mark.slow),
        pytest.param("npz", (), marks=pytest.mark.slow),
    ],
    ids=["json-whole", "npz-part", "json-part", "npz-whole"],
)
def test_a_killed_fit_keeps_its_exact_sums(forks: Forks, inputs, tmp_path, suffix, more):
    command = ["fit", str(inputs / "x.zarr"), "-o", f"s.{suffix}", "--memory", "4300KiB", *more]
    (tmp_path / "whole").mkdir()
    assert run(*command, cwd=tmp_path / "whole").code == 0
    arrays = read_bundle(str(tmp_path / "whole" / f"s.{suffix}")).arrays
    assert {"exponent", "total", "squares"} <= set(arrays)
    continued = 0
    for number in range(2, 12, steps(3)):
        folder = tmp_path / str(number)
        folder.mkdir()
        faulty = forks.run(
            *command, cwd=folder, at=number, signal=9, match=str(folder), ops=CHANGES
        )
        assert faulty.code == (-9 if faulty.hits else 0)
        ended = forks.run(*command, "--overwrite", cwd=folder)
        assert ended.code == 0, ended.err
        continued += "continuing: " in ended.err
        found = read_bundle(str(folder / f"s.{suffix}")).arrays
        assert {n: a.tobytes() for n, a in found.items()} == {
            n: a.tobytes() for n, a in arrays.items()
        }
        shutil.rmtree(folder)
    assert continued
