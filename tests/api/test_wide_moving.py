"""Moving statistics of integers beyond 2**53, and of squares that leave float64, exactly."""

from __future__ import annotations

import json
from fractions import Fraction

import numpy as np
import pytest

import normcli
from normcli.errors import DataPolicyError, InputError
from tests.cli.terminal import call
from tests.examples import examples, pairs

from .moving_cases import Exact, moving, normalized
from .stores import store
from .wide_cases import INTEGERS, LAYOUT, SHAPE, floats, integers

SIZES = {"equal": (4,), "uneven": (5,), "several": (3, 1, 2), "one": (12,)}
MOMENTA = {"0.9": 0.9, "0.3": 0.3, "0": 0.0, "1": 1.0, "cumulative": None}
STARTS = ("zeros-ones", "first-batch")


def given(momentum: str, size: str, start: str = "zeros-ones", **more):
    words = {"momentum": momentum, "batch_size": SIZES[size], **more}
    if momentum != "cumulative":
        words["moving_start"] = start
    return {"layout": LAYOUT, "epsilon": 0.0, **words}


def held(fitted) -> Exact:
    """Return what was kept, to the last bit."""
    found = fitted.statistics.moving
    beyond, mean, variance = found.beyond, [], []
    if beyond is None:
        return Exact(*([Fraction(v) for v in a.tolist()] for a in (found.mean, found.variance)))
    for i in range(found.mean.size):
        unit = Fraction(2) ** int(beyond.exponent[i])
        rest = Fraction(float(beyond.mean_rest[i])) * unit
        mean.append(Fraction(float(found.mean[i])) + rest)
        variance.append(Fraction(float(beyond.variance_scaled[i])) * unit**2)
    return Exact(mean, variance)


def near(found: Exact, want: Exact, of_mean: float, of_variance: float = 1e-14) -> None:
    for a, b, v in zip(found.mean, want.mean, want.variance, strict=True):
        assert (a - b) ** 2 <= Fraction(of_mean) ** 2 * v
    for a, b in zip(found.variance, want.variance, strict=True):
        assert abs(a - b) <= Fraction(of_variance) * b


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize(("momentum", "size"), pairs(MOMENTA, SIZES))
def test_integers_beyond_2_53(tmp_path, dtype, start, momentum, size):
    x = integers(dtype)
    name, output = store(tmp_path, "x", x), tmp_path / "y.npy"
    fitted = normcli.fit(name, tmp_path / "s.json", **given(momentum, size, start))
    want = moving(x, MOMENTA[momentum], SIZES[size], start)
    near(held(fitted), want, 1e-13)
    normcli.apply(name, output, stats=tmp_path / "s.json")
    y = np.load(output)
    np.testing.assert_allclose(y, normalized(x, want), rtol=1e-13, atol=1e-13)
    np.testing.assert_array_equal(fitted.normalize(x), y)
    normcli.apply(
        output, tmp_path / "b.npy", stats=tmp_path / "s.json", inverse=True, dtype=x.dtype.name
    )
    back = np.load(tmp_path / "b.npy")
    for channel in range(x.shape[1]):
        # Of a start far from the data only 53 bits of each difference are left.
        far = max(abs(float(Fraction(int(v)) - want.mean[channel])) for v in x[:, channel].flat)
        off = np.abs(back[:, channel].astype(object) - x[:, channel].astype(object)).max()
        assert off <= 4e-16 * far
        assert off == 0 or far > 1e14


@pytest.mark.parametrize("convention", [None, "torch"])
@pytest.mark.parametrize(("momentum", "size"), pairs(["0.9", "0.3", "0"], SIZES))
def test_instances_and_divisors(tmp_path, convention, momentum, size):
    options = {"moving_variance": "unbiased"}
    if convention is not None:
        options |= {"mode": "instance", "convention": convention, "epsilon": 0.0}
    old = MOMENTA[momentum]
    if convention == "torch":
        momentum, old = momentum, 1.0 - old
    for make in (lambda: integers("i8"), floats):
        x = make()
        name = store(tmp_path, "x", x)
        fitted = normcli.fit(
            name, tmp_path / "s.json", overwrite=True, **given(momentum, size, **options)
        )
        want = moving(x, old, SIZES[size], ddof=1, instances=convention is not None)
        # Of the channel of 5e-324 all that a start of 1 leaves is itself.
        near(held(fitted), want, 1e-13)
        normcli.apply(name, tmp_path / "y.npy", stats=tmp_path / "s.json", overwrite=True)
        y, exact = np.load(tmp_path / "y.npy"), normalized(x, want)
        size_of = np.abs(exact).max((0, 2), keepdims=True)
        assert np.all(np.abs(y - exact) <= 1e-13 * size_of + 1e-320)


