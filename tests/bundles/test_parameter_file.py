"""Scale, bias, mean and variance from the files of people and frameworks."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from normcli.bundles.bundle import Bundle
from normcli.bundles.formats import FORMATS, read_bundle, write_bundle
from normcli.bundles.parameter_file import (
    BIAS_NAMES,
    MEAN_NAMES,
    SCALE_NAMES,
    VARIANCE_NAMES,
    read_affine,
    read_bias,
    read_mean,
    read_scale,
    read_variance,
    write_affine,
)
from normcli.domain.affine import Affine
from normcli.domain.dtypes import bfloat16
from normcli.errors import DataPolicyError, InputError, UsageError

NAMED = [suffix for suffix in FORMATS if suffix != ".npy"]


@pytest.fixture
def file(tmp_path):
    def write(suffix=".npz", **arrays):
        path = str(tmp_path / f"p{suffix}")
        write_bundle(path, Bundle({n: np.asarray(a) for n, a in arrays.items()}), overwrite=True)
        return path

    return write


@pytest.mark.parametrize("suffix", NAMED)
@pytest.mark.parametrize("names", list(zip(SCALE_NAMES, BIAS_NAMES, strict=True)))
def test_affine_by_every_name(file, suffix, names):
    path = file(suffix, **{names[0]: [1.5, 2], names[1].upper(): [0, -1], "eps": 3.0})
    affine = read_affine(path)
    assert affine.scale.tolist() == [1.5, 2]
    assert affine.bias.tolist() == [0, -1]
    assert affine.bias.dtype == np.float64


@pytest.mark.parametrize("suffix", NAMED)
@pytest.mark.parametrize("parts", ["scale", "bias", "both"])
def test_written_affines_come_back(tmp_path, suffix, parts):
    values = np.array([1 / 3, -0.0, 5e-324])
    affine = Affine(
        values if parts != "bias" else None, values if parts in ("bias", "both") else None
    )
    path = str(tmp_path / f"a{suffix}")
    write_affine(path, affine, attrs={"solver": "exact"})
    back = read_affine(path)
    for name in ("scale", "bias"):
        mine, read = getattr(affine, name), getattr(back, name)
        assert (mine is None) == (read is None)
        assert mine is None or mine.tobytes() == read.tobytes()
    assert read_bundle(path).attrs["solver"] == "exact"
    with pytest.raises(UsageError, match="exists"):
        write_affine(path, affine)


def test_an_affine_as_npy(tmp_path):
    path = str(tmp_path / "a.npy")
    write_affine(path, Affine(np.ones(2)))
    assert read_scale(path).tolist() == read_bias(path).tolist() == [1, 1]
    with pytest.raises(InputError, match="a scale or a bias") as caught:
        read_affine(path)
    assert "--scale" in caught.value.hint
    with pytest.raises(UsageError, match="one array, not 2"):
        write_affine(path, Affine(np.ones(2), np.ones(2)), overwrite=True)
    with pytest.raises(UsageError, match="neither"):
        write_affine(path, Affine(), overwrite=True)


@pytest.mark.parametrize("dtype", ["f2", "f4", ">f8", "i1", "u8", "bfloat16"])
def test_every_number_type_becomes_float64(file, dtype):
    values = np.array([1, 0, 2]).astype(bfloat16() if dtype == "bfloat16" else dtype)
    for suffix in NAMED:
        scale = read_scale(file(suffix, scale=values))
        assert scale.dtype == np.float64
        assert scale.tolist() == [1, 0, 2]


def test_exact_case_wins(file):
    assert read_affine(file(weight=[1], WEIGHT=[2])).scale.tolist() == [1]
    with pytest.raises(InputError, match="several arrays that could be the scale"):
        read_affine(file(Weight=[1], WEIGHT=[2]))
    with pytest.raises(InputError, match="'gamma', 'scale'"):
        read_affine(file(scale=[1], gamma=[2]))


def test_a_layer_inside_a_checkpoint(tmp_path):
    path = str(tmp_path / "params.safetensors")
    tensors = {}
    for layer in range(12):
        tensors[f"layers.{layer}.norm.weight"] = np.full(2, layer, np.float32)
        tensors[f"layers.{layer}.norm.bias"] = np.full(2, -layer, np.float16)
        tensors[f"layers.{layer}.mlp.kernel"] = np.zeros(2, np.complex64)
    save_file(tensors, path)
    affine = read_affine(path + "#layers.3.norm")
    assert (affine.scale.tolist(), affine.bias.tolist()) == ([3, 3], [-3, -3])
    assert read_affine(path + "#layers.11").scale.tolist() == [11, 11]
    assert read_bias(path + "#layers.3.norm.weight").tolist() == [3, 3]
    with pytest.raises(InputError, match="12 layers") as caught:
        read_affine(path)
    assert "and 4 more" in caught.value.message
    assert caught.value.hint == f"Pick one: {path}#layers.0.norm"
    with pytest.raises(InputError, match=r"nothing under 'layers\.12\.norm'") as caught:
        read_affine(path + "#layers.12.norm")
    assert "'layers.11.norm'" in caught.value.hint
    with pytest.raises(InputError, match="12 layers") as caught:
        read_affine(path + "#layers")
    assert caught.value.hint == f"Pick one: {path}#layers.0.norm"
    assert read_affine(caught.value.hint.removeprefix("Pick one: ")).scale.tolist() == [0, 0]


def test_names_of_the_file_win_over_its_layers(file):
    assert read_affine(file(scale=[1], **{"a.scale": [2], "b.scale": [3]})).scale.tolist() == [1]


def test_keras_names(tmp_path):
    import h5py

    path = str(tmp_path / "k.h5")
    with h5py.File(path, "w") as keras:
        keras["norm/norm/gamma:0"] = np.float32([1, 2])
        keras["norm/norm/beta:0"] = np.float32([3, 4])
    affine = read_affine(path)
    assert (affine.scale.tolist(), affine.bias.tolist()) == ([1, 2], [3, 4])


def test_a_single_array_may_have_any_name(file):
    assert read_scale(file(anything=[1, 2])).tolist() == [1, 2]
    with pytest.raises(InputError, match="holds no scale; it holds 'a', 'b'"):
        read_scale(file(a=[1], b=[2]))
    with pytest.raises(InputError, match="neither a scale nor a bias"):
        read_affine(file(a=[1]))


@pytest.mark.parametrize("names", list(zip(MEAN_NAMES, VARIANCE_NAMES, strict=False)))
def test_mean_and_variance(file, tmp_path, names):
    path = file(**{names[0]: [[1], [2]], names[1]: [3, 4], "num_batches_tracked": 5})
    assert read_mean(path).tolist() == [[1], [2]]
    assert read_variance(path).tolist() == [3, 4]
    np.save(tmp_path / "m.npy", np.float32([7, 8]))
    assert read_mean(str(tmp_path / "m.npy")).tolist() == [7, 8]
    assert read_variance(str(tmp_path / "m.npy")).tolist() == [7, 8]


def test_means_and_variances_that_are_refused(file):
    path = file(mean=[[1, 2], [3, 4]], var=[[1, -2], [-1e-9, 0]])
    with pytest.raises(DataPolicyError, match=r"2 negative values among 4.*-2\.0 at index \(0, 1"):
        read_variance(path)
    path = file(mean=[1], moving_mean=[1], var=[1])
    with pytest.raises(InputError, match="several arrays that could be the mean") as caught:
        read_mean(path)
    assert caught.value.hint == f"Pick one: {path}#mean"
    assert read_mean(path + "#mean").tolist() == [1]
    with pytest.raises(InputError, match="holds no variance"):
        read_variance(file(mean=[1], std=[2]))


@pytest.mark.parametrize("read", [read_affine, read_scale])
@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([1, np.nan, np.inf, np.nan], "2 NaN and 1 infinite values among 4"),
        ([True, False], "bool"),
        (np.zeros((0, 3)), "is empty"),
    ],
)
def test_values_that_are_refused(file, read, values, words):
    with pytest.raises(InputError, match=words):
        read(file(scale=values))


@pytest.mark.parametrize("values", [np.array([1j]), np.array(["a"]), np.array([b"a"])])
def test_types_that_are_refused(tmp_path, values):
    path = tmp_path / "p.npz"
    np.savez(path, scale=values)
    with pytest.raises(InputError, match="not real numbers"):
        read_scale(str(path))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"scale": [1, 2], "scale": [3, 4]}', "'scale' occurs twice"),
        ('{"scale": [[1, 2], [3]]}', "rows of different lengths"),
        ('{"scale": [1, [2]]}', "rows of different lengths"),
        ('{"scale": [1, NaN]}', "NaN is not JSON"),
        ('{"scale": [1, "nan"]}', "1 NaN"),
        ('{"scale": [1, 1e400]}', "beyond float64"),
        ('{"scale": [1, "x"]}', "'x' where a number belongs"),
        ('{"scale": [1, null]}', "NoneType"),
        ('{"scale": [1, {"a": 1}]}', "dict"),
        ('{"scale": [1' + "0" * 400 + "]}", "beyond float64"),
        ('{"scale": [1' + "0" * 5000 + "]}", "not a JSON file"),
        ('{"scale": ' + "[" * 50 + "1" + "]" * 50 + "}", "nested more than 32 deep"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        ('{"scale": [1, 2]', "not a JSON file"),
        ('"text"', "where a number belongs"),
        ("null", "NoneType"),
        ("", "not a JSON file"),
    ],
)
def test_json_that_is_refused(tmp_path, text, words):
    path = tmp_path / "p.json"
    path.write_text(text)
    with pytest.raises(InputError, match=words) as caught:
        read_scale(str(path))
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ([1, 2], "no object with dtype"),
        ({"dtype": "float64", "shape": [2]}, "no 'data'"),
        ({"dtype": "complex128", "shape": [1], "data": [1]}, "complex128"),
        ({"dtype": "float64", "shape": 1, "data": [1]}, "no list of sizes"),
        ({"dtype": "float64", "shape": [True], "data": [1]}, "no list of sizes"),
        ({"dtype": "float64", "shape": [-1], "data": [1]}, "no list of sizes"),
        ({"dtype": "float64", "shape": [10**15], "data": [1]}, "but its data have"),
        ({"dtype": "float64", "shape": [3, 2], "data": [[1, 2, 3], [4, 5, 6]]}, "data have"),
        ({"dtype": "float16", "shape": [1], "data": [1e6]}, "do not fit float16"),
        ({"dtype": "int8", "shape": [1], "data": [200]}, "do not fit int8"),
        ({"dtype": "int8", "shape": [1], "data": [1.5]}, "integers only"),
        ({"dtype": "int8", "shape": [1], "data": [True]}, "integers only"),
    ],
)
def test_described_arrays_that_are_refused(tmp_path, entry, words):
    path = tmp_path / "p.json"
    path.write_text(json.dumps({"arrays": {"scale": entry}}))
    with pytest.raises(InputError, match=words):
        read_scale(str(path))


def test_a_missing_file():
    with pytest.raises(InputError, match="does not exist"):
        read_affine(str(Path("no-such-folder") / "p.npz"))
