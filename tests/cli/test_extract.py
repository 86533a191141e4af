"""Single values out of sidecars and parameter files."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest

import normcli
from normcli.bundles.statistics_bundle import ARRAY_NAMES
from tests.cli.terminal import call, run

SUFFIXES = [".json", ".npz", ".h5", ".zarr", ".safetensors"]


@pytest.fixture
def stats(tmp_path, monkeypatch):
    """Work where s.json holds everything that statistics can hold; return them."""
    monkeypatch.chdir(tmp_path)
    x = np.random.default_rng(5).normal(3, 2, (8, 3, 4)).astype(np.float32)
    np.save("x.npy", x)
    np.savez("affine.npz", scale=np.array([1.5, -0.5, 2.0]), bias=np.array([0.25, 3.0, -1.0]))
    fit = ("--layout", "NCT", "--momentum", "0.75", "--batch-size", "2", "--epsilon", "0.01")
    assert call("fit", "x.npy", "-o", "fit.json", *fit).code == 0
    ended = call("apply", "x.npy", "-o", "y.npy", "--stats", "fit.json", "--affine", "affine.npz",
                 "--stats-out", "s.json")  # fmt: skip
    assert ended.code == 0, ended.err
    return normcli.read_statistics("s.json").statistics


def printed(*arguments):
    ended = call(*arguments)
    assert ended.code == 0, ended.err
    return ended.text


def values_of(stats):
    moments = {name: getattr(stats.moments, name) for name in ("count", "mean", "m2", "minimum")}
    return {
        **moments,
        "maximum": stats.moments.maximum,
        "nonfinite": stats.moments.nonfinite,
        "variance": stats.variance,
        "moving_mean": stats.moving.mean,
        "moving_variance": stats.moving.variance,
        "scale": stats.affine.scale,
        "bias": stats.affine.bias,
    }


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_array_bit_for_bit_from_every_format(stats, suffix):
    if suffix != ".json":
        assert call("convert", "s.json", "-o", f"s{suffix}").code == 0
    expected = values_of(stats)
    assert set(expected) == set(ARRAY_NAMES)
    for name, values in expected.items():
        text = printed("extract", f"s{suffix}", name.replace("_", "-"))
        read = np.array([float(line) for line in text.splitlines()])
        assert read.tobytes() == values.astype(np.float64).tobytes(), name
        assert (
            printed("extract", f"s{suffix}", name, "--json") == json.dumps(values.tolist()) + "\n"
        )
        assert printed("inspect", f"s{suffix}", "--property", name) == text


@pytest.mark.parametrize("suffix", [".npy", *SUFFIXES, ".txt"])
def test_every_output(stats, suffix):
    ended = call("extract", "s.json", "moving-variance", "-o", f"v{suffix}")
    assert ended.code == 0, ended.err
    want = stats.moving.variance
    path = Path(f"v{suffix}")
    if suffix == ".npy":
        assert np.array_equal(np.load(path), want)
    elif suffix == ".txt":
        assert np.array_equal(np.loadtxt(path), want)
    elif suffix == ".json":
        assert json.loads(path.read_text()) == want.tolist()
    else:
        assert printed("extract", str(path), "moving_variance", "--json") == (
            json.dumps(want.tolist()) + "\n"
        )
    again = call("extract", "s.json", "mean", "-o", f"v{suffix}")
    assert again.code == 2
    assert "exists" in again.err
    assert call("extract", "s.json", "mean", "-o", f"v{suffix}", "--overwrite").code == 0


def test_npy_on_standard_output(stats):
    done = run("extract", "s.json", "mean", "-o", "-", cwd=Path.cwd())
    assert done.code == 0, done.err
    assert np.array_equal(np.load(io.BytesIO(done.out)), stats.moments.mean)


@pytest.mark.parametrize(
    ("name", "text", "document"),
    [
        ("epsilon", "0.01", 0.01),
        ("momentum", "0.75", 0.75),
        ("batches", "4", 4),
        ("batch-size", "2", [2]),
        ("moving-variance-divisor", "biased", "biased"),
        ("ddof", "0", 0),
        ("epsilon-placement", "inside", "inside"),
        ("mode", "batch", "batch"),
        ("method", "zscore", "zscore"),
        ("convention", "none", None),
        ("layout", "NCT", "NCT"),
        ("aggregate", "0 2", [0, 2]),
        ("kept", "1", [1]),
        ("scale-axes", "1", [1]),
        ("groups", "none", None),
        ("shape", "8 3 4", [8, 3, 4]),
        ("dtype", "float32", "float32"),
        ("version", normcli.__version__, normcli.__version__),
    ],
)
def test_settings(stats, name, text, document):
    assert printed("extract", "s.json", name) == f"{text}\n"
    assert json.loads(printed("extract", "s.json", name, "--json")) == document
    assert printed("inspect", "s.json", "--property", name) == f"{text}\n"


def test_a_number_goes_into_a_file(stats):
    assert call("extract", "s.json", "epsilon", "-o", "e.npy").code == 0
    assert np.load("e.npy") == 0.01
    assert np.load("e.npy").shape == ()


def test_the_standard_deviation(stats):
    text = printed("extract", "s.json", "std")
    assert [float(line) for line in text.splitlines()] == np.sqrt(stats.variance).tolist()


def test_arrays_of_parameter_files(stats):
    np.savez("p.npz", **{"layers.3.weight": np.arange(6).reshape(2, 3), "layers.4.weight": 1.5})
    assert printed("extract", "p.npz#layers.3", "weight") == "0 1 2\n3 4 5\n"
    assert printed("extract", "p.npz", "layers.4.weight") == "1.5\n"


def test_a_model_with_one_layer_need_not_have_it_named(stats):
    assert call("convert", "s.json", "-o", "one.keras").code == 0
    for name, text in (("epsilon", "0.01"), ("momentum", "0.75"), ("gamma", "1.5\n-0.5\n2.0")):
        assert printed("extract", "one.keras", name) == f"{text}\n"
        layer = "one.keras#batch_normalization"
        assert printed("inspect", layer, "--property", name) == f"{text}\n"
    np.savez("two.npz", **{"a/gamma": np.ones(2), "b/gamma": np.zeros(2), "b/beta": np.ones(2)})
    assert call("extract", "two.npz", "gamma").code == 3
    assert printed("extract", "two.npz", "beta") == "1.0\n1.0\n"


def test_what_a_converted_layer_said_of_its_moving_statistics(stats):
    assert call("convert", "s.json", "-o", "k.keras").code == 0
    assert call("convert", "s.json", "-o", "t.safetensors", "--to", "torch").code == 0
    for name, value, text in (("k.keras", "momentum", "0.75"), ("t.safetensors", "batches", "4")):
        assert call("convert", name, "-o", "b.json", "--layout", "NCT", "--overwrite").code == 0
        assert printed("extract", "b.json", value) == f"{text}\n"
        assert printed("inspect", "b.json", "--property", value) == f"{text}\n"


def test_nan_and_infinity_are_words_of_json(stats):
    np.savez("p.npz", a=np.array([np.nan, np.inf, -np.inf, -0.0]))
    assert printed("extract", "p.npz", "a") == "nan\ninf\n-inf\n-0.0\n"
    assert printed("extract", "p.npz", "a", "--json") == '["nan", "inf", "-inf", -0.0]\n'


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["s.json", "men"], 3, "Statistics have no value 'men'.\nHint: Names: 'mean'"),
        (["fit.json", "scale"], 3, "an absent scale is not the same as ones or zeros"),
        (["pooled.json", "moving-mean"], 3, "fit --momentum M --batch-size B"),
        (["none.json", "mean"], 3, "none.json does not exist"),
        (["affine.npz", "mean"], 3, "holds no 'mean'"),
        (["x.npy", "mean"], 3, "one array, which has no name"),
        (["s.json", "mode", "-o", "m.npy"], 2, "'batch', not numbers"),
        (["s.json", "mean", "-o", "m.pkl"], 2, "tells no format"),
        (["s.json", "mean", "-o", "m.npy", "--json"], 2, "--json prints on standard output"),
        (["s.json", "mean", "-o", "none/m.npy"], 5, "does not exist"),
    ],
)
def test_refusals(stats, arguments, code, words):
    assert call("fit", "x.npy", "-o", "pooled.json", "--layout", "NCT").code == 0
    ended = call("extract", *arguments)
    assert ended.code == code, ended.err
    assert words in ended.err
    assert not list(Path().glob("m.*"))


def test_absent_is_neither_ones_nor_zeros_nor_none(stats):
    for name in ("scale", "bias"):
        assert call("extract", "fit.json", name).code == 3
        assert call("inspect", "fit.json", "--property", name).code == 3


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_an_apply_does_not_have_is_nan(tmp_path, monkeypatch, suffix):
    monkeypatch.chdir(tmp_path)
    x = np.random.default_rng(7).normal(3, 2, (8, 3))
    x[:, 0] = np.nan
    x[2, 1] = np.inf
    np.save("x.npy", x)
    unknown = {"omit": [True, False, False], "propagate": [True, True, False]}
    for policy, missing in unknown.items():
        path = f"{policy}{suffix}"
        assert call("fit", "x.npy", "-o", path, "--nonfinite", policy).code == 0
        held = normcli.read_statistics(path).statistics
        for name in ("mean", "variance", "std", "minimum", "maximum"):
            found = np.array(printed("extract", path, name).split(), "f8")
            assert np.isnan(found).tolist() == missing, (name, found)
            if name in ("mean", "variance"):
                np.testing.assert_array_equal(found, getattr(held, name))
        # What is merged later is kept as it is.
        assert printed("extract", path, "count").split() == ["0", "7", "8"]
        assert not np.isnan(np.array(printed("extract", path, "m2").split(), "f8")).any()
    assert printed("extract", f"omit{suffix}", "mean", "--json").startswith('["nan", ')


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"count": np.ones(6, np.int64)}, 3, "'count' has (6,)"),
        ({"count": np.ones(3)}, 3, "counts are integers"),
        ({"variance": np.array(["a", "b", "c"])}, 3, "strings"),
        ({"variance": np.array([1.0, -1e-9, 1])}, 7, "-1e-09 at index (1,)"),
    ],
)
def test_arrays_that_contradict_each_other(stats, change, code, words):
    assert call("convert", "s.json", "-o", "s.npz").code == 0
    with np.load("s.npz") as archive:
        held = dict(archive)
    np.savez("s.npz", **(held | change))
    ended = call("extract", "s.npz", "std")
    assert ended.code == code, ended.err
    assert words in ended.err
    assert ended.out == b""
