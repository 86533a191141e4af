"""Extremes of integers beyond 2**53: minmax and maxabs against Python's integers."""

from __future__ import annotations

import json
from fractions import Fraction

import numpy as np
import pytest

import normcli
from normcli.errors import DataPolicyError, InputError
from tests.cli.terminal import call
from tests.examples import pairs

from .stores import hold_groups, store
from .wide_cases import LAYOUT, MODES, SHAPE, groups, integers

SUFFIXES = ("json", "npz", "h5", "zarr", "safetensors")


def exactly(x: np.ndarray, mode: str, method: str, low: int = 0, high: int = 1) -> np.ndarray:
    """Normalize by rational numbers alone."""
    flat, out = x.reshape(-1), np.empty(x.size)
    for places in groups(x, mode):
        values = [Fraction(value) for value in flat[places].tolist()]
        least, most = min(values), max(values)
        if method == "maxabs":
            out[places] = [float(v / max(-least, most)) for v in values]
        else:
            spread = (most - least) / (high - low) or 1
            out[places] = [float((v - least) / spread + low) for v in values]
    return out.reshape(x.shape)


@pytest.mark.parametrize(
    ("dtype", "mode"),
    [
        # By turns: each type and each mode is in the fast cut.
        pytest.param(dtype, mode, marks=[] if (i + j) % 2 == 0 else [pytest.mark.slow])
        for i, dtype in enumerate(["i8", "u8"])
        for j, mode in enumerate(MODES)
    ],
)
def test_minmax_of_integers_beyond_2_53(tmp_path, dtype, mode):
    x = integers(dtype, wide=mode == "batch")
    name, output = store(tmp_path, "x", x), tmp_path / "y.npy"
    options = {"layout": LAYOUT, "method": "minmax", "range": (-1, 3), **MODES[mode][0]}
    normcli.apply(name, output, **options)
    y = np.load(output)
    np.testing.assert_allclose(y, exactly(x, mode, "minmax", -1, 3), rtol=0, atol=1e-15)
    for kind in SUFFIXES:
        fitted = normcli.fit(name, tmp_path / f"s.{kind}", **options)
        normcli.apply(name, tmp_path / f"{kind}.npy", stats=tmp_path / f"s.{kind}")
        np.testing.assert_array_equal(np.load(tmp_path / f"{kind}.npy"), y)
        np.testing.assert_array_equal(fitted.normalize(x), y)
    for stats in (f"{output}.stats.json", tmp_path / "s.zarr"):
        normcli.apply(
            output, tmp_path / "b.npy", stats=stats, inverse=True, dtype=dtype, overwrite=True
        )
        back = np.load(tmp_path / "b.npy").reshape(-1).tolist()
        flat = x.reshape(-1).tolist()
        for places in groups(x, mode):
            spread = max(flat[i] for i in places) - min(flat[i] for i in places)
            bound = 1e-15 * spread if spread > 10**14 else 0
            assert max(abs(flat[i] - back[i]) for i in places) <= bound
    for path in (output, tmp_path / "s.json"):
        ended = call("verify", str(path))
        assert ended.code == 0, ended.err
    ended = call("check", str(tmp_path / "s.npz"), name)
    assert ended.code == 0, ended.err


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", ["i8", "u8"])
def test_maxabs_of_integers_beyond_2_53(tmp_path, dtype, mode):
    """Nothing is subtracted, so that each quotient is right to two roundings."""
    x = integers(dtype, wide=mode == "batch")
    options = {"layout": LAYOUT, "method": "maxabs", **MODES[mode][0]}
    normcli.apply(store(tmp_path, "x", x), tmp_path / "y.npy", **options)
    want = exactly(x, mode, "maxabs")
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), want, rtol=4e-16)


@pytest.mark.parametrize(("mode", "suffix"), pairs(MODES, SUFFIXES))
def test_any_cut_gives_the_same_bits(tmp_path, mode, suffix):
    x = integers("u8", wide=True)
    options = {"layout": LAYOUT, "method": "minmax", **MODES[mode][0]}
    one = normcli.fit(store(tmp_path, "x", x), tmp_path / "one.npz", **options)
    normcli.apply(tmp_path / "x.npy", tmp_path / "y.npy", workers=1, **options)
    y = (tmp_path / "y.npy").read_bytes()
    cut = store(tmp_path, "cut", x, "zarr3", (1, 4, 7))
    normcli.apply(cut, tmp_path / "z.npy", workers=3, memory="90MiB", **options)
    assert (tmp_path / "z.npy").read_bytes() == y
    parts = [tmp_path / f"part{i}.{suffix}" for i in (1, 2, 3)]
    for i, path in enumerate(parts, 1):
        normcli.fit(cut, path, part=f"{i}/3", **options)
    merged = normcli.merge([str(path) for path in reversed(parts)], tmp_path / f"all.{suffix}")
    found = [merged, normcli.read_statistics(tmp_path / f"all.{suffix}")]
    if mode == "batch":
        normcli.fit(store(tmp_path, "a", x[:5]), tmp_path / f"a.{suffix}", **options)
        found.append(normcli.fit(store(tmp_path, "b", x[5:]), update=tmp_path / f"a.{suffix}"))
    for other in found:
        moments, own = other.statistics.moments, one.statistics.moments
        assert type(moments) is type(own)
        for name in own.names():
            np.testing.assert_array_equal(getattr(moments, name), getattr(own, name))
    normcli.apply(cut, tmp_path / "w.npy", stats=tmp_path / f"all.{suffix}")
    assert (tmp_path / "w.npy").read_bytes() == y


