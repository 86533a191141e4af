"""However a dataset is cut, and in whatever order its statistics meet: the bits of one fit."""

from __future__ import annotations

import tracemalloc
from dataclasses import fields, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import normcli
from normcli.api.inspecting import inspect_path
from normcli.api.named_statistics import moments_of as moments_with_sums
from normcli.api.named_statistics import read_mergeable
from normcli.api.options import RunOptions
from normcli.api.verifying import verify_output
from normcli.bundles.exact_sums import EXACT_NAMES
from normcli.bundles.formats import read_bundle
from normcli.bundles.statistics_file import read_statistics_header
from normcli.domain import statistics as domain_statistics
from normcli.domain.exact_moments import ExactMoments
from normcli.domain.moments import Moments
from normcli.domain.statistics import added
from normcli.engine.events import Observer
from normcli.errors import InputError, UsageError

from .stores import STORAGES, store
from .test_properties import FEW, MORE, folder

SUFFIXES = (".json", ".npz", ".h5", ".zarr", ".safetensors")
X = np.random.default_rng(3).normal(-3, 2, (19, 4, 6)).astype("f4")


def bits(fitted: normcli.FittedStatistics) -> list[bytes]:
    """All bytes of moments and exact sums."""
    stats = fitted.statistics
    found = [np.asarray(getattr(stats.moments, f.name)).tobytes() for f in fields(Moments)]
    assert stats.exact is not None
    for f in fields(ExactMoments):
        array = np.asarray(getattr(stats.exact, f.name))
        found += [str(array.shape).encode(), array.tobytes()]
    return found


def moments_of(fitted: normcli.FittedStatistics) -> list[bytes]:
    moments = fitted.statistics.moments
    return [np.asarray(getattr(moments, f.name)).tobytes() for f in fields(Moments)]


def without_sums(path: Path) -> Path:
    """Rewrite a sidecar as earlier versions wrote it."""
    fitted = normcli.read_statistics(path)
    normcli.FittedStatistics(replace(fitted.statistics, exact=None)).save(path, overwrite=True)
    return path


