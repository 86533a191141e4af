"""Statistics come back from every format as they were."""

import json
import re
from dataclasses import fields, replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from normcli.bundles.bundle import Bundle
from normcli.bundles.formats import FORMATS, read_bundle, write_bundle
from normcli.bundles.statistics_file import (
    ARRAY_NAMES,
    MOMENT_NAMES,
    read_statistics,
    read_statistics_header,
    statistics_bundle,
    statistics_document,
    statistics_from_bundle,
    write_statistics,
)
from normcli.domain.affine import Affine
from normcli.domain.dtypes import bfloat16
from normcli.domain.geometry import bind
from normcli.domain.layout import Layout
from normcli.domain.moments import Moments
from normcli.domain.moving_average import MovingRule, MovingStatistics
from normcli.domain.norm_spec import NormSpec, make_spec
from normcli.domain.statistics import SourceDescription, Statistics
from normcli.errors import DataPolicyError, InputError, UsageError

from .contract import same_bits

SUFFIXES = [suffix for suffix in FORMATS if suffix != ".npy"]
SCHEMA = Path(__file__).parents[2] / "docs" / "statistics.schema.json"
SHAPE = (3, 4, 2, 5)
MODES = [
    {"mode": "batch"},
    {"mode": "batch", "method": "rms", "convention": "torch", "ddof": 1},
    {"mode": "instance", "nonfinite": "propagate", "placement": "outside"},
    {"mode": "layer", "epsilon": 0.0},
    {"mode": "group", "groups": 2, "placement": "floor"},
    {"mode": "custom", "aggregate": "all", "scale_axes": "none"},
    {"mode": "custom", "aggregate": "HW", "scale_axes": "same", "nonfinite": "error"},
]
BY_BATCHES = "by batches"
MOVING = [None, 0.9, "cumulative"]


def spec_of(options, dims=("time", "", "lat", "lon")):
    if options == BY_BATCHES:
        return make_spec(Layout("NCHW", dims), np.dtype("f4")).by_batches(2)
    return make_spec(Layout("NCHW", dims), np.dtype("f4"), **options)


def statistics_of(spec, seed=0, moving=None, affine=True, dtype="<f4"):
    rng = np.random.default_rng(seed)
    geometry = bind(spec, SHAPE)
    shape = geometry.statistics_shape
    count = rng.integers(0, 9, shape)
    low = rng.normal(size=shape)
    moments = Moments(
        count=count,
        mean=np.where(count, low + 1 / 3, 0.0),
        m2=np.where(count, rng.random(shape), 0.0),
        minimum=np.where(count, low, np.inf),
        maximum=np.where(count, low + 1, -np.inf),
        nonfinite=rng.integers(0, 2**62, shape),
    )
    kept = None
    if moving is not None:
        momentum = None if moving == "cumulative" else moving
        rule = MovingRule(momentum, (2, 1), "unbiased", "first-batch")
        kept = MovingStatistics(rule, rng.normal(size=shape), rng.random(shape), 7)
    return Statistics(
        spec=spec,
        source=SourceDescription(
            SHAPE,
            bfloat16() if dtype == "bfloat16" else np.dtype(dtype),
            spec.layout.names,
            ({"path": "ä.npy", "size": 480, "mtime": 1.7e9 + 0.1, "fingerprint": "a" * 64},),
        ),
        moments=moments,
        moving=kept,
        affine=Affine(rng.normal(size=geometry.scale_shape)) if affine else Affine(),
        provenance={"version": "0.1.0", "command": "normcli fit x -o y", "created": "2026-01-01"},
    )


def require_same(one, other):
    assert one.spec == other.spec
    assert one.source == other.source
    assert one.provenance == other.provenance
    for name in MOMENT_NAMES if one.moments is not None else ():
        assert same_bits(getattr(one.moments, name), getattr(other.moments, name)), name
    assert (one.moments is None) == (other.moments is None)
    assert (one.given is None) == (other.given is None)
    for left, right in zip(one.given or (), other.given or (), strict=True):
        assert same_bits(left, right)
    assert (one.moving is None) == (other.moving is None)
    if one.moving is not None:
        assert one.moving.rule == other.moving.rule
        assert one.moving.batches == other.moving.batches
        assert same_bits(one.moving.mean, other.moving.mean)
        assert same_bits(one.moving.variance, other.moving.variance)
    for name in ("scale", "bias"):
        left, right = getattr(one.affine, name), getattr(other.affine, name)
        assert (left is None) == (right is None)
        assert left is None or same_bits(left, right)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("options", [*MODES, BY_BATCHES], ids=str)