@pytest.mark.parametrize(
    ("method", "epsilon"), pairs(["zscore", "rms", "std"], [0.0, 1e-5, 1e-290])
)
@pytest.mark.parametrize("momentum", MOMENTA)
@pytest.mark.parametrize("start", STARTS)
def test_squares_that_leave_float64(tmp_path, method, epsilon, momentum, start):
    x = floats()
    name, output = store(tmp_path, "x", x), tmp_path / "y.npy"
    options = {**given(momentum, "uneven", start), "method": method, "epsilon": epsilon}
    fitted = normcli.fit(name, tmp_path / "s.json", **options)
    want = moving(x, MOMENTA[momentum], SIZES["uneven"], start)
    normcli.apply(name, output, stats=tmp_path / "s.json")
    y, exact = np.load(output), normalized(x, want, epsilon, method)
    size = np.abs(exact).max((0, 2), keepdims=True)
    with np.errstate(invalid="ignore"):
        # A mean is a multiple of 5e-324 where the deviation is not as small.
        least = 5e-324 + np.array(
            [
                0 if v < 1e-280 else 5e-324 / (float(min(v, 1)) + epsilon) ** 0.5
                for v in want.variance
            ]
        ).reshape(1, -1, 1)
        assert np.all((np.abs(y - exact) <= 4e-15 * size + least) | (y == exact))
    np.testing.assert_array_equal(fitted.normalize(x), y)
    if epsilon == 0 and np.isfinite(y).all():
        normcli.apply(output, tmp_path / "b.npy", stats=tmp_path / "s.json", inverse=True)
        back = np.load(tmp_path / "b.npy")
        for channel in range(4):
            # A deviation of 1 makes subnormal numbers of small data, which keep few bits.
            far = Fraction(float(np.abs(x[:, channel]).max())) + abs(want.mean[channel])
            least = Fraction(5e-324) * max(1, int(want.variance[channel]))
            for a, b in zip(back[:, channel].flat, x[:, channel].flat, strict=True):
                assert abs(Fraction(float(a)) - Fraction(float(b))) <= far * Fraction(4e-15) + least


@pytest.mark.parametrize("momentum", MOMENTA)
@pytest.mark.parametrize("symmetric", [False, True])
def test_means_of_0_and_next_to_it(tmp_path, momentum, symmetric):
    """A mean that is 0, or below 5e-324, has no power of two that the unit should have room for."""
    for seed in range(max(3, examples(12))):
        x = np.random.default_rng(seed).integers(-2, 3, (12, 4, 2)).astype("f8")
        if symmetric:
            x[:, :, 1] = -x[:, :, 0] - 1.0
            x[:, :, 0] += 1.0
        x[1::5, :, 0] += 1.0 - symmetric
        x *= np.reshape([5e-324, 1e-310, 1e-250, 1.7e305], (1, 4, 1))
        name = store(tmp_path, "x", x)
        options = given(momentum, "several", "first-batch")
        fitted = normcli.fit(name, tmp_path / "s.json", overwrite=True, **options)
        want = moving(x, MOMENTA[momentum], SIZES["several"], "first-batch")
        near(held(fitted), want, 1e-14)
        if not all(want.variance):
            continue
        normcli.apply(name, tmp_path / "y.npy", stats=tmp_path / "s.json", overwrite=True)
        y, exact = np.load(tmp_path / "y.npy"), normalized(x, want)
        np.testing.assert_allclose(y, exact, rtol=0, atol=4e-15 * np.abs(exact).max())


