"""robust in files: against numpy and scikit-learn, however stored, cut, merged and resumed."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import normcli
from normcli.bundles.statistics_file import read_statistics
from normcli.domain import quantile_sketches
from normcli.domain.quantile_moments import QuantileMoments
from normcli.domain.quantile_sketches import rank_error, sketch_k
from normcli.errors import DataPolicyError, InputError, PlanError, UsageError
from tests.cli.terminal import call

from .method_cases import CHUNKS, SUFFIXES, X, assert_refused, of_groups, once_a_group
from .stores import STORAGES, load, store, suffix
from .test_properties import MODES, MORE, folder, inputs

pytest.importorskip("datasketches")

QUANTILES = [(25.0, 75.0), (10.0, 90.0), (0.0, 100.0), (33.3, 50.0)]
SCHEMA = "docs/statistics.schema.json"
# Enough elements in each of three channels that no sketch keeps them all.
LARGE = np.random.default_rng(8).gamma(2.0, 3.0, (60_000, 3)).astype("f4")


def moments(fitted: normcli.FittedStatistics) -> QuantileMoments:
    held = fitted.statistics.moments
    assert isinstance(held, QuantileMoments)
    return held


def by_numpy(layout: str, x: np.ndarray, mode: str, percent) -> np.ndarray:
    """Lower quantile, median and upper quantile of the group of each element, of finite ones."""
    points = np.array([percent[0], 50, percent[1]]) / 100

    def quantiles(values, axes):
        wide = np.where(np.isfinite(values), values.astype("f8"), np.nan)
        return np.nanquantile(wide, points, axis=axes, keepdims=True)

    return of_groups(layout, x, mode, quantiles)


def by_hand(layout, x, mode, percent=(25, 75)) -> np.ndarray:
    lower, center, upper = by_numpy(layout, x, mode, percent)
    spread = upper - lower
    with np.errstate(invalid="ignore"):
        return np.where(spread == 0, x.astype("f8") * 0, (x - center) / np.where(spread, spread, 1))


def close(y: np.ndarray, want: np.ndarray) -> None:
    np.testing.assert_array_equal(np.isnan(y), np.isnan(want))
    np.testing.assert_allclose(y, want, rtol=1e-13, atol=1e-13)


def off(values: np.ndarray, found: np.ndarray, point: float) -> float:
    """How far the rank of `found` is from `point`, as a share of the elements."""
    below, upto = (values < found).mean(), (values <= found).mean()
    return float(max(below - point, point - upto, 0.0)) - 1 / values.size


@given(inputs(), st.sampled_from(sorted(set(MODES) - {"rms", "std"})), st.data())
@MORE
def test_any_chunks_storage_and_budget(made, mode, data):
    layout, x = made
    percent = data.draw(st.sampled_from(QUANTILES))
    options = {"layout": layout, "method": "robust", "quantiles": percent, **MODES[mode]}
    want = by_hand(layout, x, mode, percent)
    source, target = (data.draw(st.sampled_from(STORAGES)) for _ in range(2))
    chunks = tuple(data.draw(st.integers(1, n)) for n in x.shape)
    with folder() as place:
        name, output = store(place, "x", x, source, chunks), place / f"y{suffix(target)}"
        workers = data.draw(st.integers(1, 3))
        normcli.apply(name, output, memory="16MiB", workers=workers, dtype="float64", **options)
        close(load(output), want)
        kind = data.draw(st.sampled_from(SUFFIXES))
        fitted = normcli.fit(name, place / f"s{kind}", **options)
        assert not moments(fitted).rank_error.any()
        normcli.apply(name, place / "again.npy", stats=place / f"s{kind}", dtype="float64")
        np.testing.assert_array_equal(np.load(place / "again.npy"), load(output))
        np.testing.assert_array_equal(fitted.normalize(x, dtype="float64"), load(output))
        normcli.apply(
            output, place / "back.npy", stats=f"{output}.stats.json", inverse=True, dtype="float64"
        )
        back, wide = np.load(place / "back.npy"), x.astype("f8")
        np.testing.assert_array_equal(np.isnan(back), np.isnan(wide))
        lower, _, upper = by_numpy(layout, x, mode, percent)
        undone = np.broadcast_to(lower != upper, x.shape)
        np.testing.assert_allclose(back[undone], wide[undone], rtol=1e-13, atol=1e-12)


@pytest.mark.parametrize("dtype", ["f4", "f8", "i2", "u1"])
@pytest.mark.parametrize("percent", QUANTILES[:2], ids=str)
def test_the_numbers_of_robust_scaler(tmp_path, dtype, percent):
    scaler = pytest.importorskip("sklearn.preprocessing").RobustScaler
    x = (np.random.default_rng(1).normal(60, 15, (501, 7))).astype(dtype)
    x[:, 3] = 17
    x[:480, 4] = 5
    if np.dtype(dtype).kind == "f":
        x[::9, 1] = np.nan
    theirs = scaler(quantile_range=percent).fit(x.astype("f8"))
    options = {"layout": "NC", "method": "robust", "quantiles": percent, "convention": "sklearn"}
    fitted = normcli.fit(store(tmp_path, "x", x), **options)
    np.testing.assert_array_equal(moments(fitted).center, theirs.center_)
    np.testing.assert_allclose(
        np.where(moments(fitted).spread == 0, 1, moments(fitted).spread), theirs.scale_, rtol=1e-15
    )
    want = theirs.transform(x.astype("f8"))
    np.testing.assert_allclose(fitted.normalize(x, dtype="float64"), want, rtol=1e-14, atol=1e-14)
    back = fitted.denormalize(want)
    np.testing.assert_allclose(back, x.astype("f8"), rtol=1e-13)


def test_large_groups_are_within_the_stated_error(tmp_path):
    name = store(tmp_path, "x", LARGE, "zarr3", (7_000, 2))
    fitted = normcli.fit(name, tmp_path / "s.npz", layout="NC", method="robust", workers=3)
    found = moments(fitted)
    error = rank_error(sketch_k(3))
    np.testing.assert_array_equal(found.rank_error, error)
    assert 0 < error < 1e-4
    for channel in range(3):
        column = LARGE[:, channel]
        for name, point in (("lower", 0.25), ("center", 0.5), ("upper", 0.75)):
            # The error holds for 99 of 100; twice that is beyond the reach of chance.
            assert off(column, getattr(found, name)[channel], point) <= 2 * error
        assert (found.minimum[channel], found.maximum[channel]) == (column.min(), column.max())
    assert found.count.tolist() == [60_000] * 3
    y = fitted.normalize(LARGE, dtype="float64")
    np.testing.assert_allclose(y, (LARGE - found.center) / found.spread, rtol=1e-14)


def test_extremes_as_quantiles_are_exact_in_groups_of_any_size(tmp_path):
    name = store(tmp_path, "x", LARGE, "zarr3", (7_000, 2))
    options = {"layout": "NC", "method": "robust", "quantiles": (0, 100)}
    found = moments(normcli.fit(name, **options))
    np.testing.assert_array_equal(found.lower, LARGE.min(0))
    np.testing.assert_array_equal(found.upper, LARGE.max(0))


@pytest.mark.parametrize("cut", ["parts", "update", "files"])
def test_sketches_are_merged(tmp_path, cut):
    options = {"layout": "NC", "method": "robust"}
    name = store(tmp_path, "x", LARGE, "zarr3", (7_000, 2))
    if cut == "parts":
        parts = [tmp_path / f"{i}.npz" for i in (1, 2, 3)]
        for i, path in enumerate(parts):
            normcli.fit(name, path, part=f"{i + 1}/3", **options)
        merged = normcli.merge(parts, tmp_path / "m.npz").statistics
    else:
        first, second = store(tmp_path, "a", LARGE[:9000]), store(tmp_path, "b", LARGE[9000:])
        normcli.fit(first, tmp_path / "a.h5", **options)
        if cut == "update":
            merged = normcli.fit(second, update=tmp_path / "a.h5", **options).statistics
        else:
            normcli.fit(second, tmp_path / "b.safetensors", **options)
            files = [tmp_path / "a.h5", tmp_path / "b.safetensors"]
            merged = normcli.merge(files).statistics
    whole = normcli.fit(name, **options).statistics
    found = merged.moments
    for exact in ("count", "mean", "m2", "minimum", "maximum", "nonfinite", "rank_error"):
        np.testing.assert_array_equal(getattr(found, exact), getattr(whole.moments, exact))
    for channel in range(3):
        for name, point in (("lower", 0.25), ("center", 0.5), ("upper", 0.75)):
            got = getattr(found, name)[channel]
            assert off(LARGE[:, channel], got, point) <= 2 * found.rank_error[channel]


def test_small_parts_are_merged_to_the_quantiles_of_all(tmp_path):
    name = store(tmp_path, "x", X, "zarr3", CHUNKS)
    options = {"layout": "NCHW", "method": "robust"}
    parts = [tmp_path / f"{i}.json" for i in (1, 2, 3)]
    for i, path in enumerate(parts):
        normcli.fit(name, path, part=f"{i + 1}/3", **options)
    merged = normcli.merge(parts, tmp_path / "m.zarr").statistics
    want = by_numpy("NCHW", X, "batch", (25, 75))
    again = read_statistics(str(tmp_path / "m.zarr"))
    for held in (merged, again):
        for found, exact in zip(("lower", "center", "upper"), want, strict=True):
            np.testing.assert_array_equal(
                getattr(held.moments, found), once_a_group("NCHW", exact, "batch")
            )


def test_what_holds_no_sketches_is_not_merged(tmp_path):
    name = store(tmp_path, "x", X)
    normcli.apply(name, tmp_path / "y.npy", layout="NCHW", method="robust")
    other = store(tmp_path, "z", X + 1)
    normcli.fit(other, tmp_path / "z.json", layout="NCHW", method="robust")
    paths = [tmp_path / "y.npy.stats.json", tmp_path / "z.json"]
    with pytest.raises(InputError, match="without their sketches"):
        normcli.merge(paths)
    normcli.fit(other, tmp_path / "q.json", layout="NCHW", method="robust", quantiles=(5, 95))
    with pytest.raises(InputError, match=r"has quantiles \(25\.0, 75\.0\)"):
        normcli.merge([tmp_path / "z.json", tmp_path / "q.json"])
    with pytest.raises(InputError, match="fitted with quantiles"):
        normcli.fit(name, method="robust", quantiles=(25, 75), update=tmp_path / "q.json")


def test_statistics_of_observations_are_set_side_by_side(tmp_path):
    options = {"layout": "NCHW", "mode": "instance", "method": "robust"}
    paths = []
    for i, part in enumerate((X[:9], X[9:])):
        paths.append(tmp_path / f"{i}.json")
        normcli.fit(store(tmp_path, f"x{i}", part), paths[-1], **options)
    merged = normcli.merge(paths).statistics
    lower, center, upper = by_numpy("NCHW", X, "instance", (25, 75))
    for name, want in (("lower", lower), ("center", center), ("upper", upper)):
        np.testing.assert_array_equal(getattr(merged.moments, name), want[..., 0, 0])


def test_fused_and_two_passes(tmp_path):
    x = np.random.default_rng(4).normal(10, 2, (2, 1, 1_500_000)).astype("f4")
    x[0, 0, 5] = np.nan
    name = store(tmp_path, "x", x)
    options = {"layout": "NCS", "mode": "instance", "method": "robust", "dtype": "float64"}
    fused = normcli.apply(name, tmp_path / "fused.npy", memory="1GiB", **options)
    close(np.load(tmp_path / "fused.npy"), by_hand("NCS", x, "instance"))
    cut = normcli.apply(name, tmp_path / "cut.npy", memory="36MiB", workers=1, **options)
    assert (fused.passes, cut.passes) == (1, 2)
    stats = [tmp_path / f"{name}.npy.stats.json" for name in ("fused", "cut")]
    exact, sketched = (moments(normcli.read_statistics(path)) for path in stats)
    assert not exact.rank_error.any()
    np.testing.assert_array_equal(sketched.rank_error, rank_error(sketch_k(2)))
    for name, point in (("lower", 0.25), ("center", 0.5), ("upper", 0.75)):
        for place in np.ndindex(2, 1):
            values = x[place][np.isfinite(x[place])]
            found = getattr(sketched, name)[place]
            assert off(values, found, point) <= 2 * sketched.rank_error[place]
            assert off(values, getattr(exact, name)[place], point) <= 0


@pytest.mark.parametrize("mode", ["batch", "instance"])
def test_chunks_that_are_not_stored_are_left_out(tmp_path, mode):
    zarr = pytest.importorskip("zarr")
    array = zarr.create_array(
        tmp_path / "x.zarr", shape=X.shape, chunks=(4, 6, 5, 9), dtype="f4", fill_value=1e6
    )
    array[...] = X
    gone = sorted(path for path in (tmp_path / "x.zarr" / "c").rglob("*") if path.is_file())[::3]
    for path in gone:
        path.unlink()
    x = np.where(array[...] == 1e6, np.nan, array[...]).astype("f4")
    options = {"layout": "NCHW", "method": "robust", "mode": mode, "missing": "omit"}
    fitted = normcli.fit(tmp_path / "x.zarr", tmp_path / "s.npz", **options)
    found = moments(fitted)
    assert int(found.count.sum()) == int(np.isfinite(x).sum())
    assert not found.nonfinite.any()
    kept = found.count > 0
    for name, want in zip(
        ("lower", "center", "upper"), by_numpy("NCHW", x, mode, (25, 75)), strict=True
    ):
        of_group = once_a_group("NCHW", want, mode)
        np.testing.assert_array_equal(getattr(found, name)[kept], of_group[kept])


def test_the_schema_and_the_python_face(tmp_path):
    jsonschema = pytest.importorskip("jsonschema")
    fitted = normcli.fit(
        store(tmp_path, "x", X), tmp_path / "s.json", layout="NCHW", method="robust"
    )
    schema = json.loads((Path(normcli.__file__).parents[1] / SCHEMA).read_text())
    document = json.loads((tmp_path / "s.json").read_text())
    jsonschema.validate(document, schema)
    del document["arrays"]["sketch_sizes"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, schema)
    np.testing.assert_array_equal(fitted.center, moments(fitted).center)
    np.testing.assert_array_equal(fitted.spread, moments(fitted).upper - moments(fitted).lower)
    with pytest.raises(UsageError, match="method robust hold no such numbers"):
        fitted.norm  # noqa: B018


def test_verify_finds_a_spread_of_other_quantiles(tmp_path):
    path = tmp_path / "s.json"
    normcli.fit(store(tmp_path, "x", X), path, layout="NCHW", method="robust")
    document = json.loads(path.read_text())
    document["arrays"]["spread"]["data"][2] *= 2
    path.write_text(json.dumps(document))
    ended = call("verify", str(path))
    assert ended.code != 0
    assert "the spread is not upper - lower in 1 of 6 groups" in " ".join(
        (ended.err + ended.text).split()
    )


@pytest.mark.parametrize("percent", [(60, 90), (10, 40), (0, 50), (50, 100), (0, 1)])
def test_quantiles_on_one_side_of_the_median(tmp_path, percent):
    x = X.astype("f8")
    name, y, z = store(tmp_path, "x", x), tmp_path / "y.npy", tmp_path / "z.npy"
    for mode in ("batch", "layer"):
        options = {"layout": "NCHW", "mode": mode, "method": "robust", "quantiles": percent}
        normcli.apply(name, y, overwrite=True, **options)
        close(np.load(y), by_hand("NCHW", x, mode, percent))
        normcli.apply(y, z, stats=f"{y}.stats.json", inverse=True, overwrite=True)
        np.testing.assert_allclose(np.load(z), x, rtol=1e-12, atol=1e-12)
    assert call("verify", f"{y}.stats.json").code == 0


@pytest.mark.parametrize(
    ("percent", "center", "words"),
    [
        ((60, 90), 9.0, "the median at .* is larger than the lower quantile"),
        ((10, 40), 1.0, "the upper quantile at .* is larger than the median"),
        ((10, 90), 0.5, "the lower quantile at .* is larger than the median"),
    ],
    ids=str,
)
def test_a_median_out_of_order_is_refused(tmp_path, percent, center, words):
    x, path = np.arange(11.0)[:, None], tmp_path / "s.json"
    normcli.fit(store(tmp_path, "x", x), path, layout="NC", method="robust", quantiles=percent)
    change(path, center=floats_entry(center))
    with pytest.raises(InputError, match=words):
        normcli.read_statistics(path)


def test_quantiles_are_continued(tmp_path):
    first, second = store(tmp_path, "a", X[:5]), store(tmp_path, "b", X[5:])
    fixed = {"layout": "NCHW", "method": "robust", "quantiles": (10, 80)}
    normcli.fit(first, tmp_path / "a.json", **fixed)
    updated = normcli.fit(second, update=tmp_path / "a.json")
    assert updated.statistics.spec == normcli.fit(first, **fixed).statistics.spec
    with pytest.raises(InputError, match="was fitted with quantiles"):
        normcli.fit(second, update=tmp_path / "a.json", quantiles=(10, 90))
    with pytest.raises(InputError, match="was fitted with method robust, not zscore"):
        normcli.fit(second, update=tmp_path / "a.json", method="zscore")


@pytest.mark.parametrize("kind", SUFFIXES)
def test_every_sidecar_keeps_all(tmp_path, kind):
    name, path = store(tmp_path, "x", X), tmp_path / f"s{kind}"
    fitted = normcli.fit(name, path, layout="NCHW", method="robust", quantiles=(5, 95))
    again = normcli.read_statistics(path)
    assert again.statistics.spec == fitted.statistics.spec
    for array in QuantileMoments.names():
        same = getattr(moments(again), array), getattr(moments(fitted), array)
        assert same[0].tobytes() == same[1].tobytes()
    images = [moments(s).sketches.images.tolist() for s in (again, fitted)]
    assert images[0] == images[1]
    assert again.normalize(X).tobytes() == fitted.normalize(X).tobytes()
    assert call("extract", str(path), "quantiles").text == "5.0 95.0\n"
    center = call("extract", str(path), "center").text.split()
    np.testing.assert_array_equal(np.array(center, "f8"), moments(fitted).center)
    spread = np.array(call("extract", str(path), "spread").text.split(), "f8")
    np.testing.assert_array_equal(spread, moments(fitted).spread)
    shown = call("inspect", str(path)).text
    assert "method robust by the quantiles 5, 95" in shown
    assert "none: exact; sketches kept to be merged" in shown
    assert "sketch_sizes" not in shown
    assert json.loads(call("inspect", str(path), "--json").text)["spec"]["quantiles"] == [5, 95]
    assert call("verify", str(path)).code == 0
    assert call("check", str(path), name).code == 0


def test_json_without_room_for_the_sketches_leaves_them_out(tmp_path):
    x = np.random.default_rng(0).normal(size=(3000, 900))
    path = tmp_path / "s.json"
    fitted = normcli.fit(store(tmp_path, "x", x), path, layout="NC", method="robust")
    assert moments(fitted).sketches is not None
    assert moments(normcli.read_statistics(path)).sketches is None
    with pytest.raises(UsageError, match=r"more than the 1000000 that \.json is good for"):
        normcli.fit(
            tmp_path / "x.npy", tmp_path / "p.json", layout="NC", method="robust", part="1/2"
        )


def test_the_policies_of_nan(tmp_path):
    x = X.astype("f8")
    x[1, 2, 3, 4], x[2, 2, 0, 0], x[:, 4] = np.nan, np.inf, np.nan
    name = store(tmp_path, "x", x)
    options = {"layout": "NCHW", "method": "robust"}
    normcli.apply(name, tmp_path / "omit.npy", **options)
    y, bad = np.load(tmp_path / "omit.npy"), ~np.isfinite(x)
    np.testing.assert_array_equal(~np.isfinite(y), bad)
    want = by_hand("NCHW", x[:, :4], "batch")
    np.testing.assert_allclose(y[:, :4][~bad[:, :4]], want[~bad[:, :4]], rtol=1e-13, atol=1e-15)
    normcli.apply(name, tmp_path / "p.npy", nonfinite="propagate", **options)
    p = np.load(tmp_path / "p.npy")
    assert np.isnan(p[:, [2, 4]]).all()
    np.testing.assert_array_equal(p[:, [0, 1, 3, 5]], y[:, [0, 1, 3, 5]])
    with pytest.raises(DataPolicyError, match="NaN or infinite"):
        normcli.apply(name, tmp_path / "e.npy", nonfinite="error", **options)


def test_groups_without_a_spread_are_told_of(tmp_path):
    x = X.astype("f8")
    x[:, 1] = 6.5
    x[:, 3] = np.where(np.arange(24)[:, None, None] < 20, 0.25, x[:, 3])
    name, stats = store(tmp_path, "x", x), tmp_path / "y.npy.stats.json"
    arguments = [
        "apply",
        name,
        "-o",
        str(tmp_path / "y.npy"),
        "--layout",
        "NCHW",
        "--method",
        "robust",
    ]
    ended = call(*arguments, "--json")
    assert ended.code == 0
    assert "1 of 6 groups are constant (C=1); they become their bias." in ended.err
    words = " ".join(ended.err.split())
    assert "1 of 6 groups vary, but not between their quantiles 25 and 75 (C=3)" in words
    assert json.loads(ended.text)["report"]["flat_groups"] == 1
    y = np.load(tmp_path / "y.npy")
    assert not y[:, [1, 3]].any()
    normcli.apply(tmp_path / "y.npy", tmp_path / "b.npy", stats=stats, inverse=True)
    back = np.load(tmp_path / "b.npy")
    assert np.all(back[:, 1] == 6.5)
    assert np.all(back[:, 3] == 0.25)
    np.testing.assert_allclose(back[:, [0, 2, 4, 5]], x[:, [0, 2, 4, 5]], rtol=1e-12)
    ended = call(*arguments, "--overwrite", "--convention", "sklearn")
    assert "(C=3); they are divided by 1." in " ".join(ended.err.split())
    y = np.load(tmp_path / "y.npy")
    np.testing.assert_array_equal(y[:, 3], x[:, 3] - 0.25)
    normcli.apply(tmp_path / "y.npy", tmp_path / "b.npy", stats=stats, inverse=True, overwrite=True)
    np.testing.assert_allclose(np.load(tmp_path / "b.npy"), x, rtol=1e-12)


def test_training_batches_have_their_own_quantiles(tmp_path):
    options = {"layout": "NCHW", "method": "robust", "dtype": "float64"}
    name, output = store(tmp_path, "x", X), tmp_path / "y.npy"
    normcli.apply(name, output, training=True, batch_size=7, **options)
    y, edges = np.load(output), [0, 7, 14, 21, 24]
    for a, b in pairwise(edges):
        close(y[a:b], by_hand("NCHW", X[a:b], "batch"))


def test_too_many_groups_in_pieces_are_refused_with_sizes(tmp_path):
    x = np.zeros((2000, 64, 80), "f4")
    name = store(tmp_path, "x", x)
    options = {"layout": "NCS", "mode": "custom", "aggregate": "N", "method": "robust"}
    ended = call("fit", name, "-o", str(tmp_path / "s.npz"), "--layout", "NCS", "--mode", "custom",
                 "--aggregate", "N", "--method", "robust", "--memory", "256MiB")  # fmt: skip
    words = " ".join(ended.err.split())
    assert ended.code == 3 or "memory budget is 256 MiB" in words
    assert "Quantiles of 5120 groups need" in words
    assert "a sketch takes up to 16 KiB" in words
    with pytest.raises(PlanError, match="Quantiles of 5120 groups"):
        normcli.fit(name, memory="256MiB", **options)
    # The same groups as runs of memory need no sketches: each block holds them whole.
    normcli.apply(
        store(tmp_path, "t", x[:16]), tmp_path / "y.npy", memory="256MiB", layout="NCS",
        mode="layer", method="robust",
    )  # fmt: skip


def test_without_the_package_only_groups_in_pieces_are_refused(tmp_path, monkeypatch):
    def missing():
        raise InputError(
            "Quantiles need the package datasketches.", "pip install 'normcli[sketch]'"
        )

    small, large = store(tmp_path, "x", X), store(tmp_path, "l", LARGE, "zarr3", (7_000, 2))
    normcli.fit(large, tmp_path / "s.npz", layout="NC", method="robust")
    quantile_sketches.rank_error.cache_clear()
    huge = store(tmp_path, "h", np.zeros((3_000_000, 1), "f4"))
    monkeypatch.setattr(quantile_sketches, "library", missing)
    monkeypatch.setattr("normcli.api.preparing.library", missing)
    normcli.apply(small, tmp_path / "y.npy", layout="NCHW", method="robust", mode="instance")
    normcli.apply(large, tmp_path / "l.npy", stats=tmp_path / "s.npz")
    with pytest.raises(InputError, match="package datasketches"):
        normcli.fit(small, tmp_path / "t.npz", layout="NCHW", method="robust")
    with pytest.raises(InputError, match="package datasketches"):
        normcli.apply(huge, tmp_path / "m.npy", layout="NC", method="robust", memory="32MiB")
    assert not (tmp_path / "t.npz").exists()
    assert not (tmp_path / "m.npy").exists()


REFUSED = [
    ({"method": "zscore", "quantiles": (25, 75)}, "belongs to --method robust"),
    ({"method": "robust", "range": (0, 1)}, "belongs to --method minmax"),
    ({"method": "robust", "p": 2}, "belongs to --method lp"),
    ({"method": "robust", "quantiles": (75, 25)}, "quantiles 75,25 are none"),
    ({"method": "robust", "quantiles": (50, 50)}, "quantiles 50,50 are none"),
    ({"method": "robust", "quantiles": (-1, 50)}, "quantiles -1,50 are none"),
    ({"method": "robust", "quantiles": (1, 101)}, "quantiles 1,101 are none"),
    ({"method": "robust", "quantiles": (1, np.nan)}, "quantiles 1,nan are none"),
    ({"method": "robust", "quantiles": (1, 2, 3)}, "quantiles 1,2,3 are none"),
    ({"method": "robust", "epsilon": 0.1}, "divides by quantiles"),
    ({"method": "robust", "ddof": 1}, "divides by quantiles"),
    ({"method": "robust", "epsilon_placement": "floor"}, "divides by quantiles"),
]


@pytest.mark.parametrize(("options", "words"), REFUSED, ids=str)
def test_refused(tmp_path, options, words):
    assert_refused(tmp_path, options, words)


def test_what_quantiles_do_not_have_is_refused(tmp_path):
    name, out = store(tmp_path, "x", X), tmp_path / "y.npy"
    np.save(tmp_path / "m.npy", np.ones(6))
    with pytest.raises(UsageError, match=r"a mean and a variance; --method robust divides by quan"):
        normcli.fit(name, layout="NCHW", method="robust", momentum=0.9, batch_size=4)
    file = tmp_path / "m.npy"
    with pytest.raises(UsageError, match="--mean and --variance hold none"):
        normcli.apply(name, out, layout="NCHW", method="robust", mean=file, variance=file)
    with pytest.raises(UsageError, match="learn does not measure what --method robust divides by"):
        normcli.learn(name, name, layout="NCHW", method="robust")
    stats = tmp_path / "s.json"
    normcli.fit(name, stats, layout="NCHW", method="robust")
    with pytest.raises(UsageError, match="contradicts the statistics"):
        normcli.apply(name, out, stats=stats, quantiles=(5, 95))
    with pytest.raises(UsageError, match="divides by quantiles"):
        normcli.apply(name, out, stats=stats, epsilon=0.1)
    normcli.fit(name, tmp_path / "i.json", layout="NCHW", mode="instance", method="robust")
    ended = call(
        "convert", str(tmp_path / "i.json"), "-o", str(tmp_path / "i.safetensors"), "--to", "torch"
    )
    assert (ended.code, "no layer that divides each observation by quantiles" in ended.err) == (
        7,
        1,
    )
    assert not out.exists()


def test_what_is_learned_with_given_quantiles(tmp_path):
    x = X.astype("f8")
    target = by_hand("NCHW", x, "batch") * np.linspace(1, 2, 6)[:, None, None] - 0.75
    name, wanted = store(tmp_path, "x", x), store(tmp_path, "t", target)
    normcli.fit(name, tmp_path / "s.json", layout="NCHW", method="robust")
    affine = normcli.learn(name, wanted, stats=tmp_path / "s.json").affine
    np.testing.assert_allclose(affine.scale, np.linspace(1, 2, 6), rtol=1e-9)
    np.testing.assert_allclose(affine.bias, -0.75, rtol=1e-9)


def test_frameworks_give_the_same_numbers(tmp_path):
    fitted = normcli.fit(
        store(tmp_path, "x", X), tmp_path / "s.json", layout="NCHW", method="robust"
    )
    ended = call(
        "convert", str(tmp_path / "s.json"), "-o", str(tmp_path / "k.json"), "--to", "sklearn"
    )
    assert ended.code == 0, ended.err
    held = json.loads((tmp_path / "k.json").read_text())
    rows = np.moveaxis(X, 1, -1).astype("f8")
    got = (rows - np.array(held["mean_"])) / np.array(held["scale_"])
    want = np.moveaxis(fitted.normalize(X, dtype="float64"), 1, -1)
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)


def change(path: Path, **arrays: object) -> None:
    document = json.loads(path.read_text())
    for name, value in arrays.items():
        if value is None:
            del document["arrays"][name]
        else:
            document["arrays"][name] = value
    path.write_text(json.dumps(document))


def bytes_entry(data: bytes) -> dict:
    return {"dtype": "uint8", "shape": [len(data)], "data": list(data)}


def counts_entry(*sizes: int) -> dict:
    return {"dtype": "int64", "shape": [len(sizes)], "data": list(sizes)}


def floats_entry(*values: float) -> dict:
    return {"dtype": "float64", "shape": [len(values)], "data": list(values)}


BROKEN = [
    ({"sketch_sizes": None}, "holds 'sketches', but not 'sketch_sizes'"),
    ({"sketches": None}, "holds 'sketch_sizes', but not 'sketches'"),
    ({"sketches": bytes_entry(bytes(300))}, "sizes of the sketches are not those"),
    ({"sketch_sizes": counts_entry(2**62, 2**62)}, "larger than all of them"),
    ({"sketch_sizes": counts_entry(0, 0)}, "sizes of the sketches are not those"),
    ({"sketch_sizes": counts_entry(0)}, "does not go with statistics of shape"),
    ({"sketches": floats_entry(1.0)}, "no line of bytes"),
    ({"lower": floats_entry(90.0, 90.0)}, "lower quantile at"),
    ({"upper": floats_entry(-90.0, -90.0)}, "median at"),
    ({"center": None}, "lacks 'center'"),
    ({"center": floats_entry(float(3), float(3))}, "quantiles in 'center'"),
    ({"maximum": floats_entry(99.0, 99.0)}, "other extremes than the statistics|exact sums"),
]


@pytest.mark.parametrize(("arrays", "words"), BROKEN, ids=[b[1] for b in BROKEN])
def test_sidecars_with_sketches_of_others_are_refused(tmp_path, arrays, words):
    path = tmp_path / "s.json"
    x = np.tile(np.arange(12.0), (2, 1)).T
    normcli.fit(store(tmp_path, "x", x), path, layout="NC", method="robust", quantiles=(20, 60))
    change(path, **arrays)
    with pytest.raises(InputError, match=words):
        normcli.read_statistics(path)


def test_a_damaged_sketch_is_named(tmp_path):
    path = tmp_path / "s.npz"
    normcli.fit(store(tmp_path, "x", X), path, layout="NCHW", method="robust")
    with np.load(path) as archive:
        arrays = dict(archive)
    arrays["sketches"][2] = 99
    np.savez(path, **arrays)
    with pytest.raises(InputError, match="the sketch of group 0 is damaged: it is no KLL sketch"):
        normcli.read_statistics(path)


def test_the_command_line(tmp_path):
    name, output = store(tmp_path, "x", X), str(tmp_path / "y.npy")
    arguments = ["apply", name, "-o", output, "--layout", "NCHW", "--method", "robust"]
    arguments += ["--quantiles", "10,90", "--dtype", "float64", "--json"]
    assert "plan" in json.loads(call(*arguments, "--dry-run").text)
    ended = call(*arguments)
    assert ended.code == 0, ended.err
    close(np.load(output), by_hand("NCHW", X, "batch", (10, 90)))
    assert call(*arguments[:-5], "--quantiles", "10").code == 2
    other = call(
        "fit", name, "-o", str(tmp_path / "s.json"), "--layout", "NCHW", "--quantiles", "1,2"
    )
    assert (other.code, "belongs to --method robust" in other.err) == (2, True)
