"""What goes wrong in the hands of users: refused by the right code, in words that help."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.cli.terminal import Ended, assert_told, call, drafts

APPLY = ["apply", "x.npy", "-o", "y.npy"]


@pytest.fixture
def mess(folder: Path) -> Path:
    """Return a folder with inputs of every wrong kind."""
    values = {
        "one": np.ones((1, 3)),
        "empty": np.ones((0, 3)),
        "hollow": np.ones((3, 0)),
        "scalar": np.float64(3),
        "strings": np.array(["a"]),
        "complex": np.ones(3, complex),
        "dates": np.array(["2020-01-01"], "M8[D]"),
        "records": np.zeros(3, [("field", "f4")]),
        "mean": np.zeros(6),
        "variance": np.ones(6),
        "negative": -np.ones(6),
        "five": np.ones(5),
        "single": np.ones(1),
        "square": np.ones((6, 6)),
        "nans": np.full(6, np.nan),
        "nan": np.array([[1, np.nan], [2, 3.0]]),
        "cube": np.ones((2, 3, 4)),
        "other": np.random.default_rng(0).normal(size=(9, 5)),
    }
    for name, array in values.items():
        np.save(f"{name}.npy", array)
    np.save("objects.npy", np.array([{}, 1], object), allow_pickle=True)
    with h5py.File("several.h5", "w") as file:
        file["a/first"] = np.ones((2, 3))
        file["second"] = np.ones(4)
    with h5py.File("hostile.h5", "w") as file:
        file["\x1b[31m[red]a\nb"] = np.ones((3, 2))
        file["z"] = np.ones((3, 2))
    Path("old.npy").write_bytes(Path("x.npy").read_bytes())
    Path("plain.txt").write_text("no array")
    os.link("x.npy", "hard.npy")
    os.symlink("x.npy", "soft.npy")
    assert call("fit", "x.npy", "-o", "x.json", "-q").code == 0
    return folder


CASES = {
    "missing file": (["fit", "missing.npy", "-o", "s.json"], 3, ["missing.npy does not exist"]),
    "missing array": (["fit", "several.h5/none", "-o", "s.json"], 3, ["several.h5", "none"]),
    "which array": (["fit", "several.h5", "-o", "s.json"], 3,
                    ["holds 2 arrays", "a/first (2, 3) float64", "several.h5/a/first"]),
    "suffix of an input": (["fit", "plain.txt", "-o", "s.json"], 3, [".txt", ".zarr"]),
    "suffix of an output": (["apply", "x.npy", "-o", "y.foo"], 2, [".foo", ".zarr"]),
    "suffix of statistics": (["fit", "x.npy", "-o", "s.foo"], 2, ["s.foo", ".safetensors"]),
    "statistics to stdout": (["fit", "x.npy", "-o", "-"], 2, ["--json"]),
    "no output": (["fit", "x.npy"], 2, ["-o STATS.json", "--json"]),
    "rank of the layout": ([*APPLY, "--layout", "NCHW"], 2, ["4 axes", "has 2"]),
    "letter of the layout": ([*APPLY, "--layout", "NQ"], 2, ["Q"]),
    "axis out of range": ([*APPLY, "--mode=custom", "--aggregate", "5"], 2, ["5", "0 to 1"]),
    "axis of many digits": ([*APPLY, "--mode=custom", "--aggregate", "9" * 5000], 2, ["no axis"]),
    "range of many digits": ([*APPLY, "--mode=custom", "--aggregate=0:" + "9" * 5000], 2,
                             ["no axis"]),
    "excluded many times": ([*APPLY, "--mode=custom", "--aggregate", "~" * 5000 + "C"], 2,
                            ["more than once"]),
    "axis twice": ([*APPLY, "--mode=custom", "--aggregate", "1,-1"], 2, ["twice"]),
    "no aggregate": ([*APPLY, "--mode=custom"], 2, ["--aggregate"]),
    "aggregate with a preset": ([*APPLY, "--aggregate", "0"], 2, ["--mode custom"]),
    "groups that do not divide": ([*APPLY, "--mode=group", "--groups", "4"], 2, ["4", "6"]),
    "channels asserted": ([*APPLY, "--num-channels", "5"], 3, ["6 channels", "5"]),
    "shape asserted": ([*APPLY, "--expect-shape", "*,5"], 3, ["(40, 6)", "*,5"]),
    "a shape of many digits": ([*APPLY, "--expect-shape", "9" * 5000 + ",3"], 2, ["no shape"]),
    "a shape of no digits": ([*APPLY, "--expect-shape", "\u00b2,3"], 2, ["no shape"]),
    "a shape of no digits, of a scale": (["init", "--shape", "\u00b2", "-o", "i.json"], 2,
                                         ["no shape"]),
    "a shape of many digits, of a scale": (["init", "--shape", "9" * 5000, "-o", "i.json"], 2,
                                           ["no shape"]),
    "a shape that is none": ([*APPLY, "--expect-shape", "big"], 2, ["'big'", "*,3,224,224"]),
    "channels of statistics": (["apply", "other.npy", "-o", "y.npy", "--stats", "x.json"], 3,
                               ["(6,)", "(5,)"]),
    "missing statistics": ([*APPLY, "--stats", "no.json"], 3, ["no.json"]),
    "stats and mean": ([*APPLY, "--stats", "x.json", "--mean", "mean.npy"], 2, ["excludes"]),
    "stats and another mode": ([*APPLY, "--stats", "x.json", "--mode", "layer"], 2,
                               ["--mode layer", "fitted with mode batch"]),
    "negative variance": ([*APPLY, "--mean=mean.npy", "--variance=negative.npy"], 7,
                          ["negative.npy", "negative"]),
    "mean alone": ([*APPLY, "--mean", "mean.npy"], 2, ["--variance"]),
    "shape of the mean": ([*APPLY, "--mean=five.npy", "--variance=five.npy"], 3, ["(5,)", "(6,)"]),
    "shape of the scale": ([*APPLY, "--scale", "five.npy"], 3, ["(5,)", "(6,)"]),
    "scale to broadcast": ([*APPLY, "--scale", "single.npy"], 3, ["(1,)", "broadcast"]),
    "scale too large": ([*APPLY, "--scale", "square.npy"], 3, ["(6, 6)"]),
    "scale of NaN": ([*APPLY, "--scale", "nans.npy"], (3, 7), ["nans.npy", "6 NaN"]),
    "missing bias": ([*APPLY, "--bias", "no.npy"], 3, ["no.npy"]),
    "epsilon below 0": ([*APPLY, "--epsilon", "-1"], 2, ["-1", "0 or more"]),
    "epsilon nan": ([*APPLY, "--epsilon", "nan"], 2, ["finite"]),
    "epsilon of words": ([*APPLY, "--epsilon", "small"], 2, ["'small'"]),
    "ddof 2": ([*APPLY, "--ddof", "2"], 2, ["--ddof"]),
    "ddof of one element": (["fit", "one.npy", "-o", "s.json", "--ddof", "1"], 7,
                            ["one element", "--ddof 0"]),
    "no rows": (["fit", "empty.npy", "-o", "s.json"], 3, ["empty.npy is empty", "(0, 3)"]),
    "no columns": (["apply", "hollow.npy", "-o", "y.npy"], 3, ["empty", "(3, 0)"]),
    "scalar": (["fit", "scalar.npy", "-o", "s.json"], 3, ["single number"]),
    "objects": (["fit", "objects.npy", "-o", "s.json"], (3, 4), ["objects.npy"]),
    "strings": (["fit", "strings.npy", "-o", "s.json"], 3, ["strings"]),
    "complex": (["fit", "complex.npy", "-o", "s.json"], 3, ["complex128"]),
    "dates": (["fit", "dates.npy", "-o", "s.json"], 3, ["datetime64"]),
    "records": (["fit", "records.npy", "-o", "s.json"], 3, ["field"]),
    "NaN refused": (["fit", "nan.npy", "-o", "s.json", "--nonfinite=error"], 7, ["1 NaN"]),
    "existing output": (["apply", "x.npy", "-o", "old.npy"], 2, ["old.npy exists", "--overwrite"]),
    "existing statistics": (["fit", "x.npy", "-o", "x.json"], 2, ["x.json exists"]),
    "output is the input": (["apply", "x.npy", "-o", "x.npy", "--overwrite"], 2, ["is the input"]),
    "hard link to the input": (["apply", "x.npy", "-o", "hard.npy", "--overwrite"], 2, ["input"]),
    "link to the input": (["apply", "x.npy", "-o", "soft.npy", "--overwrite"], 2, ["input"]),
    "output in the input": (["apply", "several.h5/second", "-o", "several.h5/n", "--layout=N"],
                            2, ["input"]),
    "inverse without statistics": ([*APPLY, "--inverse"], 2, ["--stats"]),
    "dtype of integers": ([*APPLY, "--dtype", "int8"], 2, ["int8", "float32"]),
    "unknown dtype": ([*APPLY, "--dtype", "foo"], 2, ["'foo'"]),
    "training without batches": ([*APPLY, "--training"], 2, ["--batch-size 32"]),
    "batches without momentum": (["fit", "x.npy", "-o", "s.json", "--batch-size", "4"], 2,
                                 ["--momentum 0.9"]),
    "momentum without batches": (["fit", "x.npy", "-o", "s.json", "--momentum", "0.9"], 2,
                                 ["--batch-size"]),
    "momentum 4": (["fit", "x.npy", "-o", "s.json", "--momentum=4", "--batch-size=4"], 2,
                   ["0 to 1"]),
    "batches of words": (["fit", "x.npy", "-o", "s.json", "--batch-size", "a,b"], 2, ["'a,b'"]),
    "update of another shape": (["fit", "other.npy", "-o", "s.json", "--update", "x.json"], 3,
                                ["(6,)", "(5,)"]),
    "no memory": ([*APPLY, "--memory", "much"], 2, ["'much'", "2GiB"]),
    "no workers": ([*APPLY, "-j", "0"], 2, ["-j 0"]),
    "two schedulers": ([*APPLY, "--scheduler=tcp://a:1", "--scheduler-file=f"], 2, ["exclude"]),
    "missing scheduler file": ([*APPLY, "--scheduler-file", "no.json"], 3, ["no.json"]),
    "sidecar and none": ([*APPLY, "--stats-out", "s.json", "--no-stats-out"], 2, ["exclude"]),
    "two things on stdout": (["apply", "x.npy", "-o", "-", "--json"], 2, ["standard output"]),
    "several ranks": (["fit", "x.npy", "cube.npy", "-o", "s.json"], 3, ["cube.npy"]),
    "nothing to inspect": (["inspect", "no.json"], 3, ["no.json"]),
    "no such store": (["inspect", "no.zarr"], 3, ["no.zarr"]),
    "a file as a folder": (["apply", "x.npy", "-o", "plain.txt/y.npy"], 5, ["plain.txt"]),
    "no folder": (["fit", "x.npy", "-o", "no/s.json"], 5, ["no"]),
    "a URL": (["fit", "s3://bucket/x.zarr", "-o", "s.json"], 3, ["URL"]),
    "unknown command": (["fitt"], 2, ["'fitt'", "fit"]),
    "unknown option": (["fit", "x.npy", "--overwirte"], 2, ["--overwirte", "--overwrite"]),
    "unknown choice": ([*APPLY, "--mode", "bach"], 2, ["'bach'", "batch"]),
    "no input": (["apply", "-o", "y.npy"], 2, ["INPUT"]),
    "no place": (["apply", "x.npy"], 2, ["--output"]),
    "names that drive terminals": (["fit", "hostile.h5", "-o", "s.json"], 3,
                                   [r"\x1b[31m[red]a\nb"]),
}  # fmt: skip

# Errors that say all there is to say.
WITHOUT_HINT = {
    "missing array",
    "channels asserted",
    "shape asserted",
    "missing statistics",
    "stats and mean",
    "scale of NaN",
    "missing bias",
    "no workers",
    "momentum 4",
    "two schedulers",
    "sidecar and none",
    "update of another shape",
    "nothing to inspect",
    "mean alone",
    "ddof 2",
    "groups that do not divide",
    "several ranks",
    "letter of the layout",
}


@pytest.mark.parametrize("name", CASES)
def test_refused(mess: Path, name: str):
    arguments, code, words = CASES[name]
    before = {p: os.stat(p).st_mtime_ns for p in os.listdir(mess)}
    ended: Ended = call(*arguments)
    codes = code if isinstance(code, tuple) else (code,)
    assert ended.code in codes, ended
    assert_told(ended, ended.code, *words, hint=name not in WITHOUT_HINT)
    assert ended.out == b""
    assert all(c.isprintable() or c == "\n" for c in ended.err)
    assert {p: os.stat(p).st_mtime_ns for p in os.listdir(mess)} == before
    assert drafts(mess) == []