def test_a_start_of_one_fades(tmp_path):
    """Of data of 1e-200, 256**-k is larger than their variance up to batch 165."""
    x = np.concatenate([floats()[:, 1:3, :6]] * 15)
    name = store(tmp_path, "x", x)
    for size in (1, 4):
        options = {"layout": LAYOUT, "epsilon": 0.0, "momentum": 1 / 256, "batch_size": size}
        fitted = normcli.fit(name, tmp_path / "s.json", overwrite=True, **options)
        want = moving(x, 1 / 256, (size,))
        normcli.apply(name, tmp_path / "y.npy", stats=tmp_path / "s.json", overwrite=True)
        y, exact = np.load(tmp_path / "y.npy")[:12], normalized(x[:12], want)
        largest = np.abs(exact).max((0, 2), keepdims=True)
        assert np.all(np.abs(y - exact) <= 4e-15 * largest)
        assert (fitted.statistics.moving.beyond is not None) == (size == 1)


@pytest.mark.parametrize("make", [lambda: integers("i8"), floats], ids=["ints", "floats"])
@pytest.mark.parametrize(("momentum", "start"), [*pairs(["0.9", "cumulative"], STARTS)])
def test_any_cut_and_any_turn_give_the_same_bits(tmp_path, make, momentum, start):
    x = make()
    options = given(momentum, "equal", start)
    one = normcli.fit(store(tmp_path, "x", x), tmp_path / "one.json", **options)
    for number, (chunks, workers) in enumerate([((1, 4, 7), 3), ((5, 1, 30), 2)]):
        cut = store(tmp_path, f"cut{number}", x, "zarr3", chunks)
        same(normcli.fit(cut, workers=workers, memory="90MiB", **options), one)
    for i, ends in enumerate((slice(0, 4), slice(4, 8), slice(8, 12))):
        name = store(tmp_path, f"part{i}", x[ends])
        if i:
            options = {"update": tmp_path / f"{i - 1}.json", "epsilon": 0.0}
        fitted = normcli.fit(name, tmp_path / f"{i}.json", **options)
    same(fitted, one)
    for kind in ("npz", "h5", "zarr", "safetensors"):
        one.save(tmp_path / f"s.{kind}")
        same(normcli.read_statistics(tmp_path / f"s.{kind}"), one)


def same(a, b) -> None:
    own, other = a.statistics.moving, b.statistics.moving
    np.testing.assert_array_equal(own.mean, other.mean)
    np.testing.assert_array_equal(own.variance, other.variance)
    for name in ("mean_rest", "variance_scaled", "exponent"):
        np.testing.assert_array_equal(getattr(own.beyond, name), getattr(other.beyond, name))


@pytest.mark.parametrize("make", [lambda: integers("u8"), floats], ids=["ints", "floats"])
def test_frozen_and_started_from_a_file(tmp_path, make):
    x = make()
    name = store(tmp_path, "x", x)
    normcli.fit(name, tmp_path / "pooled.json", layout=LAYOUT, epsilon=0.0)
    normcli.fit(name, tmp_path / "first.json", **given("0.9", "equal", "first-batch"))
    pooled = Exact(*zip(*(moments_of(x[:, c]) for c in range(x.shape[1])), strict=True))
    first = moving(x, 0.9, (4,), "first-batch")
    for path, start in (("pooled", pooled), ("first", first)):
        for words in ({"momentum": "0.5"}, {"momentum": "0.5", "rate_factor": 0.0}):
            options = {**words, "batch_size": 4, "moving_start": str(tmp_path / f"{path}.json")}
            fitted = normcli.fit(
                name, tmp_path / "s.json", layout=LAYOUT, epsilon=0.0, overwrite=True, **options
            )
            old = 1.0 if "rate_factor" in words else 0.5
            near(held(fitted), moving(x, old, (4,), start), 1e-13)
            same(normcli.read_statistics(tmp_path / "s.json"), fitted)
    # A mean of 0 that nothing moves is known to the last bit.
    frozen = {**given("0.9", "equal"), "rate_factor": 0.0, "overwrite": True}
    normcli.fit(name, tmp_path / "s.json", **frozen)
    normcli.apply(name, tmp_path / "y.npy", stats=tmp_path / "s.json")
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), x.astype("f8"), rtol=1e-15)


def moments_of(part: np.ndarray) -> tuple[Fraction, Fraction]:
    values = [Fraction(v) for v in part.ravel().tolist()]
    mean = sum(values) / len(values)
    return mean, sum((v - mean) ** 2 for v in values) / len(values)