def test_statistics_of_every_mode_come_back(tmp_path, suffix, options):
    path = str(tmp_path / f"s{suffix}")
    for number, moving in enumerate(MOVING):
        stats = statistics_of(spec_of(options), number, moving, affine=number != 1)
        write_statistics(path, stats, overwrite=number > 0)
        require_same(read_statistics(path), stats)


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    options=st.sampled_from([*MODES, BY_BATCHES]),
    moving=st.sampled_from(MOVING),
    affine=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
    epsilon=st.floats(0, 1e300),
    dtype=st.sampled_from([">f8", "<f2", "|u1", "|b1", ">i4", "bfloat16"]),
    dims=st.none() | st.tuples(*[st.text(max_size=5)] * 4),
    text=st.text(st.characters(exclude_categories=[])),
)
def test_any_statistics_come_back(
    tmp_path, options, moving, affine, seed, epsilon, dtype, dims, text
):
    spec = replace(spec_of(options, dims), epsilon=epsilon, epsilon_given=True)
    stats = statistics_of(spec, seed, moving, affine, dtype)
    stats = replace(stats, provenance={"command": text, "note": {"kept": [1, None]}})
    for suffix in (".json", ".npz"):
        path = str(tmp_path / f"any{suffix}")
        write_statistics(path, stats, overwrite=True)
        require_same(read_statistics(path), stats)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_supplied_statistics_come_back(tmp_path, suffix):
    stats = statistics_of(spec_of({"mode": "batch"}))
    given = (np.array([1.0, 2, 3, np.nan]), np.array([0.0, 1, np.inf, 2]))
    stats = replace(stats, moments=None, given=given, affine=Affine(None, np.zeros(4)))
    path = str(tmp_path / f"s{suffix}")
    write_statistics(path, stats)
    assert set(read_bundle(path).arrays) == {"mean", "variance", "bias"}
    require_same(read_statistics(path), stats)


def test_arrays_bear_the_names_of_the_command_line(tmp_path):
    path = str(tmp_path / "s.npz")
    stats = statistics_of(spec_of({"mode": "instance"}), moving=0.5)
    write_statistics(path, stats)
    with np.load(path) as archive:
        assert set(archive.files) == set(ARRAY_NAMES) - {"bias"} | {"normcli"}
        assert same_bits(archive["mean"], stats.moments.mean)
        assert np.array_equal(archive["variance"], stats.variance, equal_nan=True)
        assert archive["mean"].shape == (3, 4)


def test_the_variance_is_derived_and_not_read(tmp_path):
    stats = statistics_of(spec_of({"mode": "batch"}))
    bundle = statistics_bundle(stats)
    bundle.arrays["variance"][...] = -1
    require_same(statistics_from_bundle(bundle, "s"), stats)
    del bundle.arrays["variance"]
    require_same(statistics_from_bundle(bundle, "s"), stats)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_header_alone(tmp_path, suffix):
    path = str(tmp_path / f"s{suffix}")
    stats = statistics_of(spec_of({"mode": "batch"}), moving=0.9)
    write_statistics(path, stats)
    header = read_statistics_header(path)
    assert (header.spec, header.source) == (stats.spec, stats.source)
    assert header.moments is None
    assert same_bits(header.affine.scale, stats.affine.scale)
    write_bundle(path, Bundle({"scale": np.ones(2)}), overwrite=True)
    assert read_statistics_header(path) is None


def test_the_document_is_what_json_holds(tmp_path):
    path = tmp_path / "s.json"
    stats = statistics_of(spec_of({"mode": "group", "groups": 2}), moving="cumulative")
    write_statistics(str(path), stats)
    assert json.loads(path.read_text()) == json.loads(json.dumps(statistics_document(stats)))


def test_an_update_at_full_precision(tmp_path):
    spec = spec_of({"mode": "batch"})
    one, two = statistics_of(spec, 1), statistics_of(spec, 2)
    path = str(tmp_path / "s.json")
    write_statistics(path, one)
    merged = read_statistics(path).moments.merge(two.moments)
    direct = one.moments.merge(two.moments)
    assert all(same_bits(getattr(merged, n), getattr(direct, n)) for n in MOMENT_NAMES)


@pytest.mark.parametrize("options", [*MODES, BY_BATCHES], ids=str)
@pytest.mark.parametrize("moving", MOVING)
def test_json_sidecars_follow_the_schema(tmp_path, options, moving):
    schema = json.loads(SCHEMA.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    path = tmp_path / "s.json"
    write_statistics(str(path), statistics_of(spec_of(options), moving=moving))
    document = json.loads(path.read_text())
    validator.validate(document)
    document["spec"]["layouts"] = "x"
    assert not validator.is_valid(document)


def test_the_schema_knows_every_field():
    properties = json.loads(SCHEMA.read_text())["properties"]
    for cls, where in ((NormSpec, "spec"), (SourceDescription, "source")):
        assert set(properties[where]["properties"]) == {f.name for f in fields(cls)}
    moving = properties["moving"]["oneOf"][1]["properties"]
    assert set(moving) == {f.name for f in fields(MovingRule)} | {"batches"}
    assert set(properties["arrays"]["properties"]) == set(ARRAY_NAMES)


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
    (_set("schema_version", to=2), InputError, "schema version 2, newer than the 1"),
    (_set("schema_version", to="1"), InputError, "schema version '1'"),
    (_set("schema_version", to=True), InputError, "schema version True"),
    (_drop_attr("spec"), InputError, "spec is no JSON object"),
    (_set("spec", to=[]), InputError, "spec is no JSON object"),
    (_set("spec", "layout", to="NCHW"), InputError, "spec.layout is no JSON object"),
    (_set("spec", "layout", "letters", to="NXHW"), InputError, "unknown letter 'X'"),
    (_set("spec", "layout", "names", to=["a"]), InputError, "has 1 names"),
    (_set("spec", "method", to="new"), InputError, "There is no method 'new'"),
    (_set("spec", "quantiles", to=[1]), InputError, "field 'quantiles', which this version"),
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


def test_statistics_too_large_for_json(tmp_path):
    spec = spec_of({"mode": "batch"})
    stats = statistics_of(spec)
    large = replace(stats, moments=Moments.identity((200_000,)), affine=Affine())
    with pytest.raises(UsageError, match="too many for JSON"):
        write_statistics(str(tmp_path / "s.json"), large)
    assert list(tmp_path.iterdir()) == []
