"""Supplied parameters through the command line: what fits, and what is refused with which code."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.bundles.test_checkpoints import Canary
from tests.cli.terminal import call

KERAS = Path(__file__).parents[1] / "references" / "keras_model.keras"


@pytest.fixture
def images(tmp_path, monkeypatch):
    """Work where x.npy is: 5 images of 3 channels, NCHW."""
    monkeypatch.chdir(tmp_path)
    values = np.random.default_rng(3).normal(25, 6, (5, 3, 4, 4)).astype(np.float32)
    np.save("x.npy", values)
    return values


def expected(x, scale, bias, mean, variance, epsilon):
    tables = [np.reshape(t, (3, 1, 1)) for t in (scale, bias, mean, variance)]
    scale, bias, mean, variance = tables
    return scale * (x.astype(np.float64) - mean) / np.sqrt(variance + epsilon) + bias


def apply(*arguments):
    return call("apply", "x.npy", "-o", "y.npy", "--layout", "NCHW", *arguments)


def test_a_keras_layer_evaluates_as_in_keras(images):
    part = f"{KERAS}#first"
    ended = apply(
        "--mean", part, "--variance", part, "--affine", part, "--epsilon", "0.002",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    want = expected(images, [1, 2, 3], [11, 12, 13], [21, 22, 23], [31, 32, 33], 0.002)
    np.testing.assert_allclose(np.load("y.npy"), want, rtol=1e-6)
    assert "epsilon" not in ended.err


def test_the_epsilon_of_a_model_is_pointed_out(images):
    ended = apply("--mean", f"{KERAS}#first", "--variance", f"{KERAS}#first")
    assert ended.code == 0
    assert "was made for epsilon 0.002, but 1e-05 is used" in ended.err
    assert "--epsilon 0.002" in ended.err


@pytest.mark.parametrize("shape", [(3,), (3, 1), (1, 3), (1, 1, 3), (1, 1, 1, 3)])
def test_singleton_axes_do_not_matter(images, shape):
    np.save("s.npy", np.reshape([1.0, 2, 3], shape))
    assert apply("--mode", "instance", "--scale", "s.npy").code == 0
    plain = np.load("y.npy")
    np.save("s.npy", np.array([1.0, 2, 3]))
    assert apply("--mode", "instance", "--scale", "s.npy", "--overwrite").code == 0
    assert np.array_equal(plain, np.load("y.npy"))


@pytest.mark.parametrize(
    ("option", "values", "code", "words"),
    [
        ("--scale", np.ones(4), 3, "scale has shape (4,), but the scale axes C have (3,)"),
        ("--scale", np.ones((3, 2)), 3, "scale has shape (3, 2), but the scale axes C have (3,)"),
        ("--bias", np.array(1.0), 3, "bias has shape (), but the scale axes C have (3,)"),
        ("--mean", np.ones(2), 3, "mean in p.npy has shape (2,), but the statistics need (3,)"),
        ("--variance", np.ones(2), 3, "variance in p.npy has shape (2,), but the statistics need"),
        ("--scale", np.array([1, np.nan, 3]), 3, "1 NaN and 0 infinite values among 3"),
        ("--bias", np.array([1, np.inf, 3]), 3, "0 NaN and 1 infinite values among 3"),
        ("--mean", np.array([np.nan, 1, 1]), 3, "1 NaN and 0 infinite values among 3"),
        ("--variance", np.array([1, 1, np.nan]), 3, "1 NaN and 0 infinite values among 3"),
        ("--variance", np.array([1, -1e-12, 1]), 7, "1 negative values among 3"),
        ("--scale", np.array([True, False, True]), 3, "holds bool, not numbers"),
        ("--scale", np.array([1j, 1, 1]), 3, "not real numbers"),
        ("--scale", np.zeros((0,)), 3, "is empty"),
    ],
)
def test_parameters_that_do_not_fit(images, option, values, code, words):
    np.save("p.npy", values)
    np.save("one.npy", np.ones(3))
    other = {"--mean": ["--variance", "one.npy"], "--variance": ["--mean", "one.npy"]}
    ended = apply(option, "p.npy", *other.get(option, []))
    assert ended.code == code, ended.err
    assert words in ended.err
    assert not Path("y.npy").exists()
    assert len([line for line in ended.err.splitlines() if "error:" in line]) == 1


@pytest.mark.parametrize(
    ("option", "file", "code", "words"),
    [
        ("--scale", "none.npy", 3, "none.npy does not exist"),
        ("--scale", "p.txt", 3, "tells no format"),
        ("--scale", f"{KERAS}#nothing", 3, "holds nothing under 'nothing'"),
        ("--affine", f"{KERAS}", 3, "layers with such parameters"),
        ("--affine", "names.npz", 3, "neither a scale nor a bias; it holds 'a', 'b'"),
        ("--bias", "names.npz", 3, "holds no bias; it holds 'a', 'b'"),
    ],
)
def test_names_that_are_not_there(images, option, file, code, words):
    Path("p.txt").write_text("1 2 3")
    np.savez("names.npz", a=np.ones(3), b=np.ones(3))
    ended = apply(option, file)
    assert ended.code == code
    assert words in ended.err


def test_a_pickle_in_a_checkpoint_is_refused_with_its_code(images):
    Path("m.pt").write_bytes(b"\x80\x04.")
    ended = apply("--scale", "m.pt")
    assert ended.code == 4
    assert "can run code" in ended.err


def test_inspect_shows_a_checkpoint_and_a_layer_of_it(images):
    ended = call("inspect", KERAS)
    assert ended.code == 0
    assert "first/moving_variance" in ended.text
    assert call("inspect", f"{KERAS}#first").text.count("\n") == 7


def test_a_checkpoint_that_would_run_code_ends_with_its_code(images, tmp_path):
    torch = pytest.importorskip("torch")
    canary = tmp_path / "canary"
    torch.save({"weight": torch.ones(3), "extra": Canary(canary)}, "m.pt")
    for command in (
        ["apply", "x.npy", "-o", "y.npy", "--layout", "NCHW", "--scale", "m.pt"],
        ["convert", "m.pt", "-o", "s.json"],
        ["extract", "m.pt", "weight"],
        ["inspect", "m.pt"],
        ["init", "--shape", "3", "--scale", "m.pt", "-o", "a.npz"],
    ):
        ended = call(*command)
        assert ended.code == 4, ended.err
        assert "would run code when it is loaded" in ended.err
        assert not canary.exists()
    torch.load("m.pt", weights_only=False)
    assert canary.exists()


@pytest.mark.parametrize("name", ["data.h5", "data.zarr"])
def test_overwrite_does_not_replace_data(images, name):
    assert call("apply", "x.npy", "-o", name, "--layout", "NCHW", "--no-stats-out").code == 0
    assert call("fit", "x.npy", "-o", "s.json", "--layout", "NCHW").code == 0
    for command in (
        ["init", "--shape", "3", "-o", name],
        ["extract", "s.json", "mean", "-o", name],
        ["convert", "s.json", "-o", name],
        ["convert", "s.json", "-o", name, "--to", "keras"],
    ):
        ended = call(*command, "--overwrite")
        assert ended.code == 2, ended.err
        assert "something else than " in ended.err
        assert call("inspect", name).code == 0


@pytest.mark.parametrize(("suffix", "package"), [(".pt", "torch"), (".onnx", "onnx")])
def test_a_missing_package_is_named_with_its_extra(images, monkeypatch, suffix, package):
    with zipfile.ZipFile(f"m{suffix}", "w") as archive:
        archive.writestr("m/data.pkl", b"")
    # What Python itself does for a module that is not there.
    monkeypatch.setitem(sys.modules, package, None)
    ended = apply("--scale", f"m{suffix}")
    assert ended.code == 3
    assert f"Hint: needs: pip install 'normcli[{package}]'" in ended.err


@pytest.mark.parametrize(
    ("module", "extra", "arguments"),
    [
        ("safetensors.numpy", "safetensors", ("fit", "x.npy", "-o", "s.safetensors")),
        ("ml_dtypes", "ml", ("apply", "x.npy", "-o", "y.h5", "--dtype", "bfloat16")),
        ("distributed", "cluster", ("fit", "x.npy", "-o", "s.json", "--scheduler", "tcp://h:1")),
    ],
)
def test_every_missing_package_has_one_code(images, monkeypatch, module, extra, arguments):
    monkeypatch.setitem(sys.modules, module, None)
    ended = call(*arguments, "--layout", "NCHW")
    assert ended.code == 3, ended.err
    assert f"Hint: needs: pip install 'normcli[{extra}]'" in ended.err


def test_a_model_is_not_written_without_its_package(images, monkeypatch):
    assert call("fit", "x.npy", "-o", "s.json", "--layout", "NCHW").code == 0
    monkeypatch.setitem(sys.modules, "onnx", None)
    ended = call("convert", "s.json", "-o", "m.onnx")
    assert ended.code == 3
    assert "Hint: needs: pip install 'normcli[onnx]'" in ended.err


@pytest.mark.parametrize("dtype", ["i1", "u8", "f2", ">f8"])
def test_integers_and_every_float_are_numbers(images, dtype):
    np.save("s.npy", np.array([1, 2, 3], dtype))
    assert apply("--scale", "s.npy").code == 0
    got = np.load("y.npy")
    np.save("s.npy", np.array([1.0, 2, 3]))
    assert apply("--scale", "s.npy", "--overwrite").code == 0
    assert np.array_equal(got, np.load("y.npy"))
