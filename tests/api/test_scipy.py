"""Beside scipy.stats: zscore with either divisor, and what NaN does there."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

import normcli

X = np.random.default_rng(8).normal(4, 3, (9, 6, 5))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("ddof", [0, 1])
@pytest.mark.parametrize(("axis", "aggregate"), [(0, "0"), (1, "1"), (2, "2"), (None, "all")])
def test_zscore(tmp_path, axis, aggregate, ddof, dtype):
    x = X.astype(dtype)
    np.save(tmp_path / "x.npy", x)
    truth = stats.zscore(x.astype("f8"), axis=axis, ddof=ddof)
    options = {"layout": "UUU", "mode": "custom", "aggregate": aggregate, "ddof": ddof}
    for kind, tolerance in (("float64", 1e-12), (dtype, float(np.finfo(dtype).eps) * 4)):
        normcli.apply(
            tmp_path / "x.npy",
            tmp_path / "y.npy",
            epsilon=0.0,
            dtype=kind,
            overwrite=True,
            **options,
        )
        np.testing.assert_allclose(np.load(tmp_path / "y.npy"), truth, tolerance, tolerance)


@pytest.mark.parametrize("policy", ["omit", "propagate"])
def test_nan_policy(tmp_path, policy):
    x = X.copy()
    x[3, 2, 1] = x[4, 2, 1] = np.nan
    np.save(tmp_path / "x.npy", x)
    truth = stats.zscore(x, axis=0, nan_policy=policy)
    normcli.apply(
        tmp_path / "x.npy",
        tmp_path / "y.npy",
        layout="UUU",
        mode="custom",
        aggregate="0",
        epsilon=0.0,
        nonfinite=policy,
    )
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), truth, 1e-12, 1e-12)


@pytest.mark.parametrize("ddof", [0, 1])
def test_zmap_is_an_apply_of_other_statistics(tmp_path, ddof):
    np.save(tmp_path / "x.npy", X)
    other = np.random.default_rng(9).normal(-2, 1, (4, 6, 5))
    np.save(tmp_path / "other.npy", other)
    fitted = normcli.fit(
        tmp_path / "x.npy", layout="UUU", mode="custom", aggregate="0", epsilon=0.0, ddof=ddof
    )
    normcli.apply(tmp_path / "other.npy", tmp_path / "y.npy", stats=fitted)
    truth = stats.zmap(other, X, axis=0, ddof=ddof)
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), truth, 1e-12, 1e-12)
