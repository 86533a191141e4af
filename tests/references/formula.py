"""The plain formula: recompute a case from its own description, with NumPy and nothing else.

Whoever reads a case wrongly finds the right reading in ``expected`` and ``expected_running``.
"""

import json
import warnings
from collections.abc import Iterable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
# Fields of a case, in the order of cases.json, with what most cases have.
DEFAULTS: dict[str, Any] = {
    "file": None,
    "case": None,
    "family": None,
    "operator": None,
    "convention": None,
    "layout": None,
    "dtype": None,
    "mode": None,
    "method": "zscore",
    "range": None,
    "aggregate": None,
    "scale_axes": None,
    "groups": None,
    "group_axis": None,
    "epsilon": 0.0,
    "epsilon_stated": None,
    "epsilon_placement": "inside",
    "momentum": None,
    "batch_sizes": None,
    "moving_variance": None,
    "estimate": "input",
    "nonfinite": "none",
    "output_by": "framework",
    "native_max_error": None,
    "extra": None,
    "arrays": None,
}
Arrays = dict[str, np.ndarray]


def cuts(sizes: list[int]) -> list[slice]:
    """Turn batch sizes into slices of axis 0."""
    edges = np.cumsum([0, *sizes]).tolist()
    return [slice(start, stop) for start, stop in pairwise(edges)]


