"""Quantiles of integers beyond 2**53: against Python's integers, in any cut and every file."""

from __future__ import annotations

import json
import shutil
from fractions import Fraction

import numpy as np
import pytest
import zarr

import normcli
from normcli.bundles.formats import read_bundle, write_bundle
from normcli.bundles.statistics_file import read_statistics
from normcli.domain.quantile_moments import WideQuantileMoments
from normcli.domain.quantile_sketches import rank_error, sketch_k
from normcli.errors import DataPolicyError, InputError
from normcli.kernels import select
from tests.cli.terminal import call
from tests.examples import pairs

from .stores import hold_groups, store
from .wide_cases import LAYOUT, MODES, SHAPE, groups, integers, random

pytest.importorskip("datasketches")

SUFFIXES = ("json", "npz", "h5", "zarr", "safetensors")
ROBUST = {"layout": LAYOUT, "method": "robust"}
PERCENT = [(25, 75), (10, 60), (0, 100)]
SCHEMA = "docs/statistics.schema.json"


@pytest.fixture(params=["numpy", "numba"])
def kernel(request, monkeypatch):
    if request.param == "numba":
        pytest.importorskip("numba")
        monkeypatch.setattr(select, "SMALL", 0)
    return request.param


def inner(dtype: str, wide: bool = False) -> np.ndarray:
    """Return integers beyond 2**53 whose quantiles are not among the outermost ones."""
    x = integers(dtype)
    bases = (9 * 10**18, -9 * 10**18) if dtype == "i8" else (18 * 10**18, 2**63)
    for channel, base in zip((1, 2), bases, strict=True):
        steps = random.integers(0, 1000, (SHAPE[0], SHAPE[2])).tolist()
        x[:, channel] = np.array([[base + step for step in row] for row in steps], dtype)
    if wide:
        # Few elements at both ends, which no quartile reaches.
        x[0, :, :2] = np.iinfo(dtype).min, np.iinfo(dtype).max
    return x


def quantile(values: list[int], level: float) -> Fraction:
    place = Fraction(level) * (len(values) - 1)
    low = int(place)
    above = values[min(low + 1, len(values) - 1)]
    return values[low] + (above - values[low]) * (place - low)


def exactly(x: np.ndarray, mode: str, percent=(25, 75)) -> np.ndarray:
    flat, out = x.reshape(-1).tolist(), np.empty(x.size)
    for places in groups(x, mode):
        values = sorted(flat[place] for place in places)
        low, center, high = (quantile(values, p / 100) for p in (percent[0], 50, percent[1]))
        spread = high - low
        out[places] = [float((flat[p] - center) / spread) if spread else 0.0 for p in places]
    return out.reshape(x.shape)


def moments(fitted) -> WideQuantileMoments:
    held = fitted.statistics.moments
    assert isinstance(held, WideQuantileMoments)
    return held


def same(one, other) -> None:
    for name in one.names():
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), name)


@pytest.mark.parametrize(("dtype", "mode"), pairs(["i8", "u8"], MODES))
def test_there_and_back(tmp_path, kernel, dtype, mode):
    x = inner(dtype, wide=mode == "batch")
    name, output = store(tmp_path, "x", x), tmp_path / "y.npy"
    options = {**ROBUST, **MODES[mode][0]}
    normcli.apply(name, output, **options)
    y, want = np.load(output), exactly(x, mode)
    np.testing.assert_allclose(y, want, rtol=1e-14, atol=1e-15)
    for kind in SUFFIXES:
        fitted = normcli.fit(name, tmp_path / f"s.{kind}", **options)
        normcli.apply(name, tmp_path / f"{kind}.npy", stats=tmp_path / f"s.{kind}")
        np.testing.assert_array_equal(np.load(tmp_path / f"{kind}.npy"), y)
        np.testing.assert_array_equal(fitted.normalize(x), y)
        read = normcli.read_statistics(tmp_path / f"s.{kind}")
        same(moments(fitted), moments(read))
    stats = f"{output}.stats.json"
    normcli.apply(output, tmp_path / "b.npy", stats=stats, inverse=True, dtype=dtype)
    flat, back = x.reshape(-1).tolist(), np.load(tmp_path / "b.npy").reshape(-1).tolist()
    for places in groups(x, mode):
        spread = max(flat[i] for i in places) - min(flat[i] for i in places)
        bound = 1e-15 * spread if spread > 10**14 else 0
        assert max(abs(flat[i] - back[i]) for i in places) <= bound
    for path in (output, tmp_path / "s.json", tmp_path / "s.npz"):
        assert call("verify", str(path)).code == 0
    ended = call("check", str(tmp_path / "s.npz"), name)
    assert (ended.code, "beyond 2**53" in ended.err + ended.out.decode()) == (0, False)


