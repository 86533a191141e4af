"""Statistics that contradict themselves are refused, in words that say where."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from normcli.bundles.bundle import Bundle
from normcli.bundles.formats import write_bundle
from normcli.bundles.statistics_bundle import statistics_bundle, statistics_from_bundle
from normcli.bundles.statistics_file import read_statistics, write_statistics
from normcli.errors import DataPolicyError, InputError, NormcliError

from .samples import spec_of, statistics_of


def _set(*keys, to):
    def change(attrs, arrays):
        target = attrs
        for key in keys[:-1]:
            target = target[key]
        target[keys[-1]] = to

    return change


def _put(name, index, value):
    def change(attrs, arrays):
        arrays[name] = np.array(arrays[name])
        arrays[name][index] = value

    return change


def _array(name, values):
    return lambda attrs, arrays: arrays.update({name: values})


def _drop(*names):
    return lambda attrs, arrays: [arrays.pop(name) for name in names]


def _drop_attr(name):
    return lambda attrs, arrays: attrs.pop(name)


BROKEN = [
    (_drop_attr("schema"), InputError, "no normcli statistics (it has no schema)"),
    (_set("schema", to="other"), InputError, "its schema is 'other'"),
    (_set("schema_version", to=4), InputError, "schema version 4, newer than the 3"),
    (_set("schema_version", to="1"), InputError, "schema version '1'"),
    (_set("schema_version", to=True), InputError, "schema version True"),
    (_drop_attr("spec"), InputError, "spec is no JSON object"),
    (_set("spec", to=[]), InputError, "spec is no JSON object"),
    (_set("spec", "layout", to="NCHW"), InputError, "spec.layout is no JSON object"),
    (_set("spec", "layout", "letters", to="NXHW"), InputError, "unknown letter 'X'"),
    (_set("spec", "layout", "names", to=["a"]), InputError, "has 1 names"),
    (_set("spec", "method", to="new"), InputError, "There is no method 'new'"),
    (_set("spec", "percentiles", to=[1]), InputError, "field 'percentiles', which this version"),
    (_set("spec", "kept", to=[1, 2]), InputError, "no partition"),
    (_set("spec", "kept", to=[True]), InputError, "spec.kept is True"),
    (_set("spec", "kept", to=1), InputError, "spec.kept is no list"),
    (_set("spec", "scale_axes", to=[4]), InputError, "spec.scale_axes (4,)"),
    (_set("spec", "divided_axis", to=0), InputError, "divided_axis 0 is no kept axis"),
    (_set("spec", "ddof", to=2), InputError, "ddof is 2"),
    (_set("spec", "ddof", to=0.5), InputError, "spec.ddof is 0.5, but must be an integer"),
    (_set("spec", "epsilon", to="1e-5"), InputError, "must be a number"),
    (_set("spec", "epsilon", to=-1), InputError, "Epsilon is -1.0"),
    (_set("epsilon", to=0.5), InputError, "says epsilon 0.5, but its spec 1e-05"),
    (_set("momentum", to=0.5), InputError, "says momentum 0.5"),
    (_drop_attr("source"), InputError, "source is no JSON object"),
    (_set("source", "dtype", to="text"), InputError, "source.dtype is 'text'"),
    (_set("source", "dtype", to="O"), InputError, "Python objects"),
    (_set("source", "shape", to=[3]), InputError, "source has shape (3,)"),
    (_set("source", "shape", to=[3, -4, 2, 5]), InputError, "source has shape"),
    (
        _set("source", "inputs", to=[{"path": "x", "array": [1]}]),
        InputError,
        "inputs[0].array is [1]",
    ),
    (_set("source", "inputs", to=["x"]), InputError, "must be a JSON object"),
    (_set("provenance", to=1), InputError, "provenance is no JSON object"),
    (_set("moving", to=3), InputError, "moving is no JSON object"),
    (_set("moving", "batches", to=-1), InputError, "moving.batches is -1"),
    (_set("moving", "batch_sizes", to=[]), InputError, "batch_sizes is ()"),
    (_set("moving", "momentum", to=1.5), InputError, "momentum"),
    (_set("moving", "variance", to="x"), InputError, "neither biased nor unbiased"),
    (_set("affine", to={"scale": True, "bias": True}), InputError, "says that it has a bias"),
    (_set("affine", to={"scale": False, "bias": False}), InputError, "denies a scale"),
    (_drop("minimum"), InputError, "lacks 'minimum'"),
    (_drop("count", "m2"), InputError, "lacks 'count', 'm2'"),
    (_drop("moving_mean"), InputError, "lacks 'moving_mean'"),
    (_array("m2", np.zeros(5)), InputError, "'m2' has shape (5,), but 'count' has (4,)"),
    (_array("mean", np.array(["a"] * 4)), InputError, "strings"),
    (_array("mean", np.zeros(4, complex)), InputError, "complex"),
    (_array("count", np.ones(4)), InputError, "counts are integers"),
    (_array("count", np.full(4, 2**63, np.uint64)), InputError, "too large"),
    (_put("count", 1, -1), InputError, "negative or too large"),
    (_put("nonfinite", 1, -1), InputError, "negative or too large"),
    (_put("minimum", 2, 1e9), InputError, "minimum at (2,)"),
    (_put("m2", slice(1, 3), -1e-9), DataPolicyError, "'m2' holds 2 negative values among 4"),
    (_put("moving_variance", 3, -0.5), DataPolicyError, "-0.5 at index (3,)"),
    (_put("scale", 0, np.nan), InputError, "1 NaN and 0 infinite"),
]


@pytest.mark.parametrize(("change", "error", "words"), BROKEN, ids=[b[2] for b in BROKEN])
def test_broken_statistics_are_refused(tmp_path, change, error, words):
    stats = statistics_of(spec_of({"mode": "batch"}), moving=0.9)
    stats = replace(stats, moments=replace(stats.moments, count=np.full(4, 3)))
    bundle = statistics_bundle(stats)
    attrs, arrays = json.loads(json.dumps(bundle.attrs)), dict(bundle.arrays)
    statistics_from_bundle(Bundle(arrays, attrs), "s.json")
    change(attrs, arrays)
    with pytest.raises(error, match=re.escape(words)) as caught:
        statistics_from_bundle(Bundle(arrays, attrs), "s.json")
    assert "\n" not in caught.value.message


def test_a_part_of_a_shape_that_is_none(tmp_path):
    bundle = statistics_bundle(statistics_of(spec_of({"mode": "batch"})))
    part = {"number": 1, "of": 2, "cell": [1, 4, 2, 5], "first": 0, "stop": 1}
    bundle.attrs["source"]["part"] = part
    bundle.attrs["source"]["shape"] = 3
    with pytest.raises(InputError, match="another rank than the source"):
        statistics_from_bundle(bundle, "s.json")


@pytest.mark.parametrize("key", ["layout", "mode", "kept", "scale_axes"])
def test_a_spec_without_a_field(key):
    bundle = statistics_bundle(statistics_of(spec_of({"mode": "batch"})))
    del bundle.attrs["spec"][key]
    with pytest.raises(InputError, match=key):
        statistics_from_bundle(bundle, "s.json")


def test_a_file_without_statistics(tmp_path):
    path = str(tmp_path / "a.npy")
    np.save(path, np.zeros(3))
    with pytest.raises(InputError, match="holds no normcli statistics"):
        read_statistics(path)
    empty = statistics_bundle(statistics_of(spec_of({"mode": "batch"}), affine=False))
    write_bundle(str(tmp_path / "e.npz"), Bundle({}, empty.attrs))
    with pytest.raises(InputError, match="neither moments nor a mean"):
        read_statistics(str(tmp_path / "e.npz"))


def test_flipped_bytes_of_an_npz_are_refused_or_change_nothing(tmp_path):
    """Whatever a byte becomes, there is no other error than normcli's own, and no other number."""
    path = tmp_path / "s.npz"
    statistics = statistics_of(spec_of({"mode": "batch"}))
    write_statistics(str(path), statistics)
    data = path.read_bytes()
    mutant = tmp_path / "mutant.npz"
    random = np.random.default_rng(17)
    outcomes = set()
    for place in random.integers(0, len(data), 1000):
        changed = bytearray(data)
        changed[place] ^= 1 << int(random.integers(8))
        mutant.write_bytes(changed)
        try:
            read = read_statistics(str(mutant))
        except NormcliError as error:
            outcomes.add(error.exit_code)
        else:
            np.testing.assert_array_equal(read.mean, statistics.mean)
            np.testing.assert_array_equal(read.variance, statistics.variance)
            outcomes.add(0)
    assert {0, 3} <= outcomes <= {0, 3, 4, 7}