def test_what_is_ordinary_is_left_as_it_was(tmp_path):
    """Beside channels that need more, and alone: the bits of the formula in float64."""
    wide = np.random.default_rng(1)
    for dtype, beyond in (("i8", 17 * 10**17), ("f8", 1e300)):
        x = wide.integers(-(2**40), 2**40, SHAPE).astype(dtype)
        name = store(tmp_path, f"o{dtype}", x)
        for momentum in ("0.9", "0.3", "cumulative"):
            options = given(momentum, "several")
            path = tmp_path / f"{dtype}{momentum}.json"
            alone = normcli.fit(name, path, **options).statistics.moving
            document = json.loads(path.read_text())
            assert alone.beyond is None
            assert not {k for k in document["arrays"] if k.startswith("moving_")} - {
                "moving_mean", "moving_variance",
            }  # fmt: skip
            assert document["schema_version"] == 1
            mixed = x.copy()
            mixed[:, 0] = mixed[:, 0] * (beyond // 2**40) if dtype == "f8" else beyond + x[:, 0]
            beside = normcli.fit(store(tmp_path, f"m{dtype}", mixed), **options).statistics.moving
            assert beside.beyond is not None
            for field in ("mean", "variance"):
                own, other = getattr(alone, field), getattr(beside, field)
                np.testing.assert_array_equal(own[1:], other[1:])


def test_versions(tmp_path):
    """Earlier versions read rests of integers without harm, and would take inf for a variance."""
    for make, version in ((lambda: integers("i8"), 1), (floats, 3)):
        path = tmp_path / f"{version}.json"
        normcli.fit(store(tmp_path, f"x{version}", make()), path, **given("0.9", "equal"))
        assert json.loads(path.read_text())["schema_version"] == version


def test_sidecars_of_earlier_versions(tmp_path):
    name, path = store(tmp_path, "x", integers("i8")), tmp_path / "s.json"
    normcli.fit(name, path, **given("0.9", "equal"))
    document = json.loads(path.read_text())
    del document["arrays"]["moving_mean_rest"]
    path.write_text(json.dumps(document))
    with pytest.raises(DataPolicyError, match=r"beyond 2\*\*53"):
        normcli.apply(name, tmp_path / "y.npy", stats=path)
    with pytest.raises(DataPolicyError, match=r"beyond 2\*\*53"):
        normcli.fit(name, tmp_path / "t.json", update=path)
    with pytest.raises(DataPolicyError, match=r"beyond 2\*\*53"):
        normcli.fit(
            name, tmp_path / "t.json", layout=LAYOUT, momentum=0.5, batch_size=4, moving_start=path
        )
    assert call("check", str(path), name).code == 7
    normcli.apply(name, tmp_path / "y.npy", stats=path, estimate="pooled")


@pytest.mark.parametrize(
    ("name", "value", "make"),
    [
        ("moving_mean_rest", 129.0, "ints"),
        ("moving_mean_rest", "nan", "ints"),
        ("moving_mean_rest", "inf", "ints"),
        ("moving_mean_rest", 0.5, "floats"),
        ("moving_variance_scaled", 1.5, "floats"),
        ("moving_variance_scaled", -0.5, "floats"),
        ("moving_variance_scaled", "nan", "floats"),
        ("moving_exponent", 0, "floats"),
        ("moving_exponent", 5000, "floats"),
        ("moving_exponent", -5000, "floats"),
        ("moving_variance", 1.0, "floats"),
    ],
)
def test_rests_that_belong_to_other_statistics(tmp_path, name, value, make):
    path = tmp_path / "s.json"
    x = integers("i8")[:, :1] if make == "ints" else floats()[:, 3:]
    normcli.fit(store(tmp_path, "x", x), path, **given("0.9", "equal", "first-batch"))
    document = json.loads(path.read_text())
    document["arrays"][name]["data"][0] = value
    path.write_text(json.dumps(document))
    with pytest.raises((InputError, DataPolicyError), match="moving_"):
        normcli.read_statistics(path)


@pytest.mark.parametrize("name", ["moving_mean_rest", "moving_variance_scaled", "moving_exponent"])
def test_rests_that_are_missing_or_of_another_shape(tmp_path, name):
    path = tmp_path / "s.json"
    normcli.fit(store(tmp_path, "x", floats()), path, **given("0.9", "equal", "first-batch"))
    whole = json.loads(path.read_text())
    document = json.loads(path.read_text())
    del document["arrays"][name]
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match=name):
        normcli.read_statistics(path)
    whole["arrays"][name] |= {
        "shape": [2, 2],
        "data": np.reshape(whole["arrays"][name]["data"], (2, 2)).tolist(),
    }
    path.write_text(json.dumps(whole))
    with pytest.raises(InputError, match=name):
        normcli.read_statistics(path)