@st.composite
def datasets(draw) -> np.ndarray:
    """Return an array of (N, C, S) whose float64 sums would depend on their order."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = (draw(st.integers(2, 12)), draw(st.integers(1, 3)), draw(st.integers(1, 6)))
    dtype = draw(st.sampled_from(["f4", "f8", "i8", "u8", "i2"]))
    if dtype in ("i8", "u8"):
        info = np.iinfo(dtype)
        return rng.integers(info.min, info.max, shape, dtype, endpoint=True)
    if dtype == "i2":
        return rng.integers(-(2**15), 2**15, shape).astype(dtype)
    spread = draw(st.sampled_from([0, 3, 30 if dtype == "f4" else 140]))
    x = rng.normal(1, 2, shape) * 10.0 ** rng.integers(-spread, spread + 1, shape)
    x = np.clip(x, -1e37, 1e37).astype(dtype) if dtype == "f4" else x
    # A group that spreads over less than float64 can square is refused.
    x[0, :, 0] = 1
    if draw(st.booleans()):
        x.reshape(-1)[draw(st.integers(1, x.size - 1))] = np.nan
    return x


def rational(x: np.ndarray) -> tuple[list[float], list[float]]:
    """Return mean and m2 of each channel, by fractions."""
    means, squares = [], []
    for channel in np.moveaxis(x, 1, 0):
        values = [Fraction(v.item()) for v in channel.reshape(-1) if np.isfinite(v)]
        mean = sum(values, Fraction(0)) / max(1, len(values))
        means.append(float(mean))
        squares.append(float(sum(((v - mean) ** 2 for v in values), Fraction(0))))
    return means, squares


@given(datasets(), st.data())
@MORE
def test_parts_in_any_order_are_one_fit(x, data):
    storage = data.draw(st.sampled_from(STORAGES))
    chunks = tuple(data.draw(st.integers(1, n)) for n in x.shape)
    of = data.draw(st.integers(2, 7))
    with folder() as place:
        name = store(place, "x", x, storage, chunks)
        whole = normcli.fit(name, layout="NCS")
        assert whole.statistics.moments is not None
        means, squares = rational(x)
        assert (whole.statistics.moments.mean.tolist(), whole.statistics.moments.m2.tolist()) == (
            means,
            squares,
        )
        suffix = data.draw(st.sampled_from(SUFFIXES))
        paths = [place / f"{i}{suffix}" for i in range(1, of + 1)]
        for i in data.draw(st.permutations(range(of))):
            normcli.fit(name, paths[i], layout="NCS", part=f"{i + 1}/{of}")
        merged = normcli.merge(data.draw(st.permutations(paths)), place / f"all{suffix}")
        assert bits(merged) == bits(whole)
        assert bits(normcli.read_statistics(place / f"all{suffix}")) == bits(whole)


@given(datasets(), st.data())
@MORE
def test_fits_of_pieces_are_one_fit(x, data):
    cuts = sorted(data.draw(st.sets(st.integers(1, len(x) - 1), min_size=1, max_size=4)))
    pieces = np.split(x, cuts)
    with folder() as place:
        names = [
            store(place, f"x{i}", piece, data.draw(st.sampled_from(STORAGES)))
            for i, piece in enumerate(pieces)
        ]
        options = {"layout": "NCS", "method": "center"}
        whole = normcli.fit(store(place, "x", x), **options)
        # Merged pair by pair, any two at a time.
        waiting = []
        for i, name in enumerate(names):
            waiting.append(place / f"{i}{data.draw(st.sampled_from(SUFFIXES))}")
            normcli.fit(name, waiting[-1], **options)
        while len(waiting) > 1:
            taken = [waiting.pop(data.draw(st.integers(0, len(waiting) - 1))) for _ in "ab"]
            waiting.append(place / f"m{len(waiting)}{data.draw(st.sampled_from(SUFFIXES))}")
            merged = normcli.merge(taken, waiting[-1])
        assert bits(merged) == bits(whole)
        # Continued one by one, in any order.
        earlier = None
        for step, i in enumerate(data.draw(st.permutations(range(len(names))))):
            path = place / f"u{step}{data.draw(st.sampled_from(SUFFIXES))}"
            updated = normcli.fit(names[i], path, update=earlier, **options)
            earlier = path
        assert bits(updated) == bits(whole)
        assert bits(normcli.read_statistics(earlier)) == bits(whole)


@given(datasets(), st.data())
@FEW
def test_sides_without_sums_are_merged_as_they_are(x, data):
    cuts = sorted(data.draw(st.sets(st.integers(1, len(x) - 1), min_size=1, max_size=3)))
    with folder() as place:
        options = {"layout": "NCS", "method": "center"}
        whole = normcli.fit(store(place, "x", x), **options).statistics.moments
        names = [store(place, f"x{i}", piece) for i, piece in enumerate(np.split(x, cuts))]
        paths = [place / f"{i}.npz" for i in range(len(names))]
        for name, path in zip(names, paths, strict=True):
            normcli.fit(name, path, **options)
        for i in data.draw(st.sets(st.integers(0, len(paths) - 1), min_size=1)):
            without_sums(paths[i])
        merged = normcli.merge(paths, place / "m.json")
        old = without_sums(paths[0])
        updated = normcli.fit(names[1], place / "u.json", update=old, **options)
        again = normcli.fit(names[0], update=place / "u.json", **options)
        for found in (merged, updated, again, normcli.read_statistics(place / "m.json")):
            assert found.statistics.exact is None
        moments = merged.statistics.moments
        assert whole is not None
        assert moments is not None
        for name in ("count", "minimum", "maximum", "nonfinite"):
            np.testing.assert_array_equal(getattr(moments, name), getattr(whole, name))
        size = np.maximum(np.abs(whole.minimum), np.abs(whole.maximum))
        size = np.where(whole.count > 0, size, 0)
        assert np.all(np.abs(moments.mean - whole.mean) <= 1e-12 * size)
        assert np.all(np.abs(moments.m2 - whole.m2) <= 1e-12 * whole.count * size * size)


@pytest.mark.parametrize("kernel", ["numpy", "numba"])
def test_chunks_and_kernels_change_no_sum(tmp_path, monkeypatch, kernel):
    monkeypatch.setattr("normcli.api.capacity.choose", lambda nbytes: kernel)
    monkeypatch.setattr("normcli.kernels.select.choose", lambda nbytes: kernel)
    found = []
    for i, chunks in enumerate([(1, 4, 6), (19, 1, 2), (7, 3, 6)]):
        name = store(tmp_path, f"x{i}", X, "zarr3", chunks)
        runs = ({"workers": 1}, {"workers": 3, "memory": "64MiB"})
        found += [bits(normcli.fit(name, layout="NCS", **run)) for run in runs]
    assert all(one == found[0] for one in found)


def test_observations_have_no_sums_but_their_parts_do(tmp_path):
    options = {"layout": "NCS", "mode": "instance"}
    name = store(tmp_path, "x", X, "zarr3", (4, 2, 5))
    whole = normcli.fit(name, tmp_path / "s.npz", **options)
    assert whole.statistics.exact is None
    paths = [tmp_path / f"{i}.npz" for i in range(1, 5)]
    for i, path in enumerate(paths):
        part = normcli.fit(name, path, part=f"{i + 1}/4", **options)
        assert part.statistics.exact is not None
        assert set(EXACT_NAMES) <= set(read_bundle(str(path)).arrays)
    merged = normcli.merge(paths[::-1])
    assert moments_of(merged) == moments_of(whole)
    assert merged.statistics.exact is None


def test_many_groups_are_kept_without_sums_but_their_parts_with(tmp_path, monkeypatch):
    monkeypatch.setattr(domain_statistics, "EXACT_GROUPS", 3)
    name = store(tmp_path, "x", X, "zarr3", (4, 2, 5))
    whole = normcli.fit(name, tmp_path / "s.npz", layout="NCS")
    assert whole.statistics.exact is None
    paths = [tmp_path / f"{i}.json" for i in range(1, 4)]
    for i, path in enumerate(paths):
        normcli.fit(name, path, part=f"{i + 1}/3", layout="NCS")
        assert normcli.read_statistics(path).statistics.exact is not None
    merged = normcli.merge(paths)
    assert moments_of(merged) == moments_of(whole)
    assert merged.statistics.exact is None


def test_a_part_too_large_for_json_is_refused_before_it_is_measured(tmp_path):
    np.save(tmp_path / "x.npy", np.ones((4, 5000)))
    name = str(tmp_path / "x.npy")
    with pytest.raises(UsageError, match="up to 1050000 values") as caught:
        normcli.fit(name, tmp_path / "s.json", part="1/2", layout="NC")
    assert ".npz" in caught.value.hint
    assert not list(tmp_path.glob("*s.json*"))
    normcli.fit(name, tmp_path / "s.npz", part="1/2", layout="NC")
    normcli.fit(name, tmp_path / "s.json", layout="NC")


def test_an_apply_writes_none_and_takes_any(tmp_path):
    name = store(tmp_path, "x", X)
    fitted = normcli.fit(name, tmp_path / "s.npz", layout="NCS")
    normcli.apply(name, tmp_path / "a.npy", layout="NCS")
    normcli.apply(name, tmp_path / "b.npy", stats=tmp_path / "s.npz")
    normcli.apply(name, tmp_path / "c.npy", stats=fitted)
    outputs = [(tmp_path / f"{k}.npy").read_bytes() for k in "abc"]
    assert outputs[0] == outputs[1] == outputs[2]
    for k in "ab":
        assert normcli.read_statistics(tmp_path / f"{k}.npy.stats.json").statistics.exact is None


def test_moving_statistics_keep_the_sums_of_everything(tmp_path):
    options = {"layout": "NCS", "momentum": 0.8, "batch_size": 4}
    plain = normcli.fit(store(tmp_path, "x", X), layout="NCS")
    whole = normcli.fit(store(tmp_path, "x", X), **options)
    normcli.fit(store(tmp_path, "a", X[:8]), tmp_path / "a.npz", **options)
    updated = normcli.fit(store(tmp_path, "b", X[8:]), update=tmp_path / "a.npz", **options)
    assert bits(updated) == bits(whole) == bits(plain)
    np.testing.assert_array_equal(updated.moving_mean, whole.moving_mean)


def test_squares_that_leave_float64_only_together(tmp_path):
    for key, values in (("a", [0.0, 1.0]), ("b", [1e200, 1e200])):
        np.save(tmp_path / f"{key}.npy", np.array(values))
        normcli.fit(tmp_path / f"{key}.npy", tmp_path / f"{key}.json", layout="N")
    np.save(tmp_path / "both.npy", np.array([0.0, 1.0, 1e200, 1e200]))
    whole = normcli.fit(tmp_path / "both.npy", layout="N")
    assert not np.isfinite(whole.variance)
    assert float(whole.std) == 5e199
    merged = normcli.merge([tmp_path / "a.json", tmp_path / "b.json"])
    updated = normcli.fit(tmp_path / "b.npy", update=tmp_path / "a.json", layout="N")
    for other in (merged, updated):
        for name in whole.statistics.moments.names():
            held = getattr(other.statistics.moments, name)
            assert held == getattr(whole.statistics.moments, name)


def test_a_sidecar_changed_by_hand_is_refused(tmp_path):
    name = store(tmp_path, "x", X)
    fitted = normcli.fit(name, layout="NCS").statistics
    moments = replace(fitted.moments, mean=fitted.moments.mean + 1)
    path = tmp_path / "s.h5"
    normcli.FittedStatistics(replace(fitted, moments=moments)).save(path)
    for use in (
        lambda: normcli.merge([path]),
        lambda: normcli.fit(name, update=path, layout="NCS"),
        lambda: normcli.apply(name, tmp_path / "y.npy", stats=path),
        lambda: normcli.read_statistics(path),
    ):
        with pytest.raises(InputError, match="the file was changed") as caught:
            use()
        assert caught.value.hint
    found = verify_output(str(path), RunOptions(), Observer()).damage
    assert any("exact sums of 4 of 4 groups do not round" in what for what in found)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_inspect_lists_no_limbs(tmp_path, suffix):
    path = tmp_path / f"s{suffix}"
    normcli.fit(store(tmp_path, "x", X), path, layout="NCS")
    found = inspect_path(str(path))
    assert not {row[0] for row in found.rows()} & set(EXACT_NAMES)
    assert "merge" in found.facts["exact sums"]
    assert found.as_dict()["exact_sums"] is True
    found = inspect_path(str(without_sums(path)))
    assert "exact sums" not in found.facts
    assert found.as_dict()["exact_sums"] is False


def test_parts_are_held_one_at_a_time(tmp_path):
    groups, of = 15_000, 12
    np.save(tmp_path / "x.npy", np.random.default_rng(1).normal(size=(of, groups)).astype("f4"))
    name = str(tmp_path / "x.npy")
    paths = [tmp_path / f"{i}.npz" for i in range(1, of + 1)]
    for i, path in enumerate(paths):
        normcli.fit(name, path, layout="NC", part=f"{i + 1}/{of}")
    part = sum(a.nbytes for a in read_bundle(str(paths[0])).arrays.values())
    taken = []
    for few in (paths[:3], paths):
        tracemalloc.start()
        try:
            added(moments_with_sums(read_mergeable(str(path))) for path in few)
            taken.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert taken[1] < taken[0] + 2 * part
    tracemalloc.start()
    try:
        normcli.merge(paths)
        assert tracemalloc.get_traced_memory()[1] < taken[1] + 2 * part
    finally:
        tracemalloc.stop()


def test_a_file_that_changes_while_it_is_merged(tmp_path, monkeypatch):
    paths = []
    for i, rows in enumerate((X[:5], X[5:])):
        paths.append(tmp_path / f"{i}.json")
        normcli.fit(store(tmp_path, f"x{i}", rows), paths[-1], layout="NCS")

    def read(path):
        header = read_statistics_header(path)
        # Between reading what it is and what it holds, another fit takes its place.
        normcli.fit(tmp_path / "x1.npy", paths[0], layout="NCS", overwrite=True)
        return header

    monkeypatch.setattr("normcli.api.merging.read_statistics_header", read)
    with pytest.raises(InputError, match=r"0\.json was changed while it was merged"):
        normcli.merge(paths)
