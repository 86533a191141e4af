"""Beside scikit-learn itself: StandardScaler, and normcli on the same samples in files."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import normcli

from .desk import NATIVE, close, cuts, draw, rng_of, rounded_once

pytestmark = pytest.mark.slow

DTYPES = ("float64", "float32", "float16")
SEEDS = range(2)
SHAPES = [(257, 4), (5, 40)]
SAMPLES: dict[str, Any] = {"layout": "NC", "mode": "batch", "epsilon": 0.0}


@pytest.fixture
def scaler():
    return pytest.importorskip("sklearn.preprocessing").StandardScaler


def with_holes(rng: np.random.Generator, x: np.ndarray, rows: int = 2) -> np.ndarray:
    """Put NaN anywhere but in every `rows`-th sample: no batch of as many is without a value."""
    holes = rng.random(x.shape) < 0.25
    holes[::rows] = False
    x[holes] = np.nan
    return x


def same_statistics(fitted: normcli.FittedStatistics, theirs: Any) -> None:
    close(fitted.mean, theirs.mean_)
    close(fitted.variance, theirs.var_)
    assert np.all(fitted.count == theirs.n_samples_seen_)


@pytest.mark.parametrize("holes", [False, True], ids=["", "nan"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", SEEDS)
def test_fit_and_transform(scaler, desk, seed, dtype, shape, holes):
    desk.turn(seed)
    rng = rng_of("fit", seed, dtype, shape, holes)
    x = draw(rng, shape, dtype)
    if holes:
        x = with_holes(rng, x)
    wide = scaler().fit(x.astype("f8"))
    exact = wide.transform(x.astype("f8"))
    source = desk.put("x", x)

    fitted = normcli.fit(source, str(desk.folder / "s.json"), nonfinite="omit", **SAMPLES)
    same_statistics(fitted, wide)
    close(fitted.std, wide.scale_)
    own = scaler().fit(x)
    close(fitted.mean, own.mean_, NATIVE[dtype])
    close(fitted.variance, own.var_, NATIVE[dtype])

    for options in ({"stats": str(desk.folder / "s.json")}, SAMPLES | {"nonfinite": "omit"}):
        close(desk.apply(source, dtype="float64", **options), exact)
        narrow = desk.apply(source, **options)
        rounded_once(narrow, exact, dtype)
        close(narrow, own.transform(x), NATIVE[dtype])
    close(fitted.normalize(x, dtype="float64"), exact)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", SEEDS)
def test_other_samples_and_back(scaler, desk, seed, dtype):
    desk.turn(seed + 1)
    rng = rng_of("back", seed, dtype)
    x, other = draw(rng, (50, 6), dtype), draw(rng, (23, 6), dtype)
    theirs = scaler().fit(x.astype("f8"))
    fitted = normcli.fit(desk.put("x", x), **SAMPLES)
    source = desk.put("other", other)
    exact = theirs.transform(other.astype("f8"))
    close(desk.apply(source, stats=fitted, dtype="float64"), exact)
    back = theirs.inverse_transform(other.astype("f8"))
    close(desk.apply(source, stats=fitted, inverse=True, dtype="float64"), back)
    rounded_once(desk.apply(source, stats=fitted, inverse=True), back, dtype)


@pytest.mark.parametrize("holes", [False, True], ids=["", "nan"])
@pytest.mark.parametrize("sizes", [[16, 16, 1], [2, 9, 4, 18], [11, 22]], ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_partial_fit(scaler, desk, dtype, sizes, holes):
    desk.turn(len(sizes))
    rng = rng_of("partial", dtype, sizes, holes)
    x = draw(rng, (sum(sizes), 5), dtype)
    if holes:
        x = with_holes(rng, x)
        # scikit-learn's var_ stays NaN once a batch has a column without a value.
        for cut in cuts(sizes):
            x[cut.start] = rng.normal(0, 1, 5)
    theirs, parts, before = scaler(), [], None
    for i, cut in enumerate(cuts(sizes)):
        theirs.partial_fit(x[cut].astype("f8"))
        parts.append(desk.put(f"part{i}", x[cut]))
        after = str(desk.folder / f"after{i}.json")
        step = normcli.fit(parts[-1], after, update=before, nonfinite="omit", **SAMPLES)
        same_statistics(step, theirs)
        before = after
    same_statistics(normcli.fit(parts, nonfinite="omit", **SAMPLES), theirs)
    source, exact = desk.put("x", x), theirs.transform(x.astype("f8"))
    close(desk.apply(source, stats=before, dtype="float64"), exact)
    rounded_once(desk.apply(source, stats=before), exact, dtype)


@pytest.mark.parametrize(
    ("method", "switches"),
    [("center", {"with_std": False}), ("std", {"with_mean": False})],
    ids=["center", "std"],
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_only_the_mean_or_only_the_spread(scaler, desk, dtype, method, switches):
    x = draw(rng_of(method, dtype), (41, 7), dtype)
    exact = scaler(**switches).fit_transform(x.astype("f8"))
    source = desk.put("x", x)
    close(desk.apply(source, method=method, dtype="float64", **SAMPLES), exact)
    rounded_once(desk.apply(source, method=method, **SAMPLES), exact, dtype)


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "uint16"])
def test_integers(scaler, desk, dtype):
    kind = np.iinfo(dtype)
    x = rng_of(dtype).integers(kind.min // 3, kind.max // 3, (64, 5)).astype(dtype)
    exact = scaler().fit_transform(x.astype("f8"))
    source = desk.put("x", x)
    close(desk.apply(source, dtype="float64", **SAMPLES), exact)
    own = desk.apply(source, **SAMPLES)
    rounded_once(own, exact, str(own.dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_constant_columns(scaler, desk, dtype):
    x = draw(rng_of("constant", dtype), (20, 5), dtype)
    x[:, 1], x[:, 3] = 0.0, -273.25
    theirs = scaler().fit(x.astype("f8"))
    source = desk.put("x", x)
    fitted = normcli.fit(source, **SAMPLES)
    same_statistics(fitted, theirs)
    written = desk.apply(source, dtype="float64", **SAMPLES)
    close(written, theirs.transform(x.astype("f8")))
    assert np.all(written[:, [1, 3]] == 0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_many_samples_in_many_blocks(scaler, desk, dtype):
    desk.turn(DTYPES.index(dtype))
    rng = rng_of("many", dtype)
    x = with_holes(rng, draw(rng, (60_000, 24), dtype))
    theirs = scaler().fit(x.astype("f8"))
    source = desk.put("x", x, (4000, 8))
    run: dict[str, Any] = {"workers": 2, "memory": "6MiB", "nonfinite": "omit"}
    same_statistics(normcli.fit(source, **SAMPLES, **run), theirs)
    exact = theirs.transform(x.astype("f8"))
    close(desk.apply(source, dtype="float64", **SAMPLES, **run), exact)
    rounded_once(desk.apply(source, **SAMPLES, **run), exact, dtype)


@pytest.mark.parametrize("bounds", [None, (0.0, 1.0), (-3.0, 2.5)])
@pytest.mark.parametrize("holes", [False, True], ids=["", "nan"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_scaling_by_extremes(scaler, desk, dtype, holes, bounds):
    from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler

    rng = rng_of("extremes", dtype, holes, bounds)
    x = draw(rng, (57, 6), dtype)
    x[:, 2] = 4.0
    if holes:
        x = with_holes(rng, x)
    made = MaxAbsScaler() if bounds is None else MinMaxScaler(feature_range=bounds)
    sizes = [20, 20, 17]
    parts = []
    for i, cut in enumerate(cuts(sizes)):
        made.partial_fit(x[cut].astype("f8"))
        parts.append(desk.put(f"part{i}", x[cut]))
    exact = made.transform(x.astype("f8"))
    method = {"method": "maxabs"} if bounds is None else {"method": "minmax", "range": bounds}
    options = {"layout": "NC", "convention": "sklearn", "nonfinite": "omit", **method}
    before = None
    for i, part in enumerate(parts):
        after = str(desk.folder / f"after{i}.json")
        # What continues keeps the settings of the first.
        normcli.fit(part, after, update=before, **(options if before is None else {}))
        before = after
    source = desk.put("x", x)
    close(desk.apply(source, stats=before, dtype="float64"), exact)
    own = desk.apply(source, stats=before)
    rounded_once(own, exact, dtype)
    back = desk.apply(desk.put("y", exact), stats=before, inverse=True, dtype="float64")
    held = np.where(np.isnan(x), np.nan, x.astype("f8"))
    if bounds is None:
        close(back, held, 1e-12)
    else:
        close(back, made.inverse_transform(exact), 1e-12)
