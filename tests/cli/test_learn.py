"""normcli learn as its users meet it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import h5py
import numpy as np
import pytest

from normcli.bundles.parameter_file import read_affine, write_affine
from normcli.domain.affine import Affine
from tests.cli.terminal import assert_told, call, drafts


@pytest.fixture
def pair(folder: Path) -> Path:
    """Return a folder with ``x.npy`` and its target ``t.npy``, both (40, 6)."""
    x = np.load("x.npy").astype("f8")
    np.save("t.npy", 2 * x + np.arange(6))
    return folder


def test_what_is_learned_undoes_the_normalization_and_applies(pair: Path):
    ended = call("learn", "x.npy", "t.npy", "-o", "a.json", "--layout", "NC")
    assert ended.code == 0, ended.err
    assert ended.out == b""
    for words in ("learn done", "240, left out 0", "loss", "(exact)", "scale and bias  a.json"):
        assert words in ended.err
    ended = call("apply", "x.npy", "-o", "y.npy", "--affine", "a.json", "--layout", "NC")
    assert ended.code == 0, ended.err
    np.testing.assert_allclose(np.load("y.npy"), np.load("t.npy"), rtol=1e-6)


def test_json_without_an_output_is_the_affine(pair: Path):
    ended = call("learn", "x.npy", "t.npy", "--layout", "NC", "--json", "-q", "--epsilon", "0")
    assert ended.code == 0
    document = json.loads(ended.text)
    x = np.load("x.npy").astype("f8")
    np.testing.assert_allclose(document["affine"]["scale"], 2 * x.std(0), rtol=1e-12)
    assert document["report"]["learned"]["undetermined"] == 0
    assert [p["kind"] for p in document["plan"]["passes"]] == ["measure", "learn"]


def test_the_loss_is_shown_as_it_falls(pair: Path):
    ended = call(
        *("learn", "x.npy", "t.npy", "-o", "a.npz", "--layout", "NC", "--solver", "sgd"),
        *("--batch-size", 16, "--epochs", 10, "--learning-rate", 0.5, "--shuffle", "--seed", 1),
    )
    assert ended.code == 0, ended.err
    lines = [line for line in ended.err.splitlines() if line.startswith("normcli: loss")]
    losses = [float(line.split()[2]) for line in lines]
    assert [line.split(" after ")[1] for line in lines] == [
        f"{n} of 10 epochs" for n in (0, 1, 2, 5, 10)
    ]
    assert losses == sorted(losses, reverse=True)
    assert "10 epochs of 3 batches" in ended.err


def test_a_dry_run_shows_both_passes_and_writes_nothing(pair: Path):
    before = sorted(os.listdir())
    ended = call("learn", "x.npy", "t.npy", "-o", "a.json", "--layout", "NC", "--dry-run")
    assert ended.code == 0
    assert "measuring: 1 block" in ended.err
    assert "summing input and target: 1 block" in ended.err
    assert sorted(os.listdir()) == before


def test_overwrite_replaces_learned_parameters_only(pair: Path):
    again = ("learn", "x.npy", "t.npy", "--layout", "NC", "-q")
    assert call(*again, "-o", "a.json").code == 0
    first = Path("a.json").read_bytes()
    assert_told(call(*again, "-o", "a.json"), 2, "a.json", "exists")
    assert Path("a.json").read_bytes() == first
    assert call(*again, "-o", "a.json", "--overwrite", "--l2", "3").code == 0
    assert read_affine("a.json").scale.tolist() != json.loads(first)["arrays"]["scale"]["data"]
    with h5py.File("model.h5", "w") as file:
        file["weight"] = np.ones(6)
    model = Path("model.h5").read_bytes()
    ended = call(*again, "-o", "model.h5", "--overwrite")
    assert_told(ended, 2, "model.h5 holds something else")
    assert Path("model.h5").read_bytes() == model


def _sharp() -> None:
    x = np.load("x.npy")
    np.save("short.npy", x[:, :5])
    holes = x.copy()
    holes[3, 2] = np.nan
    np.save("holes.npy", holes)
    np.save("void.npy", np.full_like(x, np.nan))
    np.save("huge.npy", x.astype("f8") * 1e200)
    np.save("five.npy", np.ones(5))
    write_affine("both.npz", Affine(np.ones(6), np.zeros(6)))


SGD = ["--solver", "sgd"]


@pytest.mark.parametrize(
    ("code", "arguments", "words"),
    [
        # the arrays
        (3, ["x.npy", "short.npy"], ["(40, 6)", "short.npy has (40, 5)"]),
        (3, ["x.npy", "missing.npy"], ["missing.npy"]),
        (2, ["-", "t.npy"], ["pipe"]),
        (2, ["x.npy", "-"], ["pipe"]),
        (7, ["x.npy", "void.npy"], ["no pair of two finite values", "240"]),
        (7, ["x.npy", "holes.npy", "--nonfinite", "error"], ["holes.npy holds 1 NaN"]),
        (7, ["holes.npy", "x.npy", "--nonfinite", "error"], ["holes.npy holds 1 NaN"]),
        (7, ["x.npy", "holes.npy", "--nonfinite", "propagate"], ["1 of 6 cells NaN"]),
        (7, ["x.npy", "huge.npy"], ["leave float64", "6 of 6 cells"]),
        # penalties
        (2, ["x.npy", "t.npy", "--l2-scale", "-1"], ["--l2-scale -1", "0 or more"]),
        (2, ["x.npy", "t.npy", "--l2-bias", "nan"], ["--l2-bias nan"]),
        (2, ["x.npy", "t.npy", "--l2", "inf"], ["--l2 inf"]),
        (2, ["x.npy", "t.npy", "--scale-l2-factor", "2"], ["--scale-l2-factor does nothing"]),
        (2, ["x.npy", "t.npy", "--l2", "1", "--bias-l2-factor", "-2"], ["--bias-l2-factor -2"]),
        (2, ["x.npy", "t.npy", "--l1-scale", "1"], ["--l1-scale needs --solver sgd"]),
        (2, ["x.npy", "t.npy", *SGD, "--l1-bias", "-1"], ["--l1-bias -1"]),
        # bounds and constraints
        (2, ["x.npy", "t.npy", "--scale-bounds", "2,1"], ["lower bound 2 exceeds", "bound 1"]),
        (2, ["x.npy", "t.npy", "--bias-bounds", "1"], ["--bias-bounds '1'"]),
        (2, ["x.npy", "t.npy", "--bias-bounds", "a,b"], ["--bias-bounds 'a,b'"]),
        (2, ["x.npy", "t.npy", "--bias-bounds", ","], ["bounds nothing"]),
        (2, ["x.npy", "t.npy", "--bias-bounds", "inf,"], ["exceeds"]),
        (2, ["x.npy", "t.npy", "--scale-constraint", "unit-norm"], ["needs --solver sgd"]),
        (2, ["x.npy", "t.npy", *SGD, "--scale-constraint", "max-norm:x"], ["max-norm:x"]),
        (
            2,
            ["x.npy", "t.npy", "--scale-constraint", "nonneg", "--scale-bounds", "0,"],
            ["--scale-constraint and --scale-bounds exclude each other"],
        ),
        # what is learned, and from where
        (2, ["x.npy", "t.npy", "--scale", "none", "--bias", "none"], ["Neither scale nor bias"]),
        (2, ["x.npy", "t.npy", "--scale", "none", "--freeze", "bias"], ["Neither scale nor bias"]),
        (2, ["x.npy", "t.npy", "--freeze", "scale", "--freeze", "bias"], ["nothing to be learned"]),
        (2, ["x.npy", "t.npy", "--scale", "none", "--freeze", "scale"], ["exclude each other"]),
        (2, ["x.npy", "t.npy", "--freeze", "scale", "--l2-scale", "1"], ["--l2-scale", "frozen"]),
        (2, ["x.npy", "t.npy", "--bias", "none", "--bias-bounds", "0,"], ["bias is dropped"]),
        (3, ["x.npy", "t.npy", "--scale", "five.npy"], ["shape (5,)", "(6,)"]),
        (3, ["x.npy", "t.npy", "--mean", "five.npy", "--variance", "five.npy"], ["(5,)", "(6,)"]),
        (2, ["x.npy", "t.npy", "--affine", "both.npz", "--scale-init", "ones"], ["both say"]),
        (2, ["x.npy", "t.npy", "--scale", "none", "--scale-init", "ones"], ["both say"]),
        (2, ["x.npy", "t.npy", "--bias-init", "narrow-normal"], ["needs --seed"]),
        (2, ["x.npy", "t.npy", "--seed", "1"], ["--seed does nothing"]),
        (2, ["x.npy", "t.npy", "--bias-init", "narrow-normal", "--seed", "-1"], ["--seed -1"]),
        (2, ["x.npy", "t.npy", "--estimate", "moving"], ["--stats"]),
        # steps
        (2, ["x.npy", "t.npy", "--epochs", "3"], ["--epochs needs --solver sgd"]),
        (2, ["x.npy", "t.npy", "--learning-rate", "1"], ["--learning-rate needs --solver sgd"]),
        (2, ["x.npy", "t.npy", "--momentum", "0.9"], ["--momentum needs --solver sgd"]),
        (2, ["x.npy", "t.npy", "--batch-size", "8"], ["--batch-size needs --solver sgd"]),
        (2, ["x.npy", "t.npy", "--shuffle"], ["--shuffle needs --solver sgd"]),
        (2, ["x.npy", "t.npy", "--scale-rate-factor", "0"], ["needs --solver sgd", "--freeze"]),
        (2, ["x.npy", "t.npy", *SGD, "--epochs", "0"], ["--epochs 0"]),
        (2, ["x.npy", "t.npy", *SGD, "--learning-rate", "-1"], ["--learning-rate -1"]),
        (2, ["x.npy", "t.npy", *SGD, "--learning-rate", "0"], ["learns nothing"]),
        (2, ["x.npy", "t.npy", *SGD, "--momentum", "1"], ["--momentum 1"]),
        (2, ["x.npy", "t.npy", *SGD, "--bias-rate-factor", "-1"], ["--bias-rate-factor -1"]),
        (2, ["x.npy", "t.npy", *SGD, "--batch-size", "0"], ["--batch-size 0"]),
        (2, ["x.npy", "t.npy", *SGD, "--batch-size", "8,4"], ["one size"]),
        (2, ["x.npy", "t.npy", *SGD, "--shuffle", "--seed", "1"], ["--batch-size"]),
        (2, ["x.npy", "t.npy", *SGD, "--shuffle", "--batch-size", "8"], ["--seed"]),
        (
            2,
            ["x.npy", "t.npy", *SGD, "--batch-size", "8", "--scale-axes", "NC"],
            ["scale axes that include the batch axis"],
        ),
        (
            7,
            ["x.npy", "t.npy", *SGD, "--learning-rate", "1e6", "--epochs", "99"],
            ["left float64", "--learning-rate"],
        ),
        # the output
        (2, ["x.npy", "t.npy", "-o", "a.npy"], ["a.npy holds one array"]),
        (2, ["x.npy", "t.npy", "-o", "a.txt"], ["a.txt has no suffix"]),
        (2, ["x.npy", "t.npy", "-o", "-"], ["standard output"]),
        (2, ["x.npy", "t.npy", "-o", "t.npy", "--bias", "none"], ["t.npy"]),
        (5, ["x.npy", "t.npy", "-o", "no/such/a.json"], ["no/such"]),
        (2, ["x.npy", "t.npy", "--memory", "1MiB"], ["budget", "--memory"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_each_mistake_is_told_in_one_line_and_leaves_nothing(
    pair: Path, code: int, arguments: list[str], words: list[str]
):
    _sharp()
    before = sorted(os.listdir())
    output = [] if "-o" in arguments else ["-o", "a.json"]
    ended = call("learn", *arguments, *output, "--layout", "NC", "--no-progress")
    told = [line for line in ended.err.splitlines() if not line.startswith("normcli: loss")]
    assert ended.code == code, ended.err
    errors = [line for line in told if line.startswith("normcli: error:")]
    assert len(errors) == 1
    for word in words:
        assert word in "\n".join(told), ended.err
    assert ended.out == b""
    assert drafts(pair) == []
    assert sorted(os.listdir()) == before


def test_no_output_is_a_mistake(pair: Path):
    assert_told(call("learn", "x.npy", "t.npy", "--layout", "NC"), 2, "needs an output")


def test_a_batch_size_needs_a_batch_axis(pair: Path):
    ended = call(
        "learn", "x.npy", "t.npy", "-o", "a.json", "--layout", "HW", *SGD, "--batch-size", 8
    )
    assert_told(ended, 2, "has no N")


def test_dimensions_that_differ_are_told(folder: Path):
    import zarr

    for name, dims in (("a", ("lat", "lon")), ("b", ("lon", "lat"))):
        array = zarr.create_array(
            f"{name}.zarr", shape=(5, 5), chunks=(5, 5), dtype="f8", dimension_names=dims
        )
        array[...] = np.arange(25.0).reshape(5, 5)
    ended = call(
        *("learn", "a.zarr", "b.zarr", "-o", "c.json", "--layout", "HW"),
        *("--mode", "custom", "--aggregate", "HW"),
    )
    assert ended.code == 0, ended.err
    assert "dimensions of a.zarr are lat, lon, but those of b.zarr are lon, lat" in ended.err
