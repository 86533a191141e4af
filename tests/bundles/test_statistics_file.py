"""Statistics come back from every format as they were."""

import json
from dataclasses import fields, replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import normcli
from normcli.bundles.bundle import Bundle
from normcli.bundles.exact_sums import EXACT_NAMES
from normcli.bundles.formats import FORMATS, read_bundle, write_bundle
from normcli.bundles.sketch_arrays import SKETCH_NAMES
from normcli.bundles.statistics_bundle import (
    ARRAY_NAMES,
    METHOD_NAMES,
    MOMENT_NAMES,
    WIDE_NAMES,
    statistics_bundle,
    statistics_document,
    statistics_from_bundle,
)
from normcli.bundles.statistics_file import (
    read_statistics,
    read_statistics_header,
    write_statistics,
)
from normcli.domain.affine import Affine
from normcli.domain.moments import Moments
from normcli.domain.moving_average import MovingRule
from normcli.domain.norm_spec import NormSpec
from normcli.domain.statistics import SourceDescription
from normcli.errors import UsageError
from tests.examples import examples, pairs

from .contract import same_bits
from .samples import BY_BATCHES, MODES, spec_of, statistics_of

SUFFIXES = [suffix for suffix in FORMATS if suffix != ".npy"]
SCHEMA = Path(__file__).parents[2] / "docs" / "statistics.schema.json"
MOVING = [None, 0.9, "cumulative"]


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


@pytest.mark.parametrize(("options", "suffix"), pairs([*MODES, BY_BATCHES], SUFFIXES))
def test_statistics_of_every_mode_come_back(tmp_path, suffix, options):
    path = str(tmp_path / f"s{suffix}")
    for number, moving in enumerate(MOVING):
        stats = statistics_of(spec_of(options), number, moving, affine=number != 1)
        write_statistics(path, stats, overwrite=number > 0)
        require_same(read_statistics(path), stats)


@settings(
    max_examples=examples(30),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
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


@pytest.mark.parametrize("values", [[1e200, -1e200], [2**60, 2**60 + 1]])
def test_wide_sidecars_follow_the_schema(tmp_path, values):
    np.save(tmp_path / "x.npy", np.array(values))
    normcli.fit(tmp_path / "x.npy", tmp_path / "s.json", layout="N")
    schema = json.loads(SCHEMA.read_text())
    document = json.loads((tmp_path / "s.json").read_text())
    assert "mean_rest" in document["arrays"]
    jsonschema.Draft202012Validator(schema).validate(document)


def test_the_schema_knows_every_field():
    properties = json.loads(SCHEMA.read_text())["properties"]
    for cls, where in ((NormSpec, "spec"), (SourceDescription, "source")):
        assert set(properties[where]["properties"]) == {f.name for f in fields(cls)}
    moving = properties["moving"]["oneOf"][1]["properties"]
    assert set(moving) == {f.name for f in fields(MovingRule)} | {"batches"}
    assert set(properties["arrays"]["properties"]) == {
        *ARRAY_NAMES,
        *METHOD_NAMES,
        *WIDE_NAMES,
        *EXACT_NAMES,
        *SKETCH_NAMES,
    }


def test_statistics_too_large_for_json(tmp_path):
    spec = spec_of({"mode": "batch"})
    stats = statistics_of(spec)
    large = replace(stats, moments=Moments.identity((200_000,)), affine=Affine())
    with pytest.raises(UsageError, match="too many for JSON"):
        write_statistics(str(tmp_path / "s.json"), large)
    assert list(tmp_path.iterdir()) == []
