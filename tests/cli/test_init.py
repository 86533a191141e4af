"""Scale and bias to begin with."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from normcli.bundles.formats import read_bundle
from normcli.bundles.parameter_file import read_affine
from tests.cli.terminal import call


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Work where x.npy is (5, 3, 4, 6), and stats.json its statistics along C."""
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", np.random.default_rng(0).normal(size=(5, 3, 4, 6)))
    assert call("fit", "x.npy", "-o", "stats.json", "--layout", "NCHW").code == 0
    return tmp_path


def made(*arguments, output="a.npz"):
    ended = call("init", *arguments, "-o", output, "--overwrite")
    assert ended.code == 0, ended.err
    return read_affine(output)


@pytest.mark.parametrize(
    ("arguments", "shape"),
    [
        (["--shape", "7"], (7,)),
        (["--shape", "2,3"], (2, 3)),
        (["--shape", "none"], ()),
        (["stats.json"], (3,)),
        (["stats.json", "--scale-axes", "HW"], (4, 6)),
        (["x.npy", "--layout", "NCHW"], (3,)),
        (["x.npy", "--layout", "NHWC"], (6,)),
        (["x.npy", "--layout", "NCHW", "--mode", "layer"], (6,)),
        (["x.npy", "--layout", "NCHW", "--mode", "layer", "--aggregate", "CHW"], (3, 4, 6)),
        (["x.npy", "--layout", "NCHW", "--mode", "group", "--groups", "3"], (3,)),
        (["x.npy", "--layout", "NCHW", "--scale-axes", "none"], ()),
    ],
)
def test_shapes(place, arguments, shape):
    affine = made(*arguments)
    assert affine.scale.shape == affine.bias.shape == shape
    assert np.all(affine.scale == 1)
    assert np.all(affine.bias == 0)


@pytest.mark.parametrize("suffix", [".json", ".npz", ".h5", ".zarr", ".safetensors"])
def test_every_format_records_how(place, suffix):
    path = f"a{suffix}"
    arguments = ("--shape", "40", "--scale", "narrow-normal", "--bias", "none", "--seed", "9")
    affine = made(*arguments, output=path)
    assert affine.bias is None
    attrs = read_bundle(path).attrs
    assert attrs["initializer"] == {"scale": "narrow-normal", "bias": "none"}
    assert attrs["seed"] == 9
    assert attrs["shape"] == [40]
    assert made(*arguments, output=path).scale.tobytes() == affine.scale.tobytes()


def test_narrow_normal_is_the_distribution_that_it_says(place):
    scale, bias = "--scale=narrow-normal", "--bias=narrow-normal"
    both = made("--shape", "40000", scale, bias, "--seed", "1")
    for values in (both.scale, both.bias):
        assert abs(values.mean()) < 5 * 0.01 / 200
        assert abs(values.std() / 0.01 - 1) < 0.02
        assert 3.3 < np.abs(values / 0.01).max() < 5.5
    assert not np.array_equal(both.scale, both.bias)
    # A term is the same whatever the other one is; another seed makes another.
    assert np.array_equal(made("--shape", "40000", bias, "--seed", "1").bias, both.bias)
    assert not np.array_equal(made("--shape", "40000", bias, "--seed", "2").bias, both.bias)


def test_a_file_is_taken_where_it_fits(place):
    np.save("s.npy", np.array([[1.5], [2.5], [3.5]]))
    assert made("stats.json", "--scale", "s.npy").scale.tolist() == [1.5, 2.5, 3.5]
    np.save("s.npy", np.ones(4))
    ended = call("init", "stats.json", "-o", "b.npz", "--scale", "s.npy")
    assert ended.code == 3
    assert "scale has shape (4,), but the scale axes C have (3,)" in ended.err


def test_absent_ones_and_zeros_are_three_things(place):
    """Ones and zeros change no number, and are recorded; absent is recorded as absent."""
    for name, arguments, kept in (
        ("both", [], {"scale", "bias"}),
        ("scale", ["--bias", "none"], {"scale"}),
        ("bias", ["--scale", "none"], {"bias"}),
        ("zero", ["--scale", "zeros"], {"scale", "bias"}),
    ):
        affine = made("stats.json", *arguments, output=f"{name}.npz")
        ended = call("apply", "x.npy", "-o", f"{name}.npy", "--stats", "stats.json",
                     "--affine", f"{name}.npz")  # fmt: skip
        assert ended.code == 0, ended.err
        document = json.loads(Path(f"{name}.npy.stats.json").read_text())
        assert document["affine"] == {"scale": "scale" in kept, "bias": "bias" in kept}
        assert {"scale", "bias"} & set(document["arrays"]) == kept
        assert (affine.scale is not None) == ("scale" in kept)
    plain = np.load("both.npy")
    assert np.array_equal(plain, np.load("scale.npy"))
    assert np.array_equal(plain, np.load("bias.npy"))
    assert np.all(np.load("zero.npy") == 0)


def test_json_output(place):
    ended = call("init", "--shape", "2,3", "-o", "a.npz", "--json")
    document = json.loads(ended.text)
    assert document["output"] == "a.npz"
    assert document["shape"] == [2, 3]
    assert document["initializer"] == {"scale": "ones", "bias": "zeros"}


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 2, "init needs one thing that tells the shape"),
        (["stats.json", "--shape", "3"], 2, "init needs one thing"),
        (["--shape", "3", "--mode", "layer"], 2, "--mode says nothing beside --shape"),
        (["--shape", "0"], 2, "is no shape"),
        (["--shape", "3,x"], 2, "is no shape"),
        (["--shape", "3", "--scale", "narrow-normal"], 2, "narrow-normal needs --seed"),
        (["--shape", "3", "--seed", "1"], 2, "--seed goes with narrow-normal only"),
        (["--shape", "3", "--scale", "none", "--bias", "none"], 2, "both none"),
        (["--shape", "3", "--scale", "glorot"], 3, "neither a file nor one of ones, zeros"),
        (["none.npy"], 3, "none.npy"),
        (["unknown.json", "--scale-axes", "N"], 3, "does not tell the extent"),
        (["stats.json", "--mode", "layer"], 2, "contradicts the statistics"),
    ],
)
def test_refusals(place, arguments, code, words):
    np.savez("bn.npz", running_mean=np.ones(3), running_var=np.ones(3))
    assert call("convert", "bn.npz", "-o", "unknown.json").code == 0
    ended = call("init", *arguments, "-o", "a.npz")
    assert ended.code == code, ended.err
    assert words in ended.err
    assert not Path("a.npz").exists()


def test_one_array_goes_into_an_npy_file(place):
    assert call("init", "--shape", "3", "--bias", "none", "-o", "a.npy").code == 0
    assert np.load("a.npy").tolist() == [1, 1, 1]
    assert call("init", "--shape", "3", "-o", "b.npy").code == 2
    arguments = ("--bias", "none", "--scale", "narrow-normal", "--seed", "1")
    ended = call("init", "--shape", "3", *arguments, "-o", "b.npy")
    assert ended.code == 2
    assert "cannot record the seed" in ended.err