@pytest.mark.parametrize("percent", PERCENT, ids=str)
def test_any_cut_gives_the_same(tmp_path, percent):
    x = inner("i8")
    whole, options = store(tmp_path, "x", x), {**ROBUST, "quantiles": percent}
    one = normcli.fit(whole, tmp_path / "one.npz", **options)
    np.testing.assert_allclose(
        one.normalize(x), exactly(x, "batch", percent), rtol=1e-14, atol=1e-15
    )
    for number, chunks in enumerate([(1, 4, 7), (5, 1, 30)]):
        cut = store(tmp_path, f"cut{number}", x, "zarr3", chunks)
        same(moments(normcli.fit(cut, workers=1 + number, memory="90MiB", **options)), moments(one))
        output = tmp_path / f"{number}.npy"
        normcli.apply(cut, output, workers=2, **options)
        np.testing.assert_array_equal(np.load(output), one.normalize(x))
    parts = [tmp_path / f"part{i}.{kind}" for i, kind in enumerate(("json", "npz", "zarr"), 1)]
    for i, path in enumerate(parts, 1):
        normcli.fit(whole, path, part=f"{i}/3", **options)
    merged = normcli.merge([str(path) for path in reversed(parts)], tmp_path / "all.npz")
    normcli.fit(store(tmp_path, "a", x[:5]), tmp_path / "a.json", **options)
    more = normcli.fit(store(tmp_path, "b", x[5:]), update=tmp_path / "a.json")
    for other in (merged, more, normcli.read_statistics(tmp_path / "all.npz")):
        same(moments(other), moments(one))
    big = store(tmp_path, "big", x.astype(">i8"))
    same(moments(normcli.fit(big, **options)), moments(one))


@pytest.mark.parametrize("dtype", ["i8", "u8"])
def test_large_groups_are_within_the_stated_error(tmp_path, dtype):
    rng = np.random.default_rng(4)
    x = (np.array([17 * 10**17, 5, 9 * 10**18]) + rng.integers(0, 10**6, (120_000, 3))).astype(
        dtype
    )
    name = store(tmp_path, "x", x, "zarr3", (7_000, 2))
    parts = [tmp_path / f"part{i}.npz" for i in (1, 2)]
    for i, path in enumerate(parts, 1):
        normcli.fit(name, path, part=f"{i}/2", layout="NC", method="robust")
    for fitted in (
        normcli.fit(name, layout="NC", method="robust", workers=2),
        normcli.merge([str(path) for path in parts]),
    ):
        found, error = moments(fitted), rank_error(sketch_k(3))
        np.testing.assert_array_equal(found.rank_error, error)
        for channel in range(3):
            column = x[:, channel].tolist()
            for name_, point in (("lower", 0.25), ("center", 0.5), ("upper", 0.75)):
                value = int(getattr(found, name_)[channel])
                value += Fraction(float(getattr(found, f"{name_}_rest")[channel]))
                below, upto = (sum(v < value for v in column), sum(v <= value for v in column))
                off = max(below / len(column) - point, point - upto / len(column))
                assert off <= 2 * error + 1 / len(column)
        # Half of the elements are between the quartiles, a million integers wide.
        assert np.all(np.abs(found.spread - 5e5) < 5e3)


def test_a_run_that_is_continued(tmp_path):
    from normcli.engine.journal_sums import pack_sums, unpack_sums
    from tests.engine.test_journal_sums import measured

    x = inner("u8").transpose(0, 2, 1).reshape(-1, 4)
    sums, measurer = measured({"method": "robust"}, x)
    again = unpack_sums(json.loads(json.dumps(pack_sums(sums))))
    assert again.sketches.dtype == np.dtype("u8")
    a, b = (measurer.finish(one.merge(one)) for one in (sums, again))
    same(a, b)
    rounded = unpack_sums(json.loads(json.dumps(pack_sums(a))))
    assert isinstance(rounded, WideQuantileMoments)
    same(a, rounded)


