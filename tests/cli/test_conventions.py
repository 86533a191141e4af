"""The list of defaults is what a fit or an apply takes."""

from __future__ import annotations

import json

import numpy as np
import pytest

import normcli
from normcli.domain.conventions import CONVENTIONS
from tests.cli.terminal import call

LISTED = json.loads(call("conventions", "--json").text)


def test_every_convention_is_listed():
    assert list(LISTED) == ["normcli", *CONVENTIONS]
    text = call("conventions").text
    assert text.split("\n")[0].split() == ["normcli", *CONVENTIONS]
    for row in text.strip().split("\n")[1:]:
        assert row.split()[0] in LISTED["torch"]
    # As the systems document them.
    assert LISTED["torch"] == {
        "epsilon": 1e-5,
        "rms_epsilon": "machine",
        "ddof": 0,
        "momentum": 0.1,
        "momentum_weighs": "new",
        "moving_variance": "unbiased",
        "layer_axes": "last",
        "constant_groups": "formula",
    }
    assert LISTED["keras"]["momentum"] == 0.99
    assert LISTED["normcli"]["momentum"] is None


@pytest.mark.parametrize("name", LISTED)
def test_one_of_them(name):
    assert json.loads(call("conventions", name, "--json").text) == LISTED[name]
    text = call("conventions", name).text
    assert text.split()[0] == name
    assert f"{LISTED[name]['epsilon']:g}" in text


def test_an_unknown_one():
    ended = call("conventions", "caffe")
    assert ended.code == 2
    assert "There is no convention 'caffe'" in ended.err
    assert "wolfram" in ended.err


@pytest.mark.parametrize("name", LISTED)
def test_the_list_is_what_is_taken(name, tmp_path):
    x = np.random.default_rng(1).normal(3, 2, (8, 3, 4))
    x[:, 1] = 5.0
    np.save(tmp_path / "x.npy", x)
    listed, given = LISTED[name], {} if name == "normcli" else {"convention": name}
    momentum = {"momentum": 0.25} if listed["momentum"] is None else {}
    fitted = normcli.fit(tmp_path / "x.npy", layout="NCT", batch_size=3, **given, **momentum)
    spec, rule = fitted.statistics.spec, fitted.statistics.moving.rule
    assert (spec.epsilon, spec.ddof) == (listed["epsilon"], listed["ddof"])
    weight = listed["momentum"] or 0.25
    assert rule.momentum == (1 - weight if listed["momentum_weighs"] == "new" else weight)
    assert rule.variance == listed["moving_variance"]
    layer = normcli.fit(tmp_path / "x.npy", layout="NCT", mode="layer", **given).statistics.spec
    axes = {"last": (2,), "example": (2,), "features": (1,)}[listed["layer_axes"]]
    assert layer.aggregated == axes
    rms = normcli.fit(tmp_path / "x.npy", layout="NCT", method="rms", **given).statistics.spec
    machine = float(np.finfo("f8").eps)
    assert rms.epsilon == (machine if listed["rms_epsilon"] == "machine" else listed["rms_epsilon"])
    normcli.apply(
        tmp_path / "x.npy", tmp_path / "y.npy", layout="NCT", bias=_bias(tmp_path), **given
    )
    # Without an epsilon the plain formula would give NaN; all systems that have none divide by 1.
    assert np.all(np.load(tmp_path / "y.npy")[:, 1] == 7.0)


def _bias(folder):
    np.save(folder / "bias.npy", np.array([0.0, 7.0, 0.0]))
    return folder / "bias.npy"
