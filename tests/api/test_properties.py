"""What must not depend on storage, budget or workers, and what must undo what."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import normcli
from normcli.api.applying import apply_array
from normcli.api.fitting import fit_arrays
from normcli.api.options import ApplyOptions, FitOptions, RunOptions
from normcli.domain.moments import Moments
from normcli.engine.events import Observer
from normcli.kernels import select
from normcli.planning.planner import GROUPS_IN_MEMORY
from tests.examples import examples

from .stores import STORAGES, hold_groups, load, store, suffix

# Examples are small already, and writing files makes shrinking them slow.
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)
FEW = settings(max_examples=examples(12), deadline=None, phases=PHASES)
MORE = settings(max_examples=examples(30), deadline=None, phases=PHASES)
# Above the temporaries of a worker's tiles (4 MiB), so that blocks become small.
TIGHT, AMPLE = "4200KiB", "1GiB"

MODES: dict[str, dict] = {
    "batch": {"mode": "batch"},
    "instance": {"mode": "instance"},
    "layer": {"mode": "layer"},
    "layer of all": {"mode": "layer", "aggregate": "~N"},
    "group": {"mode": "group", "groups": 2},
    "custom": {"mode": "custom", "aggregate": "N"},
    "everything": {"mode": "custom", "aggregate": "all"},
    "rms": {"mode": "layer", "method": "rms"},
    "std": {"mode": "batch", "method": "std"},
}
LAYOUTS = ("NCHW", "NHWC", "NCS", "NTC", "SSCB")


@contextmanager
def folder() -> Iterator[Path]:
    """A folder for one example; hypothesis runs many in one test."""
    path = Path(tempfile.mkdtemp(prefix="normcli-test-"))
    try:
        yield path
    finally:
        shutil.rmtree(path)


@st.composite
def inputs(draw, layouts=LAYOUTS, dtypes=("f4", "f8", "i2", "f2")) -> tuple[str, np.ndarray]:
    layout = draw(st.sampled_from(layouts))
    shape = tuple(
        2 * draw(st.integers(1, 3)) if letter == "C" else draw(st.integers(2, 7))
        for letter in layout
    )
    dtype = np.dtype(draw(st.sampled_from(dtypes)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    x = rng.normal(draw(st.sampled_from([0.0, 20.0])), 3.0, shape) * (
        10 if dtype.kind == "i" else 1
    )
    x = x.astype(dtype)
    if dtype.kind == "f" and draw(st.booleans()):
        x.reshape(-1)[draw(st.integers(0, x.size - 1))] = np.nan
    return layout, x


def bits(fitted: normcli.FittedStatistics) -> bytes:
    moments, moving = fitted.statistics.moments, fitted.statistics.moving
    parts = [getattr(moments, f.name) for f in fields(Moments)]
    if moving is not None:
        parts += [moving.mean, moving.variance]
    return b"".join(np.ascontiguousarray(part).tobytes() for part in parts)


def assert_close(a: normcli.FittedStatistics, b: normcli.FittedStatistics) -> None:
    one, two = a.statistics.moments, b.statistics.moments
    for name in ("count", "minimum", "maximum", "nonfinite"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
    np.testing.assert_allclose(one.mean, two.mean, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(one.m2, two.m2, rtol=1e-12, atol=1e-22)


def ulps(a: np.ndarray, b: np.ndarray) -> float:
    """Largest distance in units of the last place, near 0 those of 1e-3."""
    np.testing.assert_array_equal(np.isnan(a), np.isnan(b))
    size = np.maximum(np.maximum(np.abs(a), np.abs(b)), a.dtype.type(1e-3))
    with np.errstate(invalid="ignore"):
        apart = np.abs(a.astype("f8") - b.astype("f8")) / np.spacing(size).astype("f8")
    return float(np.nanmax(apart, initial=0.0))


def plain(layout: str, x: np.ndarray, mode: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of each group by numpy alone."""
    n, c = layout.replace("B", "N").index("N"), layout.index("C")
    last = x.ndim - 1
    kept = {
        "batch": {c},
        "std": {c},
        "instance": {n, c},
        "layer": set(range(last)),
        "rms": set(range(last)),
        "layer of all": {n},
        "custom": set(range(x.ndim)) - {n},
        "everything": set(),
    }
    x = x.astype("f8")
    if mode == "group":
        x = x.reshape(*x.shape[:c], 2, x.shape[c] // 2, *x.shape[c + 1 :])
        axes = tuple(a for a in range(x.ndim) if a not in ({n, c} if n < c else {n + 1, c}))
    else:
        axes = tuple(a for a in range(x.ndim) if a not in kept[mode])
    with np.errstate(invalid="ignore"):
        finite = np.isfinite(x)
        count = finite.sum(axes)
        mean = np.where(finite, x, 0).sum(axes, keepdims=True) / finite.sum(axes, keepdims=True)
        square = np.where(finite, (x - mean) ** 2, 0).sum(axes) / count
    return mean.reshape(square.shape), square


@given(inputs(), st.sampled_from(sorted(MODES)), st.data())
@MORE
def test_statistics_do_not_depend_on_where_and_how(made, mode, data):
    layout, x = made
    options = {"layout": layout, **MODES[mode]}
    with folder() as place:
        base = normcli.fit(store(place, "base", x), memory=AMPLE, workers=1, **options)
        mean, variance = plain(layout, x, mode)
        np.testing.assert_allclose(base.mean, mean, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(base.variance, variance, rtol=1e-11, atol=1e-12)
        storage = data.draw(st.sampled_from(STORAGES), "storage")
        chunks = tuple(data.draw(st.integers(1, n)) for n in x.shape)
        name = store(place, "other", x, storage, chunks)
        budget = data.draw(st.sampled_from([TIGHT, "5MiB", AMPLE]), "budget")
        one = normcli.fit(name, memory=budget, workers=1, **options)
        assert_close(base, one)
        workers = data.draw(st.integers(2, 4), "workers")
        assert bits(normcli.fit(name, memory=budget, workers=workers, **options)) == bits(one)


@given(inputs(layouts=("NCS", "NHWC", "SCB", "N")), st.data())
@MORE
def test_the_moving_average_has_the_same_bits_everywhere(made, data):
    layout, x = made
    options = {
        "layout": layout,
        "momentum": data.draw(st.sampled_from([0.9, 0.5, "cumulative"]), "momentum"),
        "batch_size": data.draw(st.sampled_from([1, 2, 3, (2, 1), (4, 2, 3)]), "batch_size"),
    }
    if options["momentum"] == "cumulative":
        # A plain average refuses batches without a finite value.
        x = np.nan_to_num(x, nan=1.0, posinf=2.0, neginf=-2.0)
    with folder() as place:
        base = normcli.fit(store(place, "base", x), memory=AMPLE, workers=1, **options)
        for storage in STORAGES:
            chunks = tuple(data.draw(st.integers(1, n)) for n in x.shape)
            name = store(place, storage, x, storage, chunks)
            for budget, workers in ((TIGHT, 3), (AMPLE, 2)):
                other = normcli.fit(name, memory=budget, workers=workers, **options)
                for which in ("moving_mean", "moving_variance"):
                    a, b = getattr(other, which), getattr(base, which)
                    assert a.tobytes() == b.tobytes(), (storage, budget, which)
                assert bits(other) == bits(base), storage


def test_the_moving_average_of_batches_that_are_cut(tmp_path):
    # Blocks of several batches under an ample budget, of one batch under a tight one.
    x = np.random.default_rng(8).normal(50, 3, (300, 7, 900)).astype("f4")
    options = {"layout": "NCS", "momentum": 0.9, "batch_size": 8}
    names = [
        store(tmp_path, "c", x),
        store(tmp_path, "f", x, "npy-fortran"),
        store(tmp_path, "z", x, "zarr3", (50, 3, 100)),
        store(tmp_path, "h", x, "h5-chunked", (64, 7, 64)),
    ]
    found = {
        bits(normcli.fit(name, memory=memory, workers=workers, **options))
        for name in names
        for memory, workers in (("4800KiB", 1), ("24MiB", 2), (AMPLE, 4))
    }
    assert len(found) == 1


OBSERVED = {name: MODES[name] for name in ("instance", "layer of all", "group", "rms")}


@pytest.mark.parametrize("mode", OBSERVED)
def test_fused_and_two_passes_agree(mode, tmp_path):
    rng = np.random.default_rng(4)
    x = rng.normal(10, 2, (3, 4, 120_000)).astype("f4")
    x[0, 1, 5] = np.nan
    name = store(tmp_path, "x", x)
    reports, outputs, statistics = [], [], []
    options = {"layout": "NCS", **OBSERVED[mode]}
    if mode == "rms":
        options["aggregate"] = "~N"
    for memory in (AMPLE, "4700KiB"):
        output, stats = tmp_path / f"{memory}.npy", tmp_path / f"{memory}.json"
        reports.append(normcli.apply(name, output, stats_out=stats, memory=memory, **options))
        outputs.append(np.load(output))
        statistics.append(normcli.read_statistics(stats))
    assert [report.passes for report in reports] == [1, 2]
    assert_close(*statistics)
    assert ulps(*outputs) <= 1
    assert reports[0].tally == reports[1].tally


@given(inputs(dtypes=("f4", "f8")), st.sampled_from(sorted(MODES)), st.data())
@MORE
def test_apply_and_its_inverse(made, mode, data):
    layout, x = made
    options = {
        "layout": layout,
        "epsilon": data.draw(st.sampled_from([0.0, 1e-5, 0.1])),
        **MODES[mode],
    }
    source, target = (data.draw(st.sampled_from(STORAGES)) for _ in range(2))
    with folder() as place:
        name = store(place, "x", x, source)
        output = place / f"y{suffix(target)}"
        report = normcli.apply(name, output, **options)
        y = load(output)
        assert y.dtype == x.dtype
        np.testing.assert_array_equal(np.isnan(y), np.isnan(x))
        assert report.written_nonfinite == np.isnan(x).sum()
        back = place / "back.npy"
        normcli.apply(output, back, stats=f"{output}.stats.json", inverse=True)
        again = np.load(back)
        scale = np.nanmax(np.abs(x.astype("f8")))
        bound = 1e-12 if x.dtype == np.float64 else 8 * np.finfo("f4").eps
        np.testing.assert_array_equal(np.isnan(again), np.isnan(x))
        assert np.nanmax(np.abs(again.astype("f8") - x)) <= bound * scale


@given(inputs(), st.data())
@FEW
def test_one_call_is_fit_and_apply(made, data):
    layout, x = made
    storage = data.draw(st.sampled_from(STORAGES))
    options = {"layout": layout, "mode": "batch"}
    with folder() as place:
        name = store(place, "x", x, storage)
        normcli.apply(name, place / "one.npy", memory=TIGHT, **options)
        fitted = normcli.fit(name, place / "s.json", memory=TIGHT, **options)
        normcli.apply(name, place / "two.npy", stats=place / "s.json", workers=3)
        one, two = np.load(place / "one.npy"), np.load(place / "two.npy")
        assert one.tobytes() == two.tobytes()
        own = normcli.read_statistics(place / "one.npy.stats.json")
        assert bits(own) == bits(fitted)
        assert bits(normcli.read_statistics(place / "s.json")) == bits(fitted)
        assert fitted.normalize(x).tobytes() == one.tobytes()


@given(inputs(layouts=("NCS", "SCB", "NC")), st.data())
@FEW
def test_joined_inputs_and_updates_are_the_whole(made, data):
    layout, x = made
    axis = layout.replace("B", "N").index("N")
    cuts = sorted(data.draw(st.lists(st.integers(1, x.shape[axis] - 1), unique=True, max_size=3)))
    parts = list(np.split(x, cuts, axis))
    with folder() as place:
        whole = normcli.fit(store(place, "x", x), layout=layout)
        storages = [data.draw(st.sampled_from(STORAGES)) for _ in parts]
        names = [
            store(place, f"p{i}", part, storage)
            for i, (part, storage) in enumerate(zip(parts, storages, strict=True))
        ]
        joined = normcli.fit(names, layout=layout)
        assert_close(joined, whole)
        assert joined.statistics.source.shape == x.shape
        earlier = None
        for i, name in enumerate(names):
            updated = normcli.fit(name, place / f"{i}.json", layout=layout, update=earlier)
            earlier = place / f"{i}.json"
        assert_close(updated, whole)
        assert updated.statistics.source.shape == x.shape
        assert len(updated.statistics.source.inputs) == len(parts)


def test_moving_statistics_are_continued(tmp_path):
    x = np.random.default_rng(6).normal(3, 2, (24, 5))
    options = {"layout": "NC", "momentum": 0.8, "batch_size": 4}
    whole = normcli.fit(store(tmp_path, "x", x), **options)
    first, second = store(tmp_path, "a", x[:8]), store(tmp_path, "b", x[8:])
    normcli.fit(first, tmp_path / "s.npz", **options)
    # The settings of the earlier fit go on; so do they when they are said again.
    for again in ({"layout": "NC"}, options):
        updated = normcli.fit(second, update=tmp_path / "s.npz", **again)
        np.testing.assert_array_equal(updated.moving_mean, whole.moving_mean)
        np.testing.assert_array_equal(updated.moving_variance, whole.moving_variance)
        assert updated.statistics.moving.batches == 6
        assert_close(updated, whole)
    with pytest.raises(normcli.errors.UsageError, match=r"momentum 0.8"):
        normcli.fit(second, update=tmp_path / "s.npz", **{**options, "momentum": 0.7})
    normcli.fit(second, tmp_path / "s.npz", update=tmp_path / "s.npz", overwrite=True, **options)
    assert normcli.read_statistics(tmp_path / "s.npz").statistics.moving.batches == 6


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("mode", ["batch", "instance", "group"])
def test_each_storage_and_mode_of_training(storage, mode, tmp_path):
    x = np.random.default_rng(9).normal(5, 2, (11, 6, 4, 5)).astype("f4")
    name = store(tmp_path, "x", x, storage, (4, 2, 4, 3))
    options = {"layout": "NCHW", **MODES[mode]}
    if mode == "batch":
        options |= {"training": True, "batch_size": 4}
    output = tmp_path / f"y{suffix(storage)}"
    normcli.apply(name, output, memory=TIGHT, workers=3, epsilon=1e-5, **options)
    wide = x.astype("f8")
    if mode == "batch":
        batches = [wide[low : low + 4] for low in (0, 4, 8)]
        axes = (0, 2, 3)
    elif mode == "instance":
        batches, axes = [wide], (2, 3)
    else:
        batches, axes = [wide.reshape(11, 2, 3, 4, 5)], (2, 3, 4)
    expected = np.concatenate(
        [
            (b - b.mean(axes, keepdims=True)) / np.sqrt(b.var(axes, keepdims=True) + 1e-5)
            for b in batches
        ]
    ).reshape(x.shape)
    assert ulps(load(output), expected.astype("f4")) <= 1


def test_large_arrays_go_through_numba(tmp_path, monkeypatch):
    # The size from which numba pays is a matter of speed; here 16 MiB are large.
    monkeypatch.setattr(select, "SMALL", 16 << 20)
    x = np.random.default_rng(12).normal(400, 3, (40, 6, 160, 120)).astype("f4")
    assert x.nbytes > select.SMALL
    name = store(tmp_path, "x", x)
    fit = fit_arrays([name], None, FitOptions(layout="NCHW"), RunOptions(workers=2), Observer())
    assert fit.plan.kernel == "numba"
    wide = x.astype("f8")
    mean, variance = wide.mean((0, 2, 3)), wide.var((0, 2, 3))
    np.testing.assert_allclose(fit.statistics.mean, mean, rtol=1e-13)
    np.testing.assert_allclose(fit.statistics.variance, variance, rtol=1e-12)
    shape = (1, 6, 1, 1)
    expected = (wide - mean.reshape(shape)) / np.sqrt(variance.reshape(shape) + 1e-5)
    done = apply_array(
        name,
        str(tmp_path / "batch.npy"),
        ApplyOptions(layout="NCHW"),
        RunOptions(workers=2),
        Observer(),
    )
    assert (done.plan.kernel, done.report.passes) == ("numba", 2)
    assert ulps(np.load(tmp_path / "batch.npy"), expected.astype("f4")) <= 1
    mean, variance = wide.mean((2, 3), keepdims=True), wide.var((2, 3), keepdims=True)
    np.divide(wide - mean, np.sqrt(variance + 1e-5), out=expected)
    normcli.apply(name, tmp_path / "instance.zarr", layout="NCHW", mode="instance")
    assert ulps(load(tmp_path / "instance.zarr"), expected.astype("f4")) <= 1


@pytest.mark.parametrize(
    "groups", [150_000, pytest.param(1_000_000, marks=pytest.mark.slow, id="as many as are held")]
)
def test_statistics_that_outgrow_memory(tmp_path, monkeypatch, groups):
    if groups < GROUPS_IN_MEMORY:
        hold_groups(monkeypatch, groups)
    groups += 1
    x = np.random.default_rng(13).normal(2, 1, (groups, 3)).astype("f4")
    name = store(tmp_path, "x", x)
    options = {"layout": "NS", "mode": "instance"}
    report = normcli.apply(name, tmp_path / "y.npy", epsilon=1e-5, workers=2, **options)
    assert report.tally.groups == groups
    stats = tmp_path / "y.npy.stats.zarr"
    assert str(stats) == report.stats
    wide = x.astype("f8")
    mean, variance = wide.mean(1, keepdims=True), wide.var(1, keepdims=True)
    expected = ((wide - mean) / np.sqrt(variance + 1e-5)).astype("f4")
    assert ulps(np.load(tmp_path / "y.npy"), expected) <= 1
    np.testing.assert_allclose(load(f"{stats}/mean"), mean[:, 0], rtol=1e-12, atol=1e-15)
    normcli.apply(name, tmp_path / "again.npy", stats=stats, workers=2)
    assert ulps(np.load(tmp_path / "again.npy"), expected) <= 1
    stored = normcli.fit(name, tmp_path / "s.zarr", **options)
    with pytest.raises(normcli.errors.InputError, match="neither moments"):
        _ = stored.mean
    np.testing.assert_array_equal(load(tmp_path / "s.zarr/mean"), load(f"{stats}/mean"))
    with pytest.raises(normcli.errors.UsageError, match="they need an output"):
        normcli.fit(name, **options)


def test_statistics_take_their_layout_again(tmp_path):
    x = np.random.default_rng(14).normal(2, 1, (4, 5, 6))
    name = store(tmp_path, "x", x)
    normcli.fit(name, tmp_path / "s.json", layout="time,lat,lon", mode="custom", aggregate="lat")
    for layout in ("time,lat,lon", "TSS", "tss"):
        output = tmp_path / f"{layout}.npy"
        normcli.apply(name, output, stats=tmp_path / "s.json", layout=layout)
        np.testing.assert_allclose(np.load(output).mean(1), 0, atol=1e-12)
    for layout in ("lat,time,lon", "TS", "time,lat"):
        with pytest.raises(normcli.errors.UsageError):
            normcli.apply(name, tmp_path / "n.npy", stats=tmp_path / "s.json", layout=layout)