def test_more_groups_than_memory_holds(tmp_path, monkeypatch):
    x = inner("i8")
    name, options = store(tmp_path, "x", x), {**ROBUST, "mode": "instance"}
    normcli.apply(name, tmp_path / "whole.npy", **options)
    hold_groups(monkeypatch, 30)
    normcli.apply(name, tmp_path / "y.npy", stats_out=tmp_path / "y.zarr", **options)
    assert (tmp_path / "y.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()
    normcli.fit(name, tmp_path / "s.zarr", **options)
    normcli.apply(name, tmp_path / "z.npy", stats=tmp_path / "s.zarr")
    assert (tmp_path / "z.npy").read_bytes() == (tmp_path / "y.npy").read_bytes()
    normcli.apply(
        tmp_path / "y.npy",
        tmp_path / "b.npy",
        stats=tmp_path / "y.zarr",
        inverse=True,
        dtype="int64",
    )
    np.testing.assert_array_equal(np.load(tmp_path / "b.npy"), x)
    ended = call("check", str(tmp_path / "s.zarr"), name)
    assert (ended.code, "beyond 2**53" in ended.err + ended.out.decode()) == (0, False)
    assert call("verify", str(tmp_path / "s.zarr")).code == 0


def test_observations_are_set_side_by_side(tmp_path):
    x = inner("i8")
    x[:6] %= 1000  # The first half has nothing beyond 2**53.
    options = {**ROBUST, "mode": "instance"}
    for i, half in enumerate((x[:6], x[6:])):
        normcli.fit(store(tmp_path, f"x{i}", half), tmp_path / f"{i}.json", **options)
    normcli.merge([str(tmp_path / f"{i}.json") for i in (0, 1)], tmp_path / "both.json")
    normcli.apply(store(tmp_path, "x", x), tmp_path / "y.npy", stats=tmp_path / "both.json")
    want = exactly(x, "instance")
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), want, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("mode", ["batch", "instance"])
@pytest.mark.parametrize("dtype", ["i8", "u8"])
def test_chunks_that_are_not_stored_are_left_out(tmp_path, dtype, mode):
    x = inner(dtype)
    x[:, 3] = np.iinfo(dtype).max - 2**62  # the same as no other group, and constant
    path = tmp_path / "x.zarr"
    array = zarr.create_array(
        path, shape=SHAPE, chunks=(1, 2, 10), dtype=dtype, fill_value=np.iinfo(dtype).max
    )
    there = np.zeros(SHAPE, bool)
    for n, c, s in [(0, 0, 0), (0, 0, 20), (3, 2, 10), (4, 0, 0), (4, 0, 10), (7, 0, 20)]:
        part = (slice(n, n + 1), slice(c, c + 2), slice(s, s + 10))
        array[part], there[part] = x[part], True
    options = {**ROBUST, "mode": mode, "missing": "omit"}
    normcli.apply(path, tmp_path / "y.npy", memory="64MiB", **options)
    y = np.load(tmp_path / "y.npy").reshape(-1)
    flat, stored = x.reshape(-1).tolist(), there.reshape(-1)
    for places in groups(x, mode):
        values = sorted(flat[place] for place in places if stored[place])
        if not values:
            assert np.isnan(y[places]).all()
            continue
        low, center, high = (quantile(values, level) for level in (0.25, 0.5, 0.75))
        for place in places:
            if stored[place]:
                want = float((flat[place] - center) / (high - low)) if high > low else 0.0
                assert abs(y[place] - want) <= 1e-14 * max(1, abs(want))


def test_groups_that_hold_one_value(tmp_path):
    x = inner("i8")
    x[:, 0], x[:11, 1] = 2**60 + 1, 2**61 + 1
    name, output = store(tmp_path, "x", x), tmp_path / "y.npy"
    normcli.apply(name, output, **ROBUST)
    y = np.load(output)
    np.testing.assert_allclose(y, exactly(x, "batch"), rtol=1e-14, atol=1e-15)
    assert not y[:, :2].any()
    normcli.apply(
        output, tmp_path / "b.npy", stats=f"{output}.stats.json", inverse=True, dtype="i8"
    )
    back = np.load(tmp_path / "b.npy")
    assert (back[:, 0] == 2**60 + 1).all()
    assert (back[:, 1] == 2**61 + 1).all()
    normcli.apply(name, tmp_path / "s.npy", convention="sklearn", **ROBUST)
    want = (x[:, 1] - (2**61 + 1)).astype("f8")
    np.testing.assert_array_equal(np.load(tmp_path / "s.npy")[:, 1], want)


