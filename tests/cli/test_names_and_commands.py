"""What is said of a name that is none, and how a command is recorded."""

from __future__ import annotations

import shlex
import subprocess
import sys

import numpy as np
import pytest

import normcli
from normcli.api.preparing import provenance
from tests.cli.terminal import call


@pytest.mark.parametrize("name", ["measured", "no/such/folder/measured"])
def test_an_input_that_does_not_exist(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    ended = call("fit", name, "-o", "s.json")
    assert (ended.code, f"There is no {name}" in ended.err) == (3, True)
    assert "suffix that tells" not in ended.err
    # What is there, without a suffix, is told what it lacks.
    (tmp_path / "measured").write_bytes(b"1,2")
    assert "no suffix" in call("fit", "measured", "-o", "s.json").err


def test_the_recorded_command_can_be_given_again(tmp_path):
    arguments = ["fit", "my array.npy", "-o", "it's $HOME.json", "--layout", "NC"]
    np.save(tmp_path / arguments[1], np.arange(6.0).reshape(3, 2))
    subprocess.run([sys.executable, "-m", "normcli", *arguments], cwd=tmp_path, check=True)
    told = normcli.read_statistics(tmp_path / arguments[3]).statistics.provenance["command"]
    assert shlex.split(told) == ["normcli", *arguments]


def test_the_recorded_command_holds_no_secrets(monkeypatch):
    address = "s3://key:secret@bucket/x.zarr?token=abc"
    monkeypatch.setattr(sys, "argv", ["normcli", "fit", address])
    told = provenance()["command"]
    assert "secret" not in told
    assert "token" not in told
    assert shlex.split(told)[:2] == ["normcli", "fit"]


def test_no_type_is_offered_that_no_output_holds(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(6.0).reshape(3, 2))
    name, options = str(tmp_path / "x.npy"), ("--layout", "NC", "--dtype")
    offered = call("apply", name, "-o", str(tmp_path / "y.npy"), *options, "nonsense").err
    assert "float16, float32" in offered
    assert "bfloat16" not in offered
    for dtype in ("float16", "float32", "float64"):
        for suffix in ("npy", "npz", "h5", "zarr"):
            output = str(tmp_path / f"{dtype}.{suffix}")
            assert call("apply", name, "-o", output, *options, dtype).code == 0