def test_what_is_said_of_them(tmp_path):
    for kind, x in (("ints", integers("i8")), ("floats", floats())):
        path, name = str(tmp_path / f"{kind}.json"), store(tmp_path, kind, x)
        fitted = normcli.fit(name, path, **given("0.9", "equal", "first-batch"))
        assert call("check", path, name).code == 0
        assert b"moving beyond float64" in call("inspect", path).out
        ended = call("merge", path, "-o", str(tmp_path / "m.json"))
        assert (ended.code, "cannot be merged" in ended.err) == (3, True)
        ended = call("convert", path, "-o", str(tmp_path / "t.safetensors"), "--to", "torch")
        assert ended.code == 7
        assert ("leaves float64" if kind == "floats" else "beyond 2**53") in ended.err
        assert not (tmp_path / "t.safetensors").exists()
        told = call("extract", path, "moving-mean")
        np.testing.assert_array_equal([float(v) for v in told.out.split()], fitted.moving_mean)
        ended = call("extract", path, "moving-variance")
        assert (ended.code, "leaves float64" in ended.err) == (
            (7, True) if kind == "floats" else (0, False)
        )
        ended = call("extract", path, "moving-mean-rest")
        assert ended.code == 0


@pytest.mark.parametrize("instances", [False, True])
def test_missing_values(tmp_path, instances):
    x = floats()
    x[0, :, 3], x[5, 1, :], x[8:, 3, 1] = np.nan, np.inf, np.nan
    x[4:8, 2] = np.nan  # A whole batch.
    name = store(tmp_path, "x", x)
    if not instances:
        for start in STARTS:
            fitted = normcli.fit(name, **given("0.9", "equal", start))
            want = moving(x, 0.9, (4,), start)
            near(held(fitted), want, 1e-12)
    more = {"mode": "instance", "convention": "torch"} if instances else {}
    fitted = normcli.fit(name, **given("0.9", "equal", nonfinite="propagate", **more))
    assert np.isnan(fitted.moving_mean).all()
    assert np.isnan(fitted.moving_variance).all()
    fitted.save(tmp_path / "s.json")
    assert np.isnan(normcli.read_statistics(tmp_path / "s.json").moving_mean).all()


def test_centers_that_leave_float64(tmp_path):
    x = np.full(SHAPE, 1e308)
    x[6:] = -1e308
    name = store(tmp_path, "x", x)
    normcli.fit(name, tmp_path / "p.json", layout=LAYOUT, method="center")
    words = {"layout": LAYOUT, "method": "center", "momentum": "0", "batch_size": 6}
    with pytest.raises(DataPolicyError, match="moving mean leave float64"):
        normcli.fit(name, tmp_path / "s.json", **words)


def test_batches_that_are_constant_each(tmp_path):
    """No batch needs more than float64, their average of differences does."""
    x = np.full(SHAPE, 1.7e308)
    x[4:8] = -1.7e308
    name = store(tmp_path, "x", x)
    for momentum in ("cumulative", "0.9", "0.3"):
        fitted = normcli.fit(name, tmp_path / "s.json", overwrite=True, **given(momentum, "equal"))
        want = moving(x, MOMENTA[momentum], (4,))
        got = fitted.moving_mean
        assert all(
            abs(Fraction(float(a)) / b - 1) < 1e-14 for a, b in zip(got, want.mean, strict=True)
        )
        np.testing.assert_allclose(
            fitted.moving_variance, [float(v) for v in want.variance], rtol=1e-14
        )


def test_a_variance_that_fades_away_is_refused(tmp_path):
    x = np.zeros((400, 1, 2))
    x[:2, 0, 1] = 5e-324
    name = store(tmp_path, "x", x)
    with pytest.raises(DataPolicyError, match="smaller than any that is kept"):
        normcli.fit(
            name, tmp_path / "s.json", layout=LAYOUT, momentum="0.3", batch_size=1,
            moving_start="first-batch",
        )  # fmt: skip
    assert not (tmp_path / "s.json").exists()