def test_constant_groups_return_to_themselves(tmp_path):
    x = np.full(SHAPE, 17 * 10**17 + 3)
    x[0, 0, 0] += 1
    options = {"layout": LAYOUT, "method": "minmax"}
    normcli.apply(store(tmp_path, "x", x), tmp_path / "y.npy", **options)
    y = np.load(tmp_path / "y.npy")
    assert (y[0, 0, 0], y.sum()) == (1.0, 1.0)
    normcli.apply(
        tmp_path / "y.npy", tmp_path / "b.npy", stats=tmp_path / "y.npy.stats.json",
        inverse=True, dtype="i8",
    )  # fmt: skip
    np.testing.assert_array_equal(np.load(tmp_path / "b.npy"), x)


def test_more_groups_than_memory_holds(tmp_path, monkeypatch):
    hold_groups(monkeypatch, 30)
    x = integers("i8")
    name = store(tmp_path, "x", x)
    options = {"layout": LAYOUT, "mode": "instance", "method": "minmax"}
    normcli.apply(name, tmp_path / "y.npy", stats_out=tmp_path / "y.zarr", **options)
    want = exactly(x, "instance", "minmax")
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), want, rtol=0, atol=1e-15)
    normcli.fit(name, tmp_path / "s.zarr", **options)
    normcli.apply(name, tmp_path / "z.npy", stats=tmp_path / "s.zarr")
    assert (tmp_path / "z.npy").read_bytes() == (tmp_path / "y.npy").read_bytes()
    assert call("check", str(tmp_path / "s.zarr"), name).code == 0
    normcli.apply(
        tmp_path / "y.npy", tmp_path / "b.npy", stats=tmp_path / "y.zarr", inverse=True, dtype="i8"
    )
    np.testing.assert_array_equal(np.load(tmp_path / "b.npy"), x)


def test_a_chunk_that_is_not_stored(tmp_path):
    import zarr

    x = integers("i8")
    array = zarr.create_array(
        tmp_path / "x.zarr", shape=SHAPE, chunks=(3, 4, 30), dtype="i8", fill_value=7
    )
    array[:6] = x[:6]
    options = {"layout": LAYOUT, "method": "minmax", "missing": "omit"}
    normcli.apply(tmp_path / "x.zarr", tmp_path / "y.npy", **options)
    want = exactly(x[:6], "batch", "minmax")
    np.testing.assert_allclose(np.load(tmp_path / "y.npy")[:6], want, rtol=0, atol=1e-15)


def test_sidecars_without_exact_extremes_are_refused(tmp_path):
    path, name = tmp_path / "s.json", store(tmp_path, "x", integers("i8"))
    normcli.fit(name, path, layout=LAYOUT, method="minmax")
    document = json.loads(path.read_text())
    for lost in ("minimum_rest", "maximum_rest"):
        del document["arrays"][lost]
    path.write_text(json.dumps(document))
    with pytest.raises(DataPolicyError, match=r"beyond 2\*\*53"):
        normcli.apply(name, tmp_path / "y.npy", stats=path)


@pytest.mark.parametrize(
    ("name", "value"),
    [("minimum_rest", 1e6), ("maximum_rest", 0.5), ("minimum_rest", 129), ("maximum_rest", None)],
)
def test_extremes_that_belong_to_other_data(tmp_path, name, value):
    path = tmp_path / "s.json"
    normcli.fit(store(tmp_path, "x", integers("i8")), path, layout=LAYOUT, method="minmax")
    document = json.loads(path.read_text())
    if value is None:
        del document["arrays"][name]
    else:
        document["arrays"][name]["data"][0] = value
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match=r"rest"):
        normcli.read_statistics(path)


def test_small_integers_have_no_rests(tmp_path):
    x = np.arange(72).reshape(6, 3, 4)
    normcli.fit(store(tmp_path, "x", x), tmp_path / "s.json", layout=LAYOUT, method="minmax")
    assert not any("rest" in k for k in json.loads((tmp_path / "s.json").read_text())["arrays"])


def test_minmax_at_the_end_of_the_integers_that_float64_has(tmp_path):
    # 2**53 + 1 is rounded to 2**53, with which nothing need have been rounded.
    x = np.array([[2**53 - 3, 2**53 - 1], [2**53 - 2, 2**53], [2**53 - 1, 2**53 + 1]])
    for rows, most in ((slice(0, 2), 2**53), (slice(0, 3), 2**53 + 1)):
        name = store(tmp_path, f"edge{most}", x[rows])
        normcli.apply(name, tmp_path / f"{most}.npy", layout="NU", mode="batch", method="minmax")
        y = np.load(tmp_path / f"{most}.npy")
        low = 2**53 - 3
        np.testing.assert_array_equal(y, (x[rows] - low) / float(most - low))
