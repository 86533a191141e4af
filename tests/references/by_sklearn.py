"""Reference values by scikit-learn's StandardScaler, MinMaxScaler and MaxAbsScaler."""

import warnings
from typing import Any

import numpy as np
from formula import cuts
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, StandardScaler
from store import Store, draw, rng_of


def standardized(
    store: Store,
    case: str,
    x: np.ndarray,
    sizes: list[int] | None = None,
    nonfinite: str = "none",
    method: str = "zscore",
    extra: str | None = None,
) -> None:
    """Add a scaler fitted at once, or by ``sizes`` samples at a time."""
    results: dict[str, Any] = {}
    for suffix, used in (("", "float64"), ("_native", x.dtype)):
        scaler = StandardScaler(with_mean=method != "std", with_std=method != "center")
        rows = x.astype(used)
        if sizes is None:
            scaler.fit(rows)
        else:
            for cut in cuts(sizes):
                scaler.partial_fit(rows[cut])
        results[f"output{suffix}"] = scaler.transform(rows)
        if suffix == "":
            results["mean"] = scaler.mean_
            results["variance"] = scaler.var_
            results["divisor"] = scaler.scale_
            results["count"] = np.broadcast_to(scaler.n_samples_seen_, x.shape[1]).copy()
    store.add(
        "sklearn",
        case,
        {"input": x, **results},
        family="standard_scaler",
        convention="sklearn",
        layout="NC",
        mode="batch",
        operator=f"sklearn.preprocessing.StandardScaler.{'partial_fit' if sizes else 'fit'}",
        method=method,
        aggregate=[0],
        estimate="pooled",
        batch_sizes=sizes,
        nonfinite=nonfinite,
        extra=extra,
    )


def scaled(
    store: Store,
    case: str,
    x: np.ndarray,
    bounds: tuple[float, float] | None = None,
    sizes: list[int] | None = None,
    nonfinite: str = "none",
) -> None:
    """Add a scaler by extremes: MinMaxScaler where there are bounds, else MaxAbsScaler."""
    results: dict[str, Any] = {}
    for suffix, used in (("", "float64"), ("_native", x.dtype)):
        scaler = MaxAbsScaler() if bounds is None else MinMaxScaler(feature_range=bounds)
        rows = x.astype(used)
        for cut in cuts(sizes or [len(rows)]):
            scaler.partial_fit(rows[cut])
        results[f"output{suffix}"] = scaler.transform(rows)
    store.add(
        "sklearn",
        case,
        {"input": x, **results},
        family="extreme_scaler",
        convention="sklearn",
        layout="NC",
        mode="batch",
        operator=f"sklearn.preprocessing.{type(scaler).__name__}",
        method="maxabs" if bounds is None else "minmax",
        range=None if bounds is None else list(bounds),
        aggregate=[0],
        estimate="pooled",
        batch_sizes=sizes,
        nonfinite=nonfinite,
    )


def sklearn(store: Store) -> None:
    """Make the scalers: fit and partial_fit, NaN, constant columns, parts switched off."""
    standardized(store, "fit_double", draw("fit_double", (30, 4), "float64"))
    standardized(store, "fit_single", draw("fit_single", (30, 4), "float32"))
    standardized(store, "fit_half", draw("fit_half", (30, 4), "float16"))
    standardized(store, "fit_int", rng_of("fit_int").integers(-30000, 30000, (30, 4), "int16"))
    standardized(store, "partial_double", draw("partial_double", (17, 4), "float64"), [7, 6, 4])
    standardized(store, "partial_single", draw("partial_single", (33, 5), "float32"), [16, 16, 1])

    holes = draw("nan", (24, 5), "float64")
    holes[rng_of("nan holes").random(holes.shape) < 0.2] = np.nan
    holes[:, 0] = draw("nan", (24, 5), "float64")[:, 0]
    holes[2:11, 3] = np.nan  # a long gap, but no batch of 8 is without a value: see README.md
    standardized(store, "nan_fit", holes, nonfinite="omit")
    standardized(store, "nan_fit_single", holes.astype("float32"), nonfinite="omit")
    standardized(store, "nan_partial", holes, [8, 8, 8], nonfinite="omit")
    empty = holes.copy()
    empty[:, 2] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        standardized(
            store, "nan_column", empty, nonfinite="omit", extra="column 2 has no value at all"
        )

    constant = draw("constant", (20, 5), "float64")
    constant[:, 1], constant[:, 2], constant[:, 4] = 0.1, 0.0, -273.15
    standardized(store, "constant_double", constant)
    standardized(store, "constant_single", constant.astype("float32"))
    standardized(store, "constant_partial", constant, [7, 7, 6])
    close = 4e13 + np.tile([-1.0, 1.0, -2.0, 2.0, 0.0], 40)[:, np.newaxis]
    standardized(
        store,
        "constant_close",
        close,
        extra="it varies, but within scikit-learn's error bound, and so is only centred",
    )
    standardized(store, "only_centre", draw("only_centre", (20, 4), "float64"), method="center")
    standardized(store, "only_spread", draw("only_spread", (20, 4), "float64"), method="std")
    for dtype in ("float16", "float32", "float64"):
        x = draw(f"extremes {dtype}", (23, 4), dtype)
        scaled(store, f"minmax_{dtype}", x, (0.0, 1.0))
        scaled(store, f"minmax_symmetric_{dtype}", x, (-1.0, 1.0), [9, 9, 5])
        scaled(store, f"maxabs_{dtype}", x, sizes=[9, 9, 5])
    scaled(store, "minmax_constant", constant, (0.0, 1.0))
    scaled(store, "minmax_nan", holes, (-3.0, 5.0), nonfinite="omit")
    scaled(store, "maxabs_constant", constant)
    scaled(store, "maxabs_nan", holes, nonfinite="omit")
