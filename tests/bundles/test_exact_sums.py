"""Exact sums in sidecars: kept to the last bit, and refused where they belong to other numbers."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from normcli.bundles import statistics_file
from normcli.bundles.bundle import Bundle
from normcli.bundles.exact_sums import EXACT_NAMES
from normcli.bundles.formats import read_bundle, write_bundle
from normcli.bundles.statistics_bundle import statistics_bundle, statistics_from_bundle
from normcli.bundles.statistics_file import read_statistics, write_statistics
from normcli.domain.exact_moments import ExactMoments
from normcli.domain.statistics import Statistics
from normcli.errors import InputError, NormcliError
from tests.domain.test_canonical_sums import sums_of
from tests.examples import examples

from .samples import spec_of, statistics_of

SUFFIXES = (".json", ".npz", ".h5", ".zarr", ".safetensors")
SCHEMA = Path(__file__).parents[2] / "docs" / "statistics.schema.json"


def sample(options=None, empty=True, seed=3) -> Statistics:
    """Return statistics of four channels of float64 of all magnitudes, one of them empty."""
    rng = np.random.default_rng(seed)
    values = rng.normal(-2, 3, (4, 30)) * 10.0 ** rng.integers(-60, 60, (4, 1))
    values[1] = [5e-324, -5e-324] * 15  # A sum of 0.
    if empty:
        values[2] = np.nan
    exact = sums_of(values).canonical()
    stats = statistics_of(spec_of(options or {"mode": "batch"}))
    return replace(stats, moments=exact.finish(), exact=exact)


def assert_same_sums(a: ExactMoments | None, b: ExactMoments | None) -> None:
    assert a is not None
    assert b is not None
    for f in fields(ExactMoments):
        x, y = getattr(a, f.name), getattr(b, f.name)
        assert (x.dtype, x.shape, x.tobytes()) == (y.dtype, y.shape, y.tobytes()), f.name


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_keeps_every_bit(tmp_path, suffix):
    path = str(tmp_path / f"s{suffix}")
    for stats in (sample(), replace(sample(empty=False), moving=None)):
        write_statistics(path, stats, overwrite=True)
        assert_same_sums(read_statistics(path).exact, stats.exact)
    arrays = read_bundle(path).arrays
    assert [arrays[name].dtype for name in EXACT_NAMES] == [np.int64] * 3
    assert arrays["exponent"].shape == (4,)
    assert arrays["total"].shape[:-1] == arrays["squares"].shape[:-1] == (4,)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_dataset_of_one_group(tmp_path, suffix):
    stats = sample({"mode": "custom", "aggregate": "all", "scale_axes": "none"})
    exact = sums_of(np.array([1.5, 2**40, -0.1])).canonical()
    path = str(tmp_path / f"s{suffix}")
    write_statistics(path, replace(stats, moments=exact.finish(), exact=exact))
    assert_same_sums(read_statistics(path).exact, exact)


def test_the_schema_describes_them(tmp_path):
    schema = json.loads(SCHEMA.read_text())
    write_statistics(str(tmp_path / "s.json"), sample())
    document = json.loads((tmp_path / "s.json").read_text())
    validator = jsonschema.Draft202012Validator(schema)
    validator.validate(document)
    for name in EXACT_NAMES:
        fewer = {n: a for n, a in document["arrays"].items() if n != name}
        assert not validator.is_valid({**document, "arrays": fewer})


def test_sidecars_without_them_are_read_as_before(tmp_path):
    stats = replace(sample(), exact=None)
    write_statistics(str(tmp_path / "s.npz"), stats)
    assert not set(EXACT_NAMES) & set(read_bundle(str(tmp_path / "s.npz")).arrays)
    assert read_statistics(str(tmp_path / "s.npz")).exact is None


def changed(name, change) -> Bundle:
    bundle = statistics_bundle(sample())
    arrays = {n: np.array(values) for n, values in bundle.arrays.items()}
    found = change(arrays[name])
    if found is not None:
        arrays[name] = found
    return Bundle(arrays, bundle.attrs)


def put(index, value):
    def change(values):
        values[index] = value

    return change


def more(index, value):
    def change(values):
        values[index] += value

    return change


OTHER = [
    ("mean", put(0, 7.0), "1 of 4 groups"),
    ("mean", lambda a: np.nextafter(a, np.inf), "do not round"),
    ("m2", lambda a: a * (1 + 2**-52), "do not round"),
    ("count", more(0, 1), "first at index (0,)"),
    ("count", lambda a: a * 0, "do not round"),
    ("total", more((0, -1), 1), "do not round"),
    ("total", lambda a: np.roll(a, 1, axis=0), "do not round"),
    ("squares", more((3, -1), 1), "do not round"),
    ("exponent", more(3, 1), "do not round"),
    # No sums at all.
    ("exponent", put(0, 2**62), "'exponent' holds numbers that no sum has"),
    ("exponent", put(0, -35), "no sum has"),
    ("total", put((0, 0), -1), "'total' holds numbers that no sum has"),
    ("total", put((0, 0), 2**32), "no sum has"),
    ("total", put((0, -1), 2**31), "no sum has"),
    ("squares", put((0, -1), -1), "'squares' holds numbers that no sum has"),
    ("squares", put((0, 0), -(2**63)), "no sum has"),
    ("squares", lambda a: a[:3], "'squares' has shape (3,"),
    ("squares", lambda a: a[:, 0], "'squares' has shape (4,)"),
    ("squares", lambda a: a[:, :0], "'squares' has shape (4, 0)"),
    ("total", lambda a: np.zeros((4, 500), np.int64), "'total' has shape (4, 500)"),
    ("exponent", lambda a: a[:, np.newaxis], "'exponent' has shape (4, 1)"),
    ("total", lambda a: a.astype("f8"), "'total' holds float64, not signed integers"),
    ("exponent", lambda a: a.astype("?"), "'exponent' holds bool"),
    ("squares", lambda a: a.astype("u8"), "'squares' holds uint64"),
]


@pytest.mark.parametrize(("name", "change", "words"), OTHER)
def test_sums_that_belong_to_other_numbers_are_refused(tmp_path, name, change, words):
    path = str(tmp_path / "s.npz")
    write_bundle(path, changed(name, change))
    with pytest.raises(InputError) as caught:
        read_statistics(path)
    assert words in caught.value.message
    assert path in caught.value.message
    if "signed" not in words and "bool" not in words and "uint64" not in words:
        assert "exponent, total, squares" in caught.value.hint


def test_a_change_made_on_purpose(tmp_path):
    bundle = changed("mean", put(0, 7.0))
    arrays = {n: a for n, a in bundle.arrays.items() if n not in EXACT_NAMES}
    found = statistics_from_bundle(Bundle(arrays, bundle.attrs), "s")
    assert found.moments is not None
    assert (found.exact, found.moments.mean[0]) == (None, 7.0)


@pytest.mark.parametrize("kept", [1, 2])
def test_some_of_the_arrays_are_none(kept):
    bundle = statistics_bundle(sample())
    arrays = {n: a for n, a in bundle.arrays.items() if n not in EXACT_NAMES[kept:]}
    with pytest.raises(InputError, match="but not") as caught:
        statistics_from_bundle(Bundle(arrays, bundle.attrs), "s")
    assert EXACT_NAMES[kept] in caught.value.message


@given(st.sampled_from(EXACT_NAMES), st.integers(0, 3), st.data())
@settings(deadline=None, max_examples=examples(150))
def test_no_numbers_break_the_reader(name, group, data):
    bundle = statistics_bundle(sample())
    arrays = {n: np.array(values) for n, values in bundle.arrays.items()}
    row = arrays[name].reshape(4, -1)[group]
    low, high = data.draw(st.sampled_from([(-40, 40), (0, 2**32 - 1), (-(2**63), 2**63 - 1)]))
    row[data.draw(st.integers(0, row.size - 1))] = data.draw(st.integers(low, high))
    arrays["count"][group] = data.draw(st.sampled_from([0, 1, 30, 2**31, 2**62]))
    with np.errstate(all="raise", under="ignore"):
        try:
            found = statistics_from_bundle(Bundle(arrays, bundle.attrs), "s")
        except NormcliError:
            return
    assert found.exact is not None
    assert found.moments is not None
    np.testing.assert_array_equal(found.exact.finish().m2, found.moments.m2)


def test_json_goes_without_them_where_they_are_too_many(tmp_path, monkeypatch):
    stats = sample()
    sizes = {n: a.size for n, a in statistics_bundle(stats).arrays.items()}
    for room, kept in ((sum(sizes.values()), True), (sum(sizes.values()) - 1, False)):
        monkeypatch.setattr(statistics_file, "MAX_VALUES", room)
        for suffix in (".json", ".npz"):
            write_statistics(str(tmp_path / f"s{suffix}"), stats, overwrite=True)
        assert (read_statistics(str(tmp_path / "s.json")).exact is not None) is kept
        assert read_statistics(str(tmp_path / "s.npz")).exact is not None
