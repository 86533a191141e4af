"""Inputs that defeat careless sums, with moments that are exact before the last rounding."""

from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
from formula import rational_moments
from store import Store, rng_of

N = 1500  # values of a case; half as many where they have 64 bits


def normal(case: str, mean: float, sd: float, dtype: str) -> np.ndarray:
    """Draw normal values."""
    size = N // 2 if dtype == "float64" else N
    return rng_of(case).normal(mean, sd, size).astype(dtype)


def full(case: str, low: int, high: int, dtype: str) -> np.ndarray:
    """Draw integers, both limits among them."""
    size = N // 2 if dtype.endswith("int64") else N
    values = rng_of(case).integers(low, high, size, dtype, endpoint=True)
    values[[17, 734]] = low, high
    return values


def put(store: Store, case: str, x: np.ndarray, **fields: Any) -> None:
    """Add one input, of shape (n,) or (n, C), with its exact moments."""
    columns = x.reshape(len(x), -1)
    found = [exact(columns[:, k]) for k in range(columns.shape[1])]
    shape = x.shape[1:]
    mean, variance, deviation = (
        np.array([one[name] for one in found]).reshape(shape)
        for name in ("mean", "variance", "deviation")
    )
    head = np.stack([one["head"] for one in found], axis=-1).reshape(-1, *shape)
    store.add(
        "hard",
        case,
        {
            "input": x,
            "mean": mean,
            "variance": variance,
            "deviation": deviation,
            "output_head": head,
        },
        family="hard",
        operator="mpmath",
        layout="N" if x.ndim == 1 else "NC",
        mode="batch",
        aggregate=[0],
        estimate="pooled",
        output_by="mpmath",
        **fields,
    )


def hard(store: Store) -> None:
    """Make inputs that defeat careless sums, with moments that are exact before the last rounding.

    mpmath computes with 512 bits; exact rational arithmetic has to give the same float64.
    """
    put(store, "offset_1e8_double", normal("offset_1e8_double", 1e8, 1, "float64"))
    put(
        store,
        "offset_1e8_single",
        normal("offset_1e8_single", 1e8, 1, "float32"),
        extra="float32 has steps of 8 at 1e8, so all the values are 1e8 exactly",
    )
    put(store, "offset_1e8_wide_single", normal("offset_1e8_wide_single", 1e8, 50, "float32"))
    put(store, "co2_single", normal("co2_single", 420, 0.5, "float32"))
    put(store, "salinity_single", normal("salinity_single", 34.7, 0.01, "float32"))
    put(store, "wide_half", rng_of("wide_half").uniform(-60000, 60000, N).astype("float16"))
    put(store, "high_half", rng_of("high_half").uniform(40000, 60000, N).astype("float16"))
    for dtype in ("int8", "uint8", "int16", "uint16", "int32", "uint32"):
        limits = np.iinfo(dtype)
        put(store, f"full_{dtype}", full(f"full_{dtype}", limits.min, limits.max, dtype))
    put(store, "wide_int64", full("wide_int64", -(2**52), 2**52, "int64"))
    put(store, "wide_uint64", full("wide_uint64", 0, 2**52, "uint64"))
    put(store, "bool", rng_of("bool").random(N) < 0.3)
    put(store, "constant_single", np.full(N, 0.1, "float32"))
    put(store, "subnormal_single", normal("subnormal_single", 2e-39, 1e-39, "float32"))
    put(
        store,
        "subnormal_double",
        normal("subnormal_double", 2e-309, 1e-309, "float64"),
        extra="the variance is below float64 and stored as 0; the deviation is not",
    )
    put(
        store,
        "near_overflow_single",
        rng_of("near_overflow_single").uniform(-3e38, 3e38, N).astype("float32"),
    )
    put(
        store,
        "near_overflow_high_single",
        rng_of("near_overflow_high_single").uniform(2.9e38, 3e38, N).astype("float32"),
    )
    put(store, "square_1e300_double", normal("square_1e300_double", 3e150, 1e150, "float64"))
    put(
        store,
        "lognormal_single",
        np.exp(rng_of("lognormal_single").normal(0, 5, N)).astype("float32"),
    )
    mixed = rng_of("columns_single").normal([1e6, 420, 34.7, 0], [1, 0.5, 0.01, 1e-12], (N // 4, 4))
    put(store, "columns_single", mixed.astype("float32"))
    mixed = rng_of("columns_double").normal([1e12, -273.15, 1e-9], [1, 1e-6, 1e-15], (N // 8, 3))
    put(store, "columns_double", mixed)


def exact(values: np.ndarray, head: int = 32) -> dict[str, Any]:
    """Give mean, variance, deviation and the first z-scores, each rounded once, to float64."""

    def nearest(number: Any) -> float:
        """Round once; mpmath's own conversion rounds twice where the result is subnormal."""
        mantissa, exponent = number.man_exp
        size = Fraction(int(mantissa)) * Fraction(2) ** int(exponent)
        return float(-size if number < 0 else size)

    with mpmath.workprec(512):
        numbers = [mpmath.mpf(int(v) if isinstance(v, bool) else v) for v in values.tolist()]
        n = len(numbers)
        mean = mpmath.fsum(numbers) / n
        variance = mpmath.fsum((v - mean) ** 2 for v in numbers) / n
        deviation = mpmath.sqrt(variance)
        scores = [(v - mean) / deviation if deviation else mpmath.mpf(0) for v in numbers[:head]]
        found = {"mean": mean, "variance": variance, "deviation": deviation}
        result: dict[str, Any] = {name: nearest(value) for name, value in found.items()}
        result["head"] = np.array([nearest(score) for score in scores])
    if (result["mean"], result["variance"]) != rational_moments(values):
        raise ArithmeticError(f"{result} against {rational_moments(values)}")
    return result