def test_quantiles_among_the_outermost_integers_are_refused(tmp_path):
    x = integers("i8")
    name = store(tmp_path, "x", x, "zarr3", (3, 4, 30))
    fitted = normcli.fit(name, tmp_path / "s.json", **ROBUST)
    known = [True, False, False, True]
    np.testing.assert_array_equal(moments(fitted).known, known)
    with pytest.raises(DataPolicyError, match=r"beyond 2\*\*53"):
        fitted.normalize(x)
    with pytest.raises(DataPolicyError, match=r"beyond 2\*\*53"):
        normcli.apply(name, tmp_path / "y.npy", stats=tmp_path / "s.json")
    with pytest.raises(DataPolicyError, match=r"beyond 2\*\*53"):
        normcli.learn(name, name, stats=tmp_path / "s.json")
    # Where float64 resolves the spread, that of a wide one does.
    wide = np.random.default_rng(1).integers(0, 2**64, (400, 3), "u8")
    wide[:, 1] |= 2**63 | 2**62 | 2**61 | 2**60
    options = {"layout": "NC", "method": "robust"}
    wide_name = store(tmp_path, "wide", wide, "zarr3", (30, 3))
    normcli.apply(wide_name, tmp_path / "w.npy", **options, quantiles=(0, 100))
    low, center, high = np.quantile(wide.astype("f8"), [0, 0.5, 1], axis=0)
    want = (wide.astype("f8") - center) / (high - low)
    np.testing.assert_allclose(np.load(tmp_path / "w.npy"), want, rtol=1e-9, atol=1e-12)
    # Groups that a block holds whole are ordered themselves, without an image.
    options = {**ROBUST, "mode": "instance"}
    normcli.apply(store(tmp_path, "own", x), tmp_path / "o.npy", **options)
    np.testing.assert_allclose(
        np.load(tmp_path / "o.npy"), exactly(x, "instance"), rtol=1e-14, atol=1e-15
    )


def test_ordinary_integers_have_the_sidecars_that_they_had(tmp_path):
    x = np.random.default_rng(0).integers(-1000, 1000, (200, 3))
    options = {"layout": "NC", "method": "robust"}
    sidecars = []
    for dtype in ("i8", "f8", "i4"):
        path = tmp_path / f"{dtype}.npz"
        normcli.fit(store(tmp_path, dtype, x.astype(dtype)), path, **options)
        sidecars.append(read_bundle(str(path)))
    for bundle in sidecars:
        assert bundle.attrs["schema_version"] == 1
        assert set(bundle.arrays) == set(sidecars[1].arrays)
        for name, values in bundle.arrays.items():
            np.testing.assert_array_equal(values, sidecars[1].arrays[name], name)


def earlier(path, target) -> None:
    """Make of a sidecar what an earlier version wrote: sketches of rounded integers."""
    statistics = read_statistics(str(path))
    sketches = statistics.moments.sketches.of_floats()
    bundle = read_bundle(str(path))
    arrays = {k: v for k, v in bundle.arrays.items() if not k.endswith("_rest")}
    arrays["sketches"] = np.frombuffer(b"".join(sketches.images.flat), np.uint8)
    lower, center, upper = sketches.quantiles()
    arrays |= {"lower": lower, "center": center, "upper": upper, "spread": upper - lower}
    attrs = {k: v for k, v in bundle.attrs.items() if k != "sketch_items"}
    write_bundle(str(target), type(bundle)(arrays, {**attrs, "schema_version": 1}), False)


