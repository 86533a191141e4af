"""lp in files: against numpy, scikit-learn and PyTorch, however stored, cut, merged and resumed."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import normcli
from normcli.domain.norm_moments import NormMoments
from normcli.errors import DataPolicyError, InputError, UsageError
from normcli.kernels import select
from tests.cli.terminal import call

from .method_cases import CHUNKS, SUFFIXES, X, assert_refused, of_groups
from .stores import STORAGES, hold_groups, load, store, suffix
from .test_properties import MODES, MORE, folder, inputs

POWERS = [1.0, 2.0, np.inf, 3.0, 1.5, 7.25]


def norms(fitted: normcli.FittedStatistics) -> np.ndarray:
    held = fitted.statistics.moments
    assert isinstance(held, NormMoments)
    return held.norm


def norm_of(x: np.ndarray, p: float, axes: tuple[int, ...]) -> np.ndarray:
    """The norm of the finite elements of each group, by numpy alone, scaled by the largest."""
    wide = np.abs(np.where(np.isfinite(x), x.astype("f8"), 0.0))
    most = wide.max(axes, keepdims=True)
    if np.isinf(p):
        return most
    scale = np.where(most == 0, 1, most)
    return scale * ((wide / scale) ** p).sum(axes, keepdims=True) ** (1 / p) * (most > 0)


def by_hand(layout, x, mode, p) -> np.ndarray:
    (norm,) = of_groups(layout, x, mode, lambda values, axes: [norm_of(values, p, axes)])
    return x.astype("f8") / np.where(norm == 0, 1, norm)


@given(inputs(), st.sampled_from(sorted(set(MODES) - {"rms", "std"})), st.data())
@MORE
def test_any_chunks_storage_and_budget(made, mode, data):
    layout, x = made
    p = data.draw(st.sampled_from(POWERS))
    options = {"layout": layout, "method": "lp", "p": p, **MODES[mode]}
    source, target = (data.draw(st.sampled_from(STORAGES)) for _ in range(2))
    chunks = tuple(data.draw(st.integers(1, n)) for n in x.shape)
    with folder() as place:
        name, output = store(place, "x", x, source, chunks), place / f"y{suffix(target)}"
        workers = data.draw(st.integers(1, 3))
        normcli.apply(name, output, memory="10MiB", workers=workers, dtype="float64", **options)
        np.testing.assert_allclose(load(output), by_hand(layout, x, mode, p), rtol=1e-13)
        kind = data.draw(st.sampled_from(SUFFIXES))
        fitted = normcli.fit(name, place / f"s{kind}", workers=4 - workers, **options)
        normcli.apply(name, place / "again.npy", stats=place / f"s{kind}", dtype="float64")
        # However it is cut: the powers are summed without rounding.
        np.testing.assert_array_equal(np.load(place / "again.npy"), load(output))
        np.testing.assert_array_equal(fitted.normalize(x, dtype="float64"), load(output))
        normcli.apply(
            output, place / "back.npy", stats=f"{output}.stats.json", inverse=True, dtype="float64"
        )
        np.testing.assert_allclose(np.load(place / "back.npy"), x.astype("f8"), rtol=1e-15)


@pytest.mark.parametrize("dtype", ["f4", "f8", "i2", "i1", "u1"])
@pytest.mark.parametrize(("p", "norm"), [(1, "l1"), (2, "l2"), (np.inf, "max")])
def test_the_numbers_of_normalizer(tmp_path, dtype, p, norm):
    normalizer = pytest.importorskip("sklearn.preprocessing").Normalizer
    x = np.random.default_rng(1).normal(2, 50, (40, 8)).astype(dtype)
    x[3] = 0
    if dtype == "i1":
        x[5, 0] = -128
    for convention in (None, "sklearn"):
        options = {"layout": "NC", "mode": "layer", "method": "lp", "p": p, "dtype": "float64"}
        output = tmp_path / f"{convention}.npy"
        normcli.apply(store(tmp_path, "x", x), output, convention=convention, **options)
        want = normalizer(norm).fit_transform(x.astype("f8"))
        np.testing.assert_allclose(np.load(output), want, rtol=1e-15)
        assert not np.load(output)[3].any()


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_scikit_learn_divides_norms_near_zero_by_one(tmp_path, dtype):
    normalizer = pytest.importorskip("sklearn.preprocessing").Normalizer
    size = 1e-7 if dtype == "f4" else 1e-16
    x = np.random.default_rng(1).uniform(1, 2, (9, 4)).astype(dtype) * np.dtype(dtype).type(size)
    x[4:] *= np.dtype(dtype).type(1e6)
    options = {"layout": "NC", "mode": "layer", "method": "lp", "p": 1, "convention": "sklearn"}
    normcli.apply(store(tmp_path, "x", x), tmp_path / "y.npy", **options)
    want = normalizer("l1").fit_transform(x)
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), want, rtol=1e-6)
    assert np.load(tmp_path / "y.npy")[0].max() < 1e-6


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0, 2.5, np.inf])
@pytest.mark.parametrize("epsilon", [None, 0.5])
def test_the_numbers_of_torch_normalize(tmp_path, p, epsilon):
    torch = pytest.importorskip("torch")
    x = X.astype("f8")
    x[1], x[2] = 0, x[2] * 1e-14
    options = {"layout": "NCHW", "mode": "custom", "aggregate": "C", "method": "lp", "p": p}
    options |= {"convention": "torch"} if epsilon is None else {"epsilon": epsilon}
    normcli.apply(store(tmp_path, "x", x), tmp_path / "y.npy", **options)
    more = {} if epsilon is None else {"eps": epsilon}
    want = torch.nn.functional.normalize(torch.from_numpy(x), p=p, dim=1, **more).numpy()
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), want, rtol=1e-13)
    stats = tmp_path / "y.npy.stats.json"
    normcli.apply(tmp_path / "y.npy", tmp_path / "b.npy", stats=stats, inverse=True)
    np.testing.assert_allclose(np.load(tmp_path / "b.npy"), x, rtol=1e-14)


def test_the_epsilon_of_keras_unit_normalization(tmp_path):
    x = np.array([[3e-7, 4e-7], [3.0, 4.0]])
    options = {"layout": "NC", "mode": "layer", "method": "lp", "convention": "keras"}
    normcli.apply(store(tmp_path, "x", x), tmp_path / "y.npy", **options)
    # keras: x * rsqrt(max(sum(x**2), 1e-12))
    want = x / np.sqrt(np.maximum((x * x).sum(1, keepdims=True), 1e-12))
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), want, rtol=1e-14)


@given(
    st.lists(st.floats(-1e150, 1e150, width=64), min_size=1, max_size=30),
    st.sampled_from([1, 2]),
)
def test_norms_are_near_the_exact_ones(values, p):
    x = np.array([values])
    largest = np.abs(x).max()
    if 0 < largest < 1e-130:
        return
    with folder() as place:
        np.save(place / "x.npy", x)
        fitted = normcli.fit(place / "x.npy", layout="NC", mode="layer", method="lp", p=p)
    if p == 1:
        exact = float(sum(abs(Fraction(value)) for value in values))
    else:
        squares = sum(Fraction(value) ** 2 for value in values)
        scale = Fraction(largest) if largest else Fraction(1)
        exact = float(scale) * float(squares / scale / scale) ** 0.5
    np.testing.assert_allclose(norms(fitted), exact, rtol=2e-15)


def test_magnitudes_whose_squares_leave_float64_by_their_sum(tmp_path):
    # The sum of squares is above 1.8e308, the norm is not.
    x = np.full((2, 1000), 8e153)
    fitted = normcli.fit(store(tmp_path, "x", x), layout="NC", mode="layer", method="lp", p=2)
    np.testing.assert_allclose(norms(fitted), 8e153 * np.sqrt(1000), rtol=1e-15)


@pytest.mark.parametrize(
    ("size", "p"), [(1e200, 2.5), (1e40, 9), (1e-200, 3), (1e-40, 9), (1e300, 1e3)]
)
def test_powers_that_leave_float64(tmp_path, size, p):
    x = X[0, 0].astype("f8") * size
    options = {"layout": "NC", "mode": "layer", "method": "lp", "p": p}
    name = store(tmp_path, "x", x)
    normcli.apply(name, tmp_path / "y.npy", **options)
    want = x / norm_of(x, p, (1,))
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), want, rtol=1e-13)


@pytest.mark.parametrize("size", [1e300, 1e-200])
def test_powers_of_a_very_large_p_are_refused(tmp_path, size):
    options = {"layout": "NC", "mode": "layer", "method": "lp", "p": 1001}
    name = store(tmp_path, "x", X[0, 0].astype("f8") * size)
    with pytest.raises(DataPolicyError, match=r"leaves? float64"):
        normcli.apply(name, tmp_path / "y.npy", **options)
    assert not (tmp_path / "y.npy").exists()


@pytest.mark.parametrize("p", [1, 3])
@pytest.mark.parametrize("workers", [1, 3])
def test_any_cut_gives_the_same_bits(tmp_path, p, workers):
    x = np.random.default_rng(4).normal(10, 2, (3, 400_000)).astype("f4")
    name = store(tmp_path, "x", x, "zarr3", (2, 37_000))
    options = {"layout": "NC", "mode": "layer", "method": "lp", "p": p}
    fused = normcli.apply(name, tmp_path / "fused.npy", memory="1GiB", **options)
    cut = normcli.apply(name, tmp_path / "cut.npy", memory="12MiB", workers=workers, **options)
    assert (fused.passes, cut.passes) == (1, 2)
    assert (tmp_path / "fused.npy").read_bytes() == (tmp_path / "cut.npy").read_bytes()
    np.testing.assert_allclose(
        np.load(tmp_path / "cut.npy"), by_hand("NC", x, "layer", p), rtol=1e-6
    )


@pytest.mark.parametrize("mode", ["batch", "instance", "layer", "group", "everything"])
@pytest.mark.parametrize("p", [1.0, 2.0, 3.0, np.inf])
def test_compiled_kernels_give_the_same_numbers(tmp_path, monkeypatch, p, mode):
    pytest.importorskip("numba")
    x = X.copy()
    x[0, 1, 2, 3], x[1, 3] = np.nan, 0
    options = {"layout": "NCHW", "method": "lp", "p": p, "dtype": "float64", **MODES[mode]}
    name, kernels = store(tmp_path, "x", x), []
    for small in (select.SMALL, 0):
        monkeypatch.setattr(select, "SMALL", small)
        kernels.append(normcli.apply(name, tmp_path / f"{small}.npy", **options).kernel)
    assert kernels == ["numpy", "numba"]
    a, b = (tmp_path / f"{small}.npy" for small in (256 * 2**20, 0))
    assert a.read_bytes() == b.read_bytes()
    np.testing.assert_allclose(np.load(a), by_hand("NCHW", x, mode, p), rtol=1e-13)


def test_more_groups_than_memory_holds(tmp_path, monkeypatch):
    # A million by itself: test_properties.py.
    hold_groups(monkeypatch, 150_000)
    x = np.random.default_rng(1).normal(3, 2, (150_100, 3)).astype("f4")
    x[7] = 0
    name = store(tmp_path, "x", x)
    options = {"layout": "NC", "mode": "layer", "method": "lp", "p": 1}
    normcli.fit(name, tmp_path / "s.zarr", **options)
    want = by_hand("NC", x, "layer", 1)
    normcli.apply(name, tmp_path / "y.npy", stats=tmp_path / "s.zarr")
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), want, rtol=2e-7)
    normcli.apply(name, tmp_path / "z.npy", **options)
    assert (tmp_path / "y.npy").read_bytes() == (tmp_path / "z.npy").read_bytes()
    normcli.apply(tmp_path / "y.npy", tmp_path / "b.npy", stats=tmp_path / "s.zarr", inverse=True)
    np.testing.assert_allclose(np.load(tmp_path / "b.npy"), x, rtol=2e-7)


@pytest.mark.parametrize("p", POWERS)
def test_parts_and_updates_give_what_one_fit_gives(tmp_path, p):
    name = store(tmp_path, "x", X, "zarr3", CHUNKS)
    options = {"layout": "NCHW", "method": "lp", "p": p}
    whole = normcli.fit(name, **options)
    parts = [tmp_path / f"{i}.json" for i in (1, 2, 3)]
    for i, path in enumerate(parts):
        normcli.fit(name, path, part=f"{i + 1}/3", **options)
    first, second = store(tmp_path, "a", X[:9]), store(tmp_path, "b", X[9:])
    normcli.fit(first, tmp_path / "first.json", **options)
    updated = normcli.fit(second, update=tmp_path / "first.json")
    for other in (normcli.merge(parts), updated):
        assert other.statistics.spec == whole.statistics.spec
        if p in (2, np.inf):
            # These follow from the exact sums that sidecars keep.
            np.testing.assert_array_equal(norms(other), norms(whole))
        np.testing.assert_allclose(norms(other), norms(whole), rtol=2e-15)


@pytest.mark.parametrize("kind", SUFFIXES)
@pytest.mark.parametrize("p", [1.0, 2.5, np.inf])
def test_every_sidecar_keeps_all(tmp_path, kind, p):
    name, path = store(tmp_path, "x", X), tmp_path / f"s{kind}"
    fitted = normcli.fit(name, path, layout="NCHW", mode="instance", method="lp", p=p)
    again = normcli.read_statistics(path)
    assert again.statistics.spec == fitted.statistics.spec
    assert norms(again).tobytes() == norms(fitted).tobytes()
    assert again.normalize(X).tobytes() == fitted.normalize(X).tobytes()
    assert float(call("extract", str(path), "p").text) == p
    held = np.array(call("extract", str(path), "norm").text.split(), "f8")
    np.testing.assert_array_equal(held, norms(fitted).reshape(-1))
    assert f"method lp of p {p:g}" in call("inspect", str(path)).text
    said = json.loads(call("inspect", str(path), "--json").text)["spec"]["p"]
    assert said == ("inf" if np.isinf(p) else p)
    assert call("verify", str(path)).code == 0
    assert call("check", str(path), name).code == 0


@pytest.mark.parametrize("p", [1.0, np.inf])
def test_the_schema_and_the_python_face(tmp_path, p):
    jsonschema = pytest.importorskip("jsonschema")
    path = tmp_path / "s.json"
    fitted = normcli.fit(store(tmp_path, "x", X), path, layout="NCHW", method="lp", p=p)
    folder = Path(normcli.__file__).parents[1]
    schema = json.loads((folder / "docs" / "statistics.schema.json").read_text())
    jsonschema.validate(json.loads(path.read_text()), schema)
    np.testing.assert_array_equal(fitted.norm, norms(fitted))
    with pytest.raises(UsageError, match="method lp hold no such numbers"):
        fitted.center  # noqa: B018


def test_the_policies_of_nan(tmp_path):
    x = X.astype("f8")
    x[1, 2, 3, 4], x[2, 2, 0, 0], x[:, 4] = np.nan, np.inf, np.nan
    name = store(tmp_path, "x", x)
    options = {"layout": "NCHW", "method": "lp", "p": 1}
    normcli.apply(name, tmp_path / "omit.npy", **options)
    y, bad = np.load(tmp_path / "omit.npy"), ~np.isfinite(x)
    np.testing.assert_array_equal(~np.isfinite(y), bad)
    want = by_hand("NCHW", x[:, :4], "batch", 1)
    np.testing.assert_allclose(y[:, :4][~bad[:, :4]], want[~bad[:, :4]], rtol=1e-13)
    normcli.apply(name, tmp_path / "p.npy", nonfinite="propagate", **options)
    p = np.load(tmp_path / "p.npy")
    assert np.isnan(p[:, [2, 4]]).all()
    np.testing.assert_array_equal(p[:, [0, 1, 3, 5]], y[:, [0, 1, 3, 5]])
    with pytest.raises(DataPolicyError, match="NaN or infinite"):
        normcli.apply(name, tmp_path / "e.npy", nonfinite="error", **options)


def test_constant_groups_are_told_of(tmp_path):
    x = X.copy()
    x[:, 1], x[:, 2] = 6, 0
    name = store(tmp_path, "x", x)
    ended = call("fit", name, "-o", str(tmp_path / "l.json"), "--layout", "NCHW", "--method", "lp")
    assert "those of zeros stay 0, others are divided by their norm" in " ".join(ended.err.split())
    ended = call("fit", name, "-o", str(tmp_path / "r.json"), "--layout", "NCHW", "--method", "rms")
    words = " ".join(ended.err.split())
    assert "those of zeros become their bias, others are divided by their magnitude" in words
    # Which is what an apply makes of them.
    fitted = normcli.read_statistics(tmp_path / "r.json")
    y = fitted.normalize(x, dtype="float64")
    np.testing.assert_allclose(y[:, 1], 1, rtol=1e-6)
    assert not y[:, 2].any()


REFUSED = [
    ({"method": "zscore", "p": 2}, "belongs to --method lp"),
    ({"method": "lp", "range": (0, 1)}, "belongs to --method minmax"),
    ({"method": "lp", "quantiles": (5, 95)}, "belongs to --method robust"),
    ({"method": "lp", "p": 0.5}, "--p 0.5 makes no norm"),
    ({"method": "lp", "p": -1}, "--p -1 makes no norm"),
    ({"method": "lp", "p": np.nan}, "--p nan makes no norm"),
    ({"method": "lp", "epsilon": -1.0}, "Epsilon is -1.0"),
    ({"method": "lp", "ddof": 1}, r"divides by max\(norm, E\)"),
    ({"method": "lp", "epsilon_placement": "inside"}, r"divides by max\(norm, E\)"),
]


@pytest.mark.parametrize(("options", "words"), REFUSED, ids=str)
def test_refused(tmp_path, options, words):
    assert_refused(tmp_path, options, words)


def test_what_norms_do_not_have_is_refused(tmp_path):
    name, out = store(tmp_path, "x", X), tmp_path / "y.npy"
    np.save(tmp_path / "m.npy", np.ones(6))
    with pytest.raises(UsageError, match="Moving statistics are a mean and a variance"):
        normcli.fit(name, layout="NCHW", method="lp", momentum=0.9, batch_size=4)
    file = tmp_path / "m.npy"
    with pytest.raises(UsageError, match="--mean and --variance hold none"):
        normcli.apply(name, out, layout="NCHW", method="lp", mean=file, variance=file)
    with pytest.raises(UsageError, match="learn does not measure what --method lp divides by"):
        normcli.learn(name, name, layout="NCHW", method="lp")
    stats = tmp_path / "s.json"
    normcli.fit(name, stats, layout="NCHW", mode="instance", method="lp")
    with pytest.raises(UsageError, match="contradicts the statistics"):
        normcli.apply(name, out, stats=stats, p=1)
    ended = call("convert", str(stats), "-o", str(tmp_path / "i.safetensors"), "--to", "torch")
    assert (ended.code, "no layer that divides each observation by a norm" in ended.err) == (7, 1)
    normcli.fit(name, tmp_path / "q.json", layout="NCHW", mode="instance", method="lp", p=1)
    with pytest.raises(InputError, match=r"has p 2\.0"):
        normcli.merge([stats, tmp_path / "q.json"])
    assert not out.exists()
    # The least norm only concerns the application.
    normcli.apply(name, out, stats=stats, epsilon=100.0)
    norm = norm_of(X, 2, (2, 3))
    np.testing.assert_allclose(np.load(out), X / np.maximum(norm, 100), rtol=1e-6)


@pytest.mark.parametrize("norm", [-1.0, 0.5, "nan", "inf"])
def test_norms_that_none_of_these_data_have_are_refused(tmp_path, norm):
    path = tmp_path / "s.json"
    normcli.fit(store(tmp_path, "x", X), path, layout="NCHW", method="lp")
    document = json.loads(path.read_text())
    document["arrays"]["norm"]["data"][3] = norm
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match="largest magnitude at"):
        normcli.read_statistics(path)


def test_the_command_line(tmp_path):
    name, output = store(tmp_path, "x", X), str(tmp_path / "y.npy")
    arguments = ["apply", name, "-o", output, "--layout", "NCHW", "--mode", "layer"]
    arguments += ["--method", "lp", "--json", "--dtype", "float64", "--p", "inf"]
    assert "plan" in json.loads(call(*arguments, "--dry-run").text)
    ended = call(*arguments)
    assert ended.code == 0, ended.err
    np.testing.assert_allclose(np.load(output), by_hand("NCHW", X, "layer", np.inf), rtol=1e-15)
    assert call(*arguments[:-1], "0").code == 2
    assert call(*arguments[:-1], "two").code == 2
