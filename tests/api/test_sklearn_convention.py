"""--convention sklearn beside scikit-learn itself: what cannot be told from a constant."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

import normcli

preprocessing = pytest.importorskip("sklearn.preprocessing")

ROWS = 200


@pytest.fixture
def samples(tmp_path, monkeypatch):
    """Columns on both sides of scikit-learn's bound, constant ones, and ordinary ones."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(12)
    bound = ROWS * np.finfo("f8").eps  # of the deviation, by the mean
    columns = [random.normal(3, 2, ROWS), random.normal(0, 1e-20, ROWS)]
    columns += [np.full(ROWS, value) for value in (0.0, 0.1, -273.15)]
    for factor in (0.05, 0.3, 0.9, 1.1, 3, 50):
        columns.append(1e6 * (1 + factor * bound * random.permutation(np.tile([-1.0, 1.0], 100))))
    x = np.stack(columns, axis=1)
    np.save("x.npy", x)
    return x


@pytest.mark.parametrize("method", ["zscore", "std", "center"])
def test_the_numbers_of_a_scaler(samples, method):
    scaler = preprocessing.StandardScaler(
        with_mean=method in ("zscore", "center"), with_std=method != "center"
    ).fit(samples)
    if method != "center":
        unit = scaler.scale_ == 1
        assert list(np.flatnonzero(unit)) == [2, 3, 4, 5, 6, 7]
    options = {"layout": "NC", "method": method, "convention": "sklearn"}
    expected = scaler.transform(samples)
    # scikit-learn's mean of 1e6 is off by up to 9 units in the last place, ours is exact.
    scale = np.ones(samples.shape[1]) if scaler.scale_ is None else scaler.scale_
    allowed = 1e-12 + 16 * np.spacing(np.abs(samples).max(axis=0)) / scale

    normcli.apply("x.npy", "y.npy", **options)
    assert np.all(np.abs(np.load("y.npy") - expected) <= allowed + 1e-12 * np.abs(expected))
    if method != "std":
        exact = np.array([math.fsum(column) / ROWS for column in samples.T])
        np.testing.assert_allclose(np.load("y.npy"), (samples - exact) / scale, rtol=1e-3)
    fitted = normcli.fit("x.npy", "s.json", **options)
    normcli.apply("x.npy", "z.npy", stats="s.json")
    np.testing.assert_array_equal(np.load("z.npy"), np.load("y.npy"))
    np.testing.assert_array_equal(fitted.normalize(samples), np.load("y.npy"))
    normcli.apply("y.npy", "back.npy", stats="s.json", inverse=True)
    np.testing.assert_allclose(np.load("back.npy"), samples, rtol=1e-15, atol=1e-15)


def test_missing_values_count_for_less(samples):
    samples[::3, :] = np.nan
    np.save("x.npy", samples)
    scaler = preprocessing.StandardScaler().fit(samples)
    fitted = normcli.fit("x.npy", layout="NC", convention="sklearn")
    unit = scaler.scale_ == 1
    theirs = np.where(unit, 1.0, np.sqrt(scaler.var_))
    np.testing.assert_array_equal(fitted.statistics.constant(), unit)
    got = fitted.normalize(samples[1:3]) * theirs
    np.testing.assert_allclose(got, samples[1:3] - scaler.mean_, rtol=1e-6, atol=2e-9)


def test_statistics_that_are_read_by_block(samples, monkeypatch):
    options = {"layout": "NC", "convention": "sklearn"}
    normcli.fit("x.npy", "s.zarr", **options)
    normcli.apply("x.npy", "y.npy", stats="s.zarr")
    monkeypatch.setattr("normcli.api.parameters.GROUPS_IN_MEMORY", 2)
    normcli.apply("x.npy", "z.npy", stats="s.zarr")
    np.testing.assert_array_equal(np.load("z.npy"), np.load("y.npy"))


@pytest.mark.parametrize("target", ["sklearn", "torch"])
def test_conversions_keep_the_divisor_of_1(samples, target):
    fitted = normcli.fit("x.npy", "s.json", layout="NC", convention="sklearn")
    y = fitted.normalize(samples)
    if target == "sklearn":
        normcli.convert("s.json", "c.json", target="sklearn")
        made = json.loads(Path("c.json").read_text())
        assert np.all(np.array(made["scale_"])[2:8] == 1)
        mean, divisor = np.array(made["mean_"]), np.array(made["scale_"])
    else:
        pytest.importorskip("safetensors")
        normcli.convert("s.json", "c.safetensors", target="torch", dtype="float64")
        from safetensors.numpy import load_file

        made = load_file("c.safetensors")
        mean, divisor = made["running_mean"], np.sqrt(made["running_var"]) / made.get("weight", 1)
    np.testing.assert_allclose((samples - mean) / divisor, y, rtol=1e-12, atol=1e-12)


def test_moving_statistics_without_variance_are_divided_by_1(samples):
    np.save("flat.npy", np.full((8, 2), 4.0))
    normcli.fit(
        "flat.npy", "s.json", layout="NC", convention="sklearn", momentum="cumulative", batch_size=4
    )
    np.save("two.npy", samples[:, :2])
    normcli.apply("two.npy", "y.npy", stats="s.json")
    np.testing.assert_array_equal(np.load("y.npy"), samples[:, :2] - 4.0)