def test_sidecars_of_earlier_versions(tmp_path):
    x = inner("i8")
    name = store(tmp_path, "x", x)
    normcli.fit(name, tmp_path / "s.npz", **ROBUST)
    assert read_bundle(str(tmp_path / "s.npz")).attrs["schema_version"] == 3
    earlier(tmp_path / "s.npz", tmp_path / "e.npz")
    with pytest.raises(DataPolicyError, match=r"beyond 2\*\*53"):
        normcli.apply(name, tmp_path / "y.npy", stats=tmp_path / "e.npz")
    # What it rounded stays rounded, whatever is merged with it.
    more = store(tmp_path, "more", x + 1)
    union = normcli.fit(more, tmp_path / "u.npz", update=tmp_path / "e.npz")
    assert not isinstance(union.statistics.moments, WideQuantileMoments)
    with pytest.raises(DataPolicyError, match=r"beyond 2\*\*53"):
        union.normalize(x)
    # Where float64 resolves them, both work as they did.
    wide = np.random.default_rng(1).integers(-(2**62), 2**62, (300, 3))
    options = {"layout": "NC", "method": "robust"}
    normcli.fit(store(tmp_path, "w", wide), tmp_path / "w.npz", **options)
    earlier(tmp_path / "w.npz", tmp_path / "v.npz")
    union = normcli.fit(store(tmp_path, "w2", wide[::2] // 3), update=tmp_path / "v.npz")
    both = np.concatenate([wide, wide[::2] // 3]).astype("f8")
    np.testing.assert_allclose(union.center, np.median(both, axis=0), rtol=1e-15)
    assert np.isfinite(union.normalize(wide)).all()


def test_integers_of_an_earlier_version_that_were_not_rounded(tmp_path):
    x = inner("i8")
    ordinary = x % 1000
    normcli.fit(store(tmp_path, "a", ordinary), tmp_path / "a.npz", **ROBUST)
    assert read_bundle(str(tmp_path / "a.npz")).attrs["schema_version"] == 1
    more = normcli.fit(store(tmp_path, "b", x), update=tmp_path / "a.npz")
    one = normcli.fit(store(tmp_path, "c", np.concatenate([ordinary, x])), **ROBUST)
    same(moments(more), moments(one))


def damaged(path, change) -> None:
    bundle = read_bundle(str(path))
    arrays, attrs = dict(bundle.arrays), dict(bundle.attrs)
    change(arrays, attrs)
    shutil.rmtree(path, ignore_errors=True)
    path.unlink(missing_ok=True)
    write_bundle(str(path), type(bundle)(arrays, attrs), False)


DAMAGE = {
    "a rest beyond a rounding": lambda arrays, _: arrays["center_rest"].__setitem__(0, 1e6),
    "another rest": lambda arrays, _: arrays["center_rest"].__setitem__(
        0, arrays["center_rest"][0] + 1
    ),
    "not all rests": lambda arrays, _: arrays.pop("lower_rest"),
    "elements themselves": lambda _, attrs: attrs.pop("sketch_items"),
    "of a float": lambda _, attrs: attrs["source"].update(dtype="<f8"),
    "of other integers": lambda _, attrs: attrs["source"].update(dtype="<u8"),
}


@pytest.mark.parametrize("change", DAMAGE.values(), ids=DAMAGE)
def test_a_sidecar_that_was_changed_is_refused(tmp_path, change):
    path = tmp_path / "s.npz"
    normcli.fit(store(tmp_path, "x", inner("i8")), path, **ROBUST)
    damaged(path, change)
    with pytest.raises(InputError):
        read_statistics(str(path))


def test_the_commands(tmp_path):
    x = inner("i8")
    name, path = store(tmp_path, "x", x), tmp_path / "s.json"
    normcli.fit(name, path, **ROBUST)
    jsonschema = pytest.importorskip("jsonschema")
    with open(SCHEMA) as file:
        jsonschema.validate(json.loads(path.read_text()), json.load(file))
    assert b"center + center_rest" in call("inspect", path).out
    center, rest = (
        np.array(json.loads(call("extract", path, what, "--json").out))
        for what in ("center", "center-rest")
    )
    for channel in range(4):
        want = quantile(sorted(x[:, channel].ravel().tolist()), 0.5)
        assert Fraction(center[channel]) + Fraction(rest[channel]) == want
    for target in ("torch", "sklearn", "kaldi"):
        ended = call("convert", path, "-o", tmp_path / f"{target}.txt", "--to", target)
        assert ended.code in (2, 7), ended.err


def test_learning_takes_the_integers(tmp_path):
    x = inner("i8")
    z = exactly(x, "batch")
    target = z * np.array([2.0, 3.0, -1.0, 0.5])[:, None] + 7
    name = store(tmp_path, "x", x)
    normcli.fit(name, tmp_path / "s.json", **ROBUST)
    learned = normcli.learn(name, store(tmp_path, "t", target), stats=tmp_path / "s.json")
    np.testing.assert_allclose(learned.affine.scale, [2, 3, -1, 0.5], rtol=1e-12)
    np.testing.assert_allclose(learned.affine.bias, 7, rtol=1e-12)
