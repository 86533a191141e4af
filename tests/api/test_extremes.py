"""minmax and maxabs in files: against numpy and scikit-learn, however stored, cut and resumed."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import normcli
from normcli.errors import DataPolicyError, InputError, UsageError
from normcli.kernels import select
from tests.cli.terminal import call

from .method_cases import CHUNKS, SUFFIXES, X, of_groups
from .stores import STORAGES, hold_groups, load, store, suffix
from .test_properties import MODES, MORE, TIGHT, folder, inputs

METHODS = ("minmax", "maxabs")
RANGES = [(0.0, 1.0), (-1.0, 1.0), (-3.5, -0.25), (0.0, 255.0)]


def extremes(layout: str, x: np.ndarray, mode: str) -> np.ndarray:
    """Minimum and maximum of the group of each element, of finite ones, by numpy alone."""

    def of_finite(values, axes):
        wide, finite = values.astype("f8"), np.isfinite(values.astype("f8"))
        return (
            np.where(finite, wide, np.inf).min(axes, keepdims=True),
            np.where(finite, wide, -np.inf).max(axes, keepdims=True),
        )

    return of_groups(layout, x, mode, of_finite)


def by_hand(layout, x, mode, method, bounds=(0.0, 1.0)) -> np.ndarray:
    low, high = extremes(layout, x, mode)
    wide = x.astype("f8")
    with np.errstate(invalid="ignore"):
        if method == "maxabs":
            most = np.maximum(abs(low), abs(high))
            return np.where(most == 0, wide * 0, wide / np.where(most == 0, 1, most))
        spread = np.where(high == low, 1, high - low)
        return (wide - low) / spread * (bounds[1] - bounds[0]) + bounds[0]


def close(y: np.ndarray, want: np.ndarray, size: float = 1.0) -> None:
    """Within a rounding to the type of `y`, beside a few in float64."""
    np.testing.assert_array_equal(np.isnan(y), np.isnan(want))
    unit = np.finfo(y.dtype).eps if y.dtype != np.float64 else 8 * np.finfo("f8").eps
    assert np.nanmax(np.abs(y.astype("f8") - want), initial=0) <= unit * size


@given(inputs(), st.sampled_from(sorted(set(MODES) - {"rms", "std"})), st.data())
@MORE
def test_any_chunks_storage_and_budget(made, mode, data):
    layout, x = made
    method = data.draw(st.sampled_from(METHODS))
    options = {"layout": layout, "method": method, **MODES[mode]}
    bounds = data.draw(st.sampled_from(RANGES)) if method == "minmax" else (0.0, 1.0)
    if method == "minmax":
        options["range"] = bounds
    size = max(map(abs, bounds))
    want = by_hand(layout, x, mode, method, bounds)
    source, target = (data.draw(st.sampled_from(STORAGES)) for _ in range(2))
    chunks = tuple(data.draw(st.integers(1, n)) for n in x.shape)
    with folder() as place:
        name, output = store(place, "x", x, source, chunks), place / f"y{suffix(target)}"
        workers = data.draw(st.integers(1, 3))
        normcli.apply(name, output, memory=TIGHT, workers=workers, dtype="float64", **options)
        close(load(output), want, 4 * size)
        kind = data.draw(st.sampled_from(SUFFIXES))
        fitted = normcli.fit(name, place / f"s{kind}", **options)
        normcli.apply(name, place / "again.npy", stats=place / f"s{kind}", dtype="float64")
        np.testing.assert_array_equal(np.load(place / "again.npy"), load(output))
        np.testing.assert_array_equal(fitted.normalize(x, dtype="float64"), load(output))
        normcli.apply(
            output, place / "back.npy", stats=f"{output}.stats.json", inverse=True, dtype="float64"
        )
        largest = np.nanmax(np.abs(x.astype("f8")), initial=0)
        # The lower bound is added and taken off again: what it rounds away is stretched by the
        # spread of the data over the width of the range.
        stretch = 1 + size / (bounds[1] - bounds[0])
        back = np.load(place / "back.npy")
        np.testing.assert_array_equal(np.isnan(back), np.isnan(x.astype("f8")))
        assert np.nanmax(np.abs(back - x.astype("f8")), initial=0) <= 2e-15 * largest * stretch


@pytest.mark.parametrize("dtype", ["f4", "f8", "i2", "u1"])
@pytest.mark.parametrize("bounds", RANGES, ids=str)
def test_the_numbers_of_min_max_scaler(tmp_path, dtype, bounds):
    scaler = pytest.importorskip("sklearn.preprocessing").MinMaxScaler
    x = (np.random.default_rng(1).normal(60, 15, (501, 7))).astype(dtype)
    x[:, 3] = 17
    theirs = scaler(feature_range=bounds).fit(x.astype("f8"))
    options = {"layout": "NC", "method": "minmax", "range": bounds, "dtype": "float64"}
    normcli.apply(store(tmp_path, "x", x), tmp_path / "y.npy", **options)
    y = np.load(tmp_path / "y.npy")
    np.testing.assert_allclose(y, theirs.transform(x.astype("f8")), rtol=1e-13, atol=1e-12)
    # A minimum and a constant column are the lower bound to the last bit.
    assert np.all(y.min(0) == bounds[0])
    assert np.all(y[:, 3] == bounds[0])
    stats = tmp_path / "y.npy.stats.json"
    normcli.apply(tmp_path / "y.npy", tmp_path / "b.npy", stats=stats, inverse=True)
    np.testing.assert_allclose(np.load(tmp_path / "b.npy"), x, rtol=1e-12)
    other = np.random.default_rng(2).normal(60, 40, (9, 7))
    fitted = normcli.read_statistics(stats)
    got = fitted.normalize(other)
    keep = np.arange(7) != 3
    np.testing.assert_allclose(got[:, keep], theirs.transform(other)[:, keep], rtol=1e-12)


@pytest.mark.parametrize("dtype", ["f4", "f8", "i2"])
def test_the_numbers_of_max_abs_scaler(tmp_path, dtype):
    scaler = pytest.importorskip("sklearn.preprocessing").MaxAbsScaler
    x = (np.random.default_rng(1).normal(-5, 15, (501, 7))).astype(dtype)
    x[:, 3], x[:, 4] = 0, -9
    name = store(tmp_path, "x", x)
    normcli.apply(name, tmp_path / "y.npy", layout="NC", method="maxabs", dtype="float64")
    y = np.load(tmp_path / "y.npy")
    np.testing.assert_allclose(y, scaler().fit_transform(x.astype("f8")), rtol=1e-14)
    assert np.all(y[:, 3] == 0)
    np.testing.assert_allclose(y[:, 4], -1)
    stats = tmp_path / "y.npy.stats.json"
    normcli.apply(tmp_path / "y.npy", tmp_path / "b.npy", stats=stats, inverse=True)
    np.testing.assert_allclose(np.load(tmp_path / "b.npy"), x, rtol=1e-14)


def test_the_largest_of_each_sample_as_normalizer_has_it(tmp_path):
    normalizer = pytest.importorskip("sklearn.preprocessing").Normalizer
    x = np.random.default_rng(1).normal(2, 5, (40, 8))
    options = {"layout": "NC", "mode": "layer", "method": "maxabs"}
    normcli.apply(store(tmp_path, "x", x), tmp_path / "y.npy", **options)
    want = normalizer(norm="max").fit_transform(x)
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), want, rtol=1e-14)


@pytest.mark.parametrize("method", METHODS)
def test_fused_and_two_passes_agree(method, tmp_path):
    x = np.random.default_rng(4).normal(10, 2, (3, 4, 120_000)).astype("f4")
    x[0, 1, 5] = np.nan
    x[1, 2] = -8
    name, found = store(tmp_path, "x", x), []
    options = {"layout": "NCS", "mode": "instance", "method": method, "dtype": "float64"}
    for memory in ("1GiB", "4700KiB"):
        output = tmp_path / f"{memory}.npy"
        report = normcli.apply(name, output, memory=memory, **options)
        found.append((report.passes, report.tally, output.read_bytes()))
    assert [passes for passes, _, _ in found] == [1, 2]
    assert found[0][1:] == found[1][1:]
    close(np.load(output), by_hand("NCS", x, "instance", method), 4)


@pytest.mark.parametrize("mode", ["batch", "instance", "layer", "group", "everything"])
@pytest.mark.parametrize("method", METHODS)
def test_compiled_kernels_give_the_same_numbers(tmp_path, monkeypatch, method, mode):
    pytest.importorskip("numba")
    x = X.copy()
    x[0, 1, 2, 3], x[1, 3] = np.nan, 4
    options = {"layout": "NCHW", "method": method, "dtype": "float64", **MODES[mode]}
    bounds = (-1.0, 2.0) if method == "minmax" else (0.0, 1.0)
    options |= {"range": bounds} if method == "minmax" else {}
    name, kernels = store(tmp_path, "x", x), []
    for small in (select.SMALL, 0):
        monkeypatch.setattr(select, "SMALL", small)
        kernels.append(normcli.apply(name, tmp_path / f"{small}.npy", **options).kernel)
    assert kernels == ["numpy", "numba"]
    want, low = by_hand("NCHW", x, mode, method, bounds), extremes("NCHW", x, mode)[0]
    for small in (256 * 2**20, 0):
        y = np.load(tmp_path / f"{small}.npy")
        # Compiled loops may add the lower bound without a rounding in between.
        close(y, want, 8)
        if method == "minmax":
            assert np.all(y[x == low] == bounds[0])


@pytest.mark.parametrize("method", METHODS)
def test_more_groups_than_memory_holds(tmp_path, monkeypatch, method):
    # A million by itself: test_properties.py.
    hold_groups(monkeypatch, 150_000)
    x = np.random.default_rng(1).normal(3, 2, (150_100, 3)).astype("f4")
    x[7] = 2.5
    name = store(tmp_path, "x", x)
    options = {"layout": "NC", "mode": "layer", "method": method}
    options |= {"range": (-1, 1)} if method == "minmax" else {}
    normcli.fit(name, tmp_path / "s.zarr", **options)
    want = by_hand("NC", x, "layer", method, (-1.0, 1.0))
    normcli.apply(name, tmp_path / "y.npy", stats=tmp_path / "s.zarr")
    close(np.load(tmp_path / "y.npy"), want, 2)
    normcli.apply(name, tmp_path / "z.npy", **options)
    assert (tmp_path / "y.npy").read_bytes() == (tmp_path / "z.npy").read_bytes()
    normcli.apply(tmp_path / "y.npy", tmp_path / "b.npy", stats=tmp_path / "s.zarr", inverse=True)
    np.testing.assert_allclose(np.load(tmp_path / "b.npy"), x, rtol=2e-6, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_parts_and_updates_give_what_one_fit_gives(tmp_path, method):
    name = store(tmp_path, "x", X, "zarr3", CHUNKS)
    options = {"layout": "NCHW", "method": method}
    whole = normcli.fit(name, **options).statistics
    parts = [tmp_path / f"{i}.json" for i in (1, 2, 3)]
    for i, path in enumerate(parts):
        normcli.fit(name, path, part=f"{i + 1}/3", **options)
    merged = normcli.merge(parts).statistics
    first, second = store(tmp_path, "a", X[:9]), store(tmp_path, "b", X[9:])
    normcli.fit(first, tmp_path / "first.json", **options)
    updated = normcli.fit(second, update=tmp_path / "first.json", **options).statistics
    for other in (merged, updated):
        assert other.spec == whole.spec
        for extreme in ("minimum", "maximum"):
            same = getattr(other.moments, extreme), getattr(whole.moments, extreme)
            assert same[0].tobytes() == same[1].tobytes()
        got = normcli.FittedStatistics(other).normalize(X)
        np.testing.assert_array_equal(got, normcli.FittedStatistics(whole).normalize(X))


def test_other_ranges_are_not_merged_and_other_methods_not_continued(tmp_path):
    name = store(tmp_path, "x", X)
    for high in (1, 2):
        bounds = (0, high)
        path = tmp_path / f"{high}.json"
        normcli.fit(name, path, layout="NCHW", method="minmax", range=bounds)
    with pytest.raises(InputError, match=r"has range \(0\.0, 1\.0\)"):
        normcli.merge([tmp_path / "1.json", tmp_path / "2.json"])
    with pytest.raises(InputError, match="fitted with method minmax, not maxabs"):
        normcli.fit(name, layout="NCHW", method="maxabs", update=tmp_path / "1.json")


@pytest.mark.parametrize("kind", SUFFIXES)
def test_every_sidecar_keeps_the_range(tmp_path, kind):
    name, path = store(tmp_path, "x", X), tmp_path / f"s{kind}"
    fitted = normcli.fit(name, path, layout="NCHW", method="minmax", range=(-1, 0.1))
    again = normcli.read_statistics(path)
    assert again.statistics.spec == fitted.statistics.spec
    assert again.statistics.spec.range == (-1.0, 0.1)
    assert again.normalize(X).tobytes() == fitted.normalize(X).tobytes()
    assert call("extract", str(path), "range").text == "-1.0 0.1\n"
    shown = call("inspect", str(path)).text
    assert "method minmax to -1, 0.1" in shown
    assert json.loads(call("inspect", str(path), "--json").text)["spec"]["range"] == [-1, 0.1]


def test_an_apply_sets_the_range_anew_and_records_it(tmp_path):
    name, path = store(tmp_path, "x", X), tmp_path / "s.json"
    normcli.fit(name, path, layout="NCHW", method="minmax")
    normcli.apply(name, tmp_path / "y.npy", stats=path, range=(0, 255))
    y = np.load(tmp_path / "y.npy")
    close(y, by_hand("NCHW", X, "batch", "minmax", (0, 255)), 255)
    kept = normcli.read_statistics(f"{tmp_path / 'y.npy'}.stats.json").statistics.spec
    assert kept.range == (0.0, 255.0)


@pytest.mark.parametrize("bounds", RANGES, ids=str)
@pytest.mark.parametrize("which", ["both", "scale", "bias"])
def test_scale_and_bias_come_after(tmp_path, which, bounds):
    scale, bias = np.linspace(-2.5, 3, 6), np.linspace(5, 7, 6)
    np.save(tmp_path / "scale.npy", scale)
    np.save(tmp_path / "bias.npy", bias)
    given = {"scale": tmp_path / "scale.npy", "bias": tmp_path / "bias.npy"}
    given = given if which == "both" else {which: given[which]}
    x = X.astype("f8")
    x[:, 2] = 4.5
    options = {"layout": "NCHW", "method": "minmax", "range": bounds}
    normcli.apply(store(tmp_path, "x", x), tmp_path / "y.npy", **options, **given)
    want = by_hand("NCHW", x, "batch", "minmax", bounds)
    want = want * scale[:, None, None] if "scale" in given else want
    want = want + bias[:, None, None] if "bias" in given else want
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), want, rtol=1e-12, atol=1e-12)
    stats = f"{tmp_path / 'y.npy'}.stats.json"
    recorded = normcli.read_statistics(stats).statistics.affine
    # What is recorded is what was given, without the lower bound.
    assert (recorded.scale is not None, recorded.bias is not None) == (
        "scale" in given,
        "bias" in given,
    )
    if "bias" in given:
        np.testing.assert_array_equal(recorded.bias, bias)
    normcli.apply(tmp_path / "y.npy", tmp_path / "b.npy", stats=stats, inverse=True)
    np.testing.assert_allclose(np.load(tmp_path / "b.npy"), x, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("method", METHODS)
def test_the_policies_of_nan(tmp_path, method):
    x = X.astype("f8")
    x[1, 2, 3, 4], x[2, 2, 0, 0], x[:, 4] = np.nan, np.inf, np.nan
    name = store(tmp_path, "x", x)
    options = {"layout": "NCHW", "method": method}
    normcli.apply(name, tmp_path / "omit.npy", **options)
    y, bad = np.load(tmp_path / "omit.npy"), ~np.isfinite(x)
    np.testing.assert_array_equal(~np.isfinite(y), bad)
    want = by_hand("NCHW", np.where(np.isinf(x), np.nan, x)[:, :4], "batch", method)
    np.testing.assert_allclose(y[:, :4][~bad[:, :4]], want[~bad[:, :4]], rtol=1e-13, atol=1e-15)
    normcli.apply(name, tmp_path / "p.npy", nonfinite="propagate", **options)
    p = np.load(tmp_path / "p.npy")
    assert np.isnan(p[:, [2, 4]]).all()
    np.testing.assert_array_equal(p[:, [0, 1, 3, 5]], y[:, [0, 1, 3, 5]])
    with pytest.raises(DataPolicyError, match="NaN or infinite"):
        normcli.apply(name, tmp_path / "e.npy", nonfinite="error", **options)


@pytest.mark.parametrize("method", METHODS)
def test_training_batches_have_their_own_extremes(tmp_path, method):
    options = {"layout": "NCHW", "method": method, "dtype": "float64"}
    name, output = store(tmp_path, "x", X), tmp_path / "y.npy"
    normcli.apply(name, output, training=True, batch_size=7, **options)
    y, edges = np.load(output), [0, 7, 14, 21, 24]
    for a, b in pairwise(edges):
        close(y[a:b], by_hand("NCHW", X[a:b], "batch", method), 4)


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (-1.0, 2.0)], ids=str)
def test_what_is_learned_belongs_to_the_range(tmp_path, bounds):
    x = X.astype("f8")
    z = by_hand("NCHW", x, "batch", "minmax", bounds)
    target = z * np.linspace(1, 2, 6)[:, None, None] - 0.75
    name, wanted = store(tmp_path, "x", x), store(tmp_path, "t", target)
    stats = tmp_path / "s.json"
    normcli.fit(name, stats, layout="NCHW", method="minmax", range=bounds)
    for options in ({"stats": stats}, {"layout": "NCHW", "method": "minmax", "range": bounds}):
        affine = normcli.learn(name, wanted, **options).affine
        np.testing.assert_allclose(affine.scale, np.linspace(1, 2, 6), rtol=1e-9)
        np.testing.assert_allclose(affine.bias, -0.75, rtol=1e-9)


@pytest.mark.parametrize("options", [{"method": "minmax", "range": (-1, 3)}, {"method": "maxabs"}])
def test_frameworks_give_the_same_numbers(tmp_path, options):
    torch = pytest.importorskip("torch")
    safetensors = pytest.importorskip("safetensors.torch")
    x = X.copy()
    x[:, 1] = 6
    fitted = normcli.fit(store(tmp_path, "x", x), tmp_path / "s.json", layout="NCHW", **options)
    ended = call(
        "convert", str(tmp_path / "s.json"), "-o", str(tmp_path / "bn.safetensors"), "--to", "torch"
    )
    assert ended.code == 0, ended.err
    layer = torch.nn.BatchNorm2d(6, eps=0.0).eval()
    state = safetensors.load_file(tmp_path / "bn.safetensors")
    layer.load_state_dict(state, strict=False)
    if "weight" not in state:
        layer.weight.data.fill_(1)
    with torch.no_grad():
        got = layer(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(got, fitted.normalize(x), rtol=1e-5, atol=2e-6)
    scaled = call(
        "convert", str(tmp_path / "s.json"), "-o", str(tmp_path / "k.json"), "--to", "sklearn",
    )  # fmt: skip
    assert scaled.code == 0, scaled.err
    held = json.loads((tmp_path / "k.json").read_text())
    rows = np.moveaxis(x, 1, -1).astype("f8")
    got = (rows - np.array(held["mean_"])) / np.array(held["scale_"])
    want = np.moveaxis(fitted.normalize(x, dtype="float64"), 1, -1)
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)


REFUSED = [
    ({"method": "zscore", "range": (0, 1)}, UsageError, "belongs to --method minmax"),
    ({"method": "maxabs", "range": (0, 1)}, UsageError, "belongs to --method minmax"),
    ({"method": "minmax", "range": (1, 0)}, UsageError, "range 1,0 is none"),
    ({"method": "minmax", "range": (1, 1)}, UsageError, "range 1,1 is none"),
    ({"method": "minmax", "range": (0, np.nan)}, UsageError, "range 0,nan is none"),
    ({"method": "minmax", "range": (0, np.inf)}, UsageError, "range 0,inf is none"),
    ({"method": "minmax", "range": (0, 1e200)}, UsageError, r"range 0,1e\+200 is none"),
    ({"method": "minmax", "range": (0, 1, 2)}, UsageError, "range 0,1,2 is none"),
    ({"method": "minmax", "epsilon": 0.1}, UsageError, "divides by extremes"),
    ({"method": "maxabs", "ddof": 1}, UsageError, "divides by extremes"),
    ({"method": "maxabs", "epsilon_placement": "floor"}, UsageError, "divides by extremes"),
]


@pytest.mark.parametrize(("options", "error", "words"), REFUSED, ids=str)
def test_refused(tmp_path, options, error, words):
    name = store(tmp_path, "x", X)
    with pytest.raises(error, match=words):
        normcli.fit(name, layout="NCHW", **options)
    with pytest.raises(error, match=words):
        normcli.apply(name, tmp_path / "y.npy", layout="NCHW", **options)
    assert not (tmp_path / "y.npy").exists()


@pytest.mark.parametrize("method", METHODS)
def test_what_extremes_do_not_have_is_refused(tmp_path, method):
    name, out = store(tmp_path, "x", X), tmp_path / "y.npy"
    np.save(tmp_path / "m.npy", np.ones(6))
    with pytest.raises(UsageError, match="Moving statistics are a mean and a variance"):
        normcli.fit(name, layout="NCHW", method=method, momentum=0.9, batch_size=4)
    file = tmp_path / "m.npy"
    with pytest.raises(UsageError, match="--mean and --variance hold none"):
        normcli.apply(name, out, layout="NCHW", method=method, mean=file, variance=file)
    stats = tmp_path / "s.json"
    normcli.fit(name, stats, layout="NCHW", method=method)
    with pytest.raises(UsageError, match="divides by extremes"):
        normcli.apply(name, out, stats=stats, epsilon=0.1)
    normcli.fit(name, tmp_path / "z.json", layout="NCHW")
    with pytest.raises(UsageError, match="belongs to --method minmax"):
        normcli.apply(name, out, stats=tmp_path / "z.json", range=(0, 1))
    normcli.fit(name, tmp_path / "i.json", layout="NCHW", mode="instance", method=method)
    ended = call(
        "convert", str(tmp_path / "i.json"), "-o", str(tmp_path / "i.safetensors"), "--to", "torch"
    )
    assert (ended.code, "no layer that divides each observation by extremes" in ended.err) == (7, 1)
    assert not out.exists()
    tiny = X.astype("f8") * 2.0**-664
    normcli.apply(store(tmp_path, "tiny", tiny), out, layout="NCHW", method=method)
    normcli.apply(name, tmp_path / "z.npy", layout="NCHW", method=method, dtype="float64")
    np.testing.assert_array_equal(np.load(out), np.load(tmp_path / "z.npy"))


@pytest.mark.parametrize("change", [{"range": None}, {"range": [2, 1]}, {"range": ["a"]}])
def test_a_sidecar_with_no_range_is_refused(tmp_path, change):
    path = tmp_path / "s.json"
    normcli.fit(store(tmp_path, "x", X), path, layout="NCHW", method="minmax")
    document = json.loads(path.read_text())
    document["spec"] |= change
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match=r"range"):
        normcli.read_statistics(path)


def test_sidecars_from_before_there_were_ranges_are_read(tmp_path):
    path = tmp_path / "s.json"
    fitted = normcli.fit(store(tmp_path, "x", X), path, layout="NCHW")
    document = json.loads(path.read_text())
    del document["spec"]["range"]
    path.write_text(json.dumps(document))
    assert normcli.read_statistics(path).statistics.spec == fitted.statistics.spec


@pytest.mark.parametrize("lower", ["-1", "0"])
def test_the_command_line(tmp_path: Path, lower):
    name, output = store(tmp_path, "x", X), str(tmp_path / "y.npy")
    arguments = ["apply", name, "-o", output, "--layout", "NCHW", "--method", "minmax"]
    arguments += ["--range", f"{lower},2", "--dtype", "float64", "--json"]
    planned = json.loads(call(*arguments, "--dry-run").text)
    assert "plan" in planned
    ended = call(*arguments)
    assert ended.code == 0, ended.err
    assert json.loads(ended.text)["report"]["groups"] == 6
    close(np.load(output), by_hand("NCHW", X, "batch", "minmax", (float(lower), 2)), 8)
    wrong = call(*arguments[:-5], "--range", "1")
    assert wrong.code == 2
    assert "give 0,1 or -1,1" in wrong.err


def test_a_constant_group_is_told_of(tmp_path):
    x = X.copy()
    x[:, 1] = 6
    name = store(tmp_path, "x", x)
    for options, words in (
        (["minmax", "--range", "-1,1"], "they become -1, the lower bound"),
        (["maxabs"], "they become 1 or -1, and those of zeros 0"),
    ):
        ended = call("fit", name, "-o", str(tmp_path / f"{options[0]}.json"), "--layout", "NCHW",
                     "--method", *options)  # fmt: skip
        assert words in ended.err
