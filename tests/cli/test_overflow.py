"""Results that the type of the output cannot hold are refused, or counted and told."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import normcli
from normcli.arrays.manifest import manifest_path, read_manifest
from normcli.arrays.opening import open_source
from normcli.domain.grid import Block
from normcli.errors import DataPolicyError
from tests.cli.terminal import assert_told, call, npy, run

COUNT = 4000
INTEGERS = ("u1", "i1", "u2", "i2", "i4", "i8", "u8")
LIMITS = {name: (int(np.iinfo(name).min), int(np.iinfo(name).max)) for name in INTEGERS}
SUFFIXES = ("y.npy", "y.npz", "y.h5", "y.zarr")


def whole(name: str) -> np.ndarray:
    source = open_source(name)
    start = (0,) * source.info.ndim
    return source.read(Block(0, start, source.info.shape))


@pytest.fixture
def plain(folder):
    """Return data and statistics with which ``--inverse`` returns them as they are."""
    np.save("mean.npy", np.zeros(4))
    np.save("variance.npy", np.ones(4))
    return ("--mean", "mean.npy", "--variance", "variance.npy", "--epsilon", "0", "--inverse")


def beyond(dtype: str) -> tuple[np.ndarray, dict[str, int], np.ndarray]:
    """Return values, what is lost of them in an integer type, and what they become."""
    low, high = LIMITS[dtype]
    values = np.random.default_rng(2).integers(0, 100, (COUNT // 4, 4)).astype(np.float64)
    flat = values.reshape(-1)
    above, below, unknown = 11, 7, 5
    flat[:above] = 2.0 * high
    flat[20] = np.inf
    flat[100 : 100 + below] = 2.0 * low - 1
    flat[200 : 200 + unknown] = np.nan
    # On the limits, or rounded to them, nothing is lost.
    wide = low < -(2**60) or high > 2**60
    if not wide:
        flat[300:304] = low, high, low - 0.4, high + 0.4
    expected = np.rint(np.nan_to_num(values)).clip(low, high)
    want = np.array([int(x) for x in expected.reshape(-1)], dtype=object)
    want[:above] = high
    want[20] = high
    want[100 : 100 + below] = low
    lost = {"clipped": above + 1 + below, "nan": unknown, "overflowed": 0}
    return values, lost, want.astype(dtype).reshape(values.shape)


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("output", SUFFIXES)
def test_integers(plain, dtype, output):
    values, lost, want = beyond(dtype)
    np.save("x.npy", values)
    arguments = ("apply", "x.npy", "-o", output, "--dtype", dtype, *plain)
    refused = call(*arguments)
    told = f"{lost['clipped']} values beyond {np.dtype(dtype)}"
    assert_told(refused, 7, "x.npy: the block at [0, 0] has", told, "5 NaN", "--overflow saturate")
    ended = call(*arguments, "--overflow", "saturate", "--json")
    assert ended.code == 0, ended.err
    assert json.loads(ended.text)["report"]["losses"] == lost
    assert f"warning: the results held {told}" in ended.err
    assert "beyond type" in ended.err
    np.testing.assert_array_equal(whole(output), want)
    (counted,) = read_manifest(manifest_path(output)).losses.values()
    assert counted.as_dict() == lost
    assert call("verify", output).code == 0


@pytest.mark.parametrize("dtype", ["i8", "u8"])
def test_data_on_the_limits_come_back(folder, dtype):
    """Roundings that carry them beyond are no loss."""
    low, high = LIMITS[dtype]
    data = np.random.default_rng(6).integers(low, high, (500, 2), dtype, endpoint=True)
    data[::7], data[1::7] = high, low
    np.save("x.npy", data)
    for options in ((), ("--dtype", "float64", "--mode", "layer")):
        fit = call("apply", "x.npy", "-o", "z.npy", "--overwrite", "-q", *options)
        assert fit.code == 0, fit.err
        back = call("apply", "z.npy", "-o", "b.npy", "--inverse", "--stats", "z.npy.stats.json",
                    "--dtype", dtype, "--overwrite", "--json")  # fmt: skip
        assert back.code == 0, back.err
        assert not any(json.loads(back.text)["report"]["losses"].values())


def test_bool(plain):
    np.save("x.npy", np.array([[0, 1, 0.7, -0.2], [2, -3, np.nan, 1]]))
    ended = call("apply", "x.npy", "-o", "y.npy", "--dtype", "bool", *plain, "--overflow",
                 "saturate", "--json")  # fmt: skip
    assert json.loads(ended.text)["report"]["losses"] == {"clipped": 2, "nan": 1, "overflowed": 0}


@pytest.mark.parametrize("dtype", ["i8", "u8"])
def test_integers_beyond_float64_around_their_origin(folder, dtype):
    """What is added to an origin is clipped as well."""
    low, high = LIMITS[dtype]
    middle = high - 1000
    data = np.array([[middle - 500], [middle + 500], [middle], [middle]], dtype)
    np.save("x.npy", data)
    assert call("apply", "x.npy", "-o", "z.npy", "--epsilon", "0", "-q").code == 0
    z = np.load("z.npy")
    far = np.concatenate([z, [[1e6], [-1e300], [np.nan], [1e300], [np.inf]]]).astype("f8")
    np.save("far.npy", far)
    ended = call("apply", "far.npy", "-o", "b.npy", "--inverse", "--stats", "z.npy.stats.json",
                 "--dtype", dtype, "--overflow", "saturate", "--json")  # fmt: skip
    assert ended.code == 0, ended.err
    assert json.loads(ended.text)["report"]["losses"] == {"clipped": 4, "nan": 1, "overflowed": 0}
    want = [*(int(v) for v in data[:, 0]), high, low, 0, high, high]
    assert [int(v) for v in np.load("b.npy")[:, 0]] == want


@pytest.mark.parametrize("dtype", ["f2", "f4"])
@pytest.mark.parametrize("compiled", [False, True])
def test_floats_that_overflow(folder, monkeypatch, dtype, compiled):
    if compiled:
        monkeypatch.setattr("normcli.kernels.select.SMALL", 0)
    values = np.random.default_rng(4).normal(0, 1, (COUNT // 4, 4))
    values[3, 0], values[4, 0] = np.inf, np.nan
    np.save("x.npy", values)
    np.save("scale.npy", np.full(4, 3e38 if dtype == "f4" else 60000.0))
    plain = ("--epsilon", "0", "--mean", "mean.npy", "--variance", "variance.npy")
    np.save("mean.npy", np.zeros(4))
    np.save("variance.npy", np.ones(4))
    apply = ("apply", "x.npy", "-o", "y.npy", "--dtype", dtype, "--scale", "scale.npy", *plain)
    with np.errstate(over="ignore"):
        want = (values * np.load("scale.npy")).astype(dtype)
    overflowed = int(np.count_nonzero(np.isinf(want) & np.isfinite(values)))
    assert overflowed > 100
    assert_told(
        call(*apply), 7, f"{overflowed} finite values that are infinite in {np.dtype(dtype)}"
    )
    ended = call(*apply, "--overflow", "saturate", "--json")
    assert ended.code == 0, ended.err
    report = json.loads(ended.text)["report"]
    assert report["losses"] == {"clipped": 0, "nan": 0, "overflowed": overflowed}
    assert report["written_nonfinite"] == overflowed + 2


def test_nan_and_infinities_of_the_input_are_no_overflow(folder):
    values = np.random.default_rng(4).normal(0, 1, (100, 4)).astype("f4")
    values[3, 0], values[4, 0] = np.inf, np.nan
    np.save("x.npy", values)
    assert call("apply", "x.npy", "-o", "y.npy").code == 0
    assert read_manifest("y.npy.manifest.jsonl").losses == {}
    assert_told(call("apply", "x.npy", "-o", "z.npy", "--nonfinite", "error"), 7, "NaN or infinite")


@pytest.mark.parametrize("memory", ["6MiB", "2GiB"])
@pytest.mark.parametrize("workers", [1, 3])
def test_counts_are_the_same_in_any_blocks(plain, memory, workers):
    values, lost, _ = beyond("u1")
    np.save("x.npy", np.tile(values, (600, 1)))
    ended = call("apply", "x.npy", "-o", "y.npy", "--dtype", "u1", *plain, "--overflow",
                 "saturate", "--json", "--memory", memory, "-j", workers)  # fmt: skip
    assert ended.code == 0, ended.err
    got = json.loads(ended.text)["report"]["losses"]
    assert got == {name: 600 * count for name, count in lost.items()}


def test_a_pipe(plain):
    values, lost, want = beyond("i2")
    arguments = ("apply", "-", "-o", "-", "--dtype", "i2", *plain)
    refused = run(*arguments, stdin=npy(values))
    assert_told(refused, 7, "values beyond int16")
    ended = run(*arguments, "--overflow", "saturate", stdin=npy(values))
    assert ended.code == 0
    assert f"{lost['clipped']} values beyond int16 (-32768 to 32767)" in ended.err
    assert ended.out == npy(want)


def test_an_interrupted_run_keeps_its_counts(plain, tmp_path):
    """Counts of blocks that were done before are in the journal."""
    values, lost, _ = beyond("u1")
    np.save("x.npy", np.tile(values, (3000, 1)))
    arguments = ("apply", "x.npy", "-o", "y.npy", "--dtype", "u1", *plain, "--overflow", "saturate",
                 "--json", "-j", "1", "--memory", "8MiB")  # fmt: skip
    script = (
        "import sys, os, signal\n"
        "from normcli.engine import journal\n"
        "kept = journal.Journal.add\n"
        "def add(self, number, done, seen=[0]):\n"
        "    kept(self, number, done)\n"
        "    seen[0] += 1\n"
        "    if seen[0] == 6:\n"
        "        self.flush()\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "journal.Journal.add = add\n"
        "from normcli.cli.main import entry\n"
        "entry()\n"
    )
    ended = subprocess.run([sys.executable, "-c", script, *map(str, arguments)], cwd=tmp_path)
    assert ended.returncode == -9
    again = call(*arguments)
    assert again.code == 0, again.err
    assert "continuing: " in again.err
    got = json.loads(again.text)["report"]["losses"]
    assert got == {name: 3000 * count for name, count in lost.items()}


def test_from_python(folder):
    values, lost, want = beyond("u1")
    np.save("x.npy", values)
    np.save("d.npy", np.zeros((8, 4)) + np.arange(8)[:, None])
    stats = normcli.fit("d.npy", epsilon=0.0)
    z = stats.normalize(values)
    with pytest.warns(RuntimeWarning, match=f"{lost['clipped']} values beyond uint8"):
        np.testing.assert_array_equal(stats.denormalize(z, dtype="uint8"), want)
    np.save("z.npy", z)
    with pytest.raises(DataPolicyError, match="values beyond uint8"):
        normcli.apply("z.npy", "y.npy", stats=stats, inverse=True, dtype="uint8")
    report = normcli.apply(
        "z.npy", "y.npy", stats=stats, inverse=True, dtype="uint8", overflow="saturate"
    )
    assert report.losses.as_dict() == lost


SMALL = np.array([1.0, 1e-9, 1e-5, 1e-3])


@pytest.fixture
def small(folder):
    """Return data with a group that float16 resolves not at all, one just not, and two others."""
    values = np.random.default_rng(4).uniform(-1, 1, (500, 4)) * SMALL
    np.save("x.npy", values)
    call("fit", "x.npy", "-o", "s.json", "--layout", "NC", "--epsilon", "0")
    call("apply", "x.npy", "-o", "z.npy", "--stats", "s.json")
    return values


@pytest.mark.parametrize(
    ("dtype", "names"), [("float16", "2 of 4 groups (C=1; C=2)"), ("int16", "3 of 4 groups (C=1;")]
)
def test_results_that_vanish_are_refused_before_anything_is_written(small, dtype, names):
    command = ("apply", "z.npy", "-o", "y.npy", "--stats", "s.json", "--inverse", "--dtype", dtype)
    ended = run(*command)
    assert ended.code == 7
    assert f"{dtype} resolves no result of {names}" in ended.err
    assert not Path("y.npy").exists()
    ended = run(*command, "--overflow", "saturate")
    assert ended.code == 0
    assert f"warning: {dtype} resolves no result of {names}" in ended.err
    assert np.array_equal(
        np.load("y.npy"), np.rint(small) if dtype == "int16" else small.astype(dtype)
    )


def test_what_the_type_resolves_passes(small):
    command = ("apply", "z.npy", "-o", "y.npy", "--stats", "s.json", "--inverse")
    for dtype in ("float32", "float64"):
        assert run(*command, "--dtype", dtype, "--overwrite").code == 0
    # As small in the input already, and no smaller in the output.
    np.save("h.npy", small[:, 1:3].astype(np.float16))
    assert run("apply", "h.npy", "-o", "c.npy", "--layout", "NC", "--method", "center").code == 0


@pytest.mark.parametrize(("bias", "code"), [(0.0, 7), (1.0, 0)])
def test_a_scale_that_lets_results_vanish(small, bias, code):
    np.save("scale.npy", np.full(4, 1e-6))
    np.save("bias.npy", np.full(4, bias))
    ended = run(
        *("apply", "x.npy", "-o", "y.npy", "--layout", "NC", "--epsilon", "0"),
        *("--dtype", "float16", "--scale", "scale.npy", "--bias", "bias.npy"),
    )
    assert ended.code == code, ended.err
    assert ("4 of 4 groups" in ended.err) == (code == 7)


def test_an_epsilon_that_was_asked_for_flattens(small):
    """One dead channel among others does not end a run."""
    ended = run(
        *("apply", "x.npy", "-o", "y.npy", "--layout", "NC", "--epsilon", "1e-5"),
        *("--dtype", "float16"),
    )
    assert ended.code == 0, ended.err