def grouped(x: np.ndarray, groups: int, axis: int) -> np.ndarray:
    """Split ``axis`` into (groups, extent / groups)."""
    return x.reshape(*x.shape[:axis], groups, x.shape[axis] // groups, *x.shape[axis + 1 :])


def along(values: np.ndarray, axes: Iterable[int], ndim: int) -> np.ndarray:
    """Give values that span ``axes`` the rank of the array they meet."""
    shape = [1] * ndim
    for axis, extent in zip(axes, np.shape(values), strict=True):
        shape[axis] = extent
    return np.reshape(values, shape)


def moments(x: np.ndarray, aggregate: Iterable[int]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and biased variance in float64, without the aggregated axes."""
    axes = tuple(aggregate)
    wide = x.astype("float64")
    return wide.mean(axis=axes), wide.var(axis=axes)


def group_moments(x: np.ndarray, groups: int, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Give mean and variance of shape (N, groups)."""
    split = grouped(x, groups, axis)
    return moments(split, [k for k in range(1, split.ndim) if k != axis])


def slice_moments(case: dict[str, Any], x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Give mean, variance and mean square of each slice, NaN left out, aggregated axes kept as 1.

    For groups the channel axis is two axes here: groups, and channels of a group.
    """
    axes = tuple(case["aggregate"])
    if case["groups"]:
        x = grouped(x, case["groups"], case["group_axis"])
        axes = tuple(k for k in range(1, x.ndim) if k != case["group_axis"])
    mean = np.nanmean(x, axis=axes, keepdims=True)
    low, high = np.nanmin(x, axis=axes, keepdims=True), np.nanmax(x, axis=axes, keepdims=True)
    mean = np.where(low == high, low, mean)  # a constant slice, whatever the sum rounds to
    variance = np.nanmean((x - mean) ** 2, axis=axes, keepdims=True)
    return mean, variance, np.nanmean(x**2, axis=axes, keepdims=True)


def expected(case: dict[str, Any], arrays: Arrays) -> np.ndarray:
    """Compute a case's output from its description, in extended precision where there is any."""
    x = arrays["input"].astype(np.longdouble)
    if case["estimate"] == "input" and case["batch_sizes"]:
        return np.concatenate(
            [normalized(case, arrays, x[cut]) for cut in cuts(case["batch_sizes"])]
        )
    return normalized(case, arrays, x)


def normalized(case: dict[str, Any], arrays: Arrays, x: np.ndarray) -> np.ndarray:
    """Compute the output for a whole input, or for one batch of it."""
    if case["method"] in ("minmax", "maxabs"):
        return by_extremes(case, x)
    if case["estimate"] == "moving":
        kept = [k for k in range(x.ndim) if k not in case["aggregate"]]
        kept = kept[-1:] if case["mode"] == "instance" else kept  # one value a channel there
        mean = along(arrays["running_mean"].astype(np.longdouble), kept, x.ndim)
        square = along(arrays["running_var"].astype(np.longdouble), kept, x.ndim)
    else:
        mean, square, mean_square = slice_moments(case, x)
        if case["method"] == "rms":
            square = mean_square
    if case["method"] == "center":
        square = np.ones_like(square)
    if case["convention"] == "sklearn":  # constant by its error bound of a variance
        bound = len(x) * np.finfo("float64").eps
        square = np.where(square <= bound * square + (bound * mean) ** 2, 1, square)
    epsilon = np.longdouble(case["epsilon"])
    divisor = {
        "inside": np.sqrt(square + epsilon),
        "outside": np.sqrt(square) + epsilon,
        "floor": np.maximum(np.sqrt(square), epsilon),
    }[case["epsilon_placement"]]
    split = grouped(x, case["groups"], case["group_axis"]) if case["groups"] else x
    top = split - mean if case["method"] in ("zscore", "center") else split
    y = (top / np.where(divisor == 0, 1, divisor)).reshape(x.shape)  # 0 / 0 is 0 here
    if "scale" in arrays:
        y = y * along(arrays["scale"], case["scale_axes"], x.ndim)
    if "bias" in arrays:
        y = y + along(arrays["bias"], case["scale_axes"], x.ndim)
    return y


def by_extremes(case: dict[str, Any], x: np.ndarray) -> np.ndarray:
    """Compute the output of a scaling by extremes; one value alone is divided by 1."""
    axes = tuple(case["aggregate"])
    low, high = np.nanmin(x, axis=axes, keepdims=True), np.nanmax(x, axis=axes, keepdims=True)
    if case["method"] == "maxabs":
        largest = np.maximum(np.abs(low), np.abs(high))
        return x / np.where(largest == 0, 1, largest)
    bottom, top = (np.longdouble(bound) for bound in case["range"])
    spread = np.where(high == low, 1, high - low)
    return (x - low) / spread * (top - bottom) + bottom


def expected_statistics(case: dict[str, Any], arrays: Arrays) -> Arrays:
    """Compute the statistics that a case stores, in the shapes that it stores."""
    x = arrays["input"].astype(np.longdouble)
    each = case["estimate"] == "input" and case["batch_sizes"]
    found = [slice_moments(case, x[cut]) for cut in cuts(case["batch_sizes"] if each else [len(x)])]
    result = {}
    for k, name in enumerate(("mean", "variance", "mean_square")):
        if name in arrays:
            result[name] = np.stack([one[k] for one in found]).reshape(arrays[name].shape)
    if "invstd" in arrays:
        variance = found[0][1].reshape(arrays["invstd"].shape)
        result["invstd"] = 1 / np.sqrt(variance + case["epsilon"])
    if case["batch_sizes"] and "running_mean" in arrays:
        result["running_mean"], result["running_var"] = expected_running(case, arrays)
    return result


def fold(
    each: list, counts: list[int], case: dict[str, Any], start: tuple[Any, Any] = (0.0, 1.0)
) -> tuple[Any, Any]:
    """Fold the batches' (mean, biased variance) into the moving ones, as the convention says."""
    mean, variance = start
    for k, ((batch_mean, batch_variance), n) in enumerate(zip(each, counts, strict=True), start=1):
        fed = batch_variance
        if case["moving_variance"] == "unbiased":
            fed = batch_variance * n / (n - 1)
        new = case["momentum"]
        if new == "cumulative":
            new = 1 / k
        elif case["convention"] != "torch":
            new = 1 - new  # only torch states the weight of the new value
        mean = mean * (1 - new) + batch_mean * new
        variance = variance * (1 - new) + fed * new
    return mean, variance


def expected_running(case: dict[str, Any], arrays: Arrays) -> tuple[np.ndarray, np.ndarray]:
    """Compute a case's moving statistics after its last batch."""
    x = arrays["input"]
    aggregate = case["aggregate"]
    each, counts = [], []
    for cut in cuts(case["batch_sizes"]):
        mean, variance = moments(x[cut], aggregate)
        counts.append(int(np.prod([x[cut].shape[k] for k in aggregate])))
        if case["mode"] == "instance":  # statistics of instances, averaged over the batch
            mean, variance = mean.mean(axis=0), variance.mean(axis=0)
        each.append((mean, variance))
    start = arrays.get("start_mean", 0.0), arrays.get("start_var", 1.0)
    return fold(each, counts, case, start)


def rational_moments(values: np.ndarray) -> tuple[float, float]:
    """Give mean and variance by fractions: nothing is rounded before the last step."""
    fractions = [Fraction(v) for v in values.tolist()]
    mean = sum(fractions) / len(fractions)
    variance = sum(v * v for v in fractions) / len(fractions) - mean * mean
    return float(mean), float(variance)


def check_hard(case: dict[str, Any], arrays: Arrays) -> None:
    """Compare exact moments with those of rational arithmetic: equal to the last bit."""
    columns = arrays["input"].reshape(len(arrays["input"]), -1).T
    again = np.array([rational_moments(column) for column in columns]).T
    for name, values in zip(("mean", "variance"), again, strict=True):
        np.testing.assert_array_equal(arrays[name].ravel(), values, err_msg=case["case"])


def check_case(case: dict[str, Any], arrays: Arrays) -> None:
    """Compare a case's output, and its statistics where they are stored, with the formula."""

    def close(name: str, truth: np.ndarray, relative: float, absolute: float) -> None:
        title = f"{case['file']}: {case['case']}/{name}"
        np.testing.assert_allclose(
            arrays[name], truth, rtol=relative, atol=absolute, equal_nan=True, err_msg=title
        )

    rough = {"float16": 2e-2, "float32": 2e-4}.get(case["dtype"], 1e-9)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # slices that are nothing but NaN
        truths = expected_statistics(case, arrays) | {"output": expected(case, arrays)}
    for name, truth in truths.items():
        close(name, truth, 1e-12, 1e-12)
        if f"{name}_native" in arrays:
            close(f"{name}_native", truth, rough, rough)


def check() -> None:
    """Compare everything that is stored with the plain formula; raise at the first difference."""
    listed = json.loads((HERE / "cases.json").read_text())
    cases = [listed["defaults"] | row for row in listed["cases"]]
    for case in cases:
        with np.load(HERE / case["file"], allow_pickle=False) as archive:
            arrays = {name: archive[f"{case['case']}/{name}"] for name in case["arrays"]}
        (check_hard if case["family"] == "hard" else check_case)(case, arrays)
    print(f"{len(cases)} cases agree with the plain formula")
