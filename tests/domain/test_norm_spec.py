"""Modes and conventions become axes and numbers; shapes become geometries."""

from __future__ import annotations

import numpy as np
import pytest

from normcli.domain.conventions import CONVENTIONS, convention
from normcli.domain.geometry import bind
from normcli.domain.layout import Layout
from normcli.domain.presets import make_spec
from normcli.errors import InputError, UsageError

F4, F8, F2 = np.dtype("f4"), np.dtype("f8"), np.dtype("f2")


@pytest.mark.parametrize(
    ("layout", "options", "aggregated", "kept", "scale", "per_dataset"),
    [
        ("NCHW", {"mode": "batch"}, (0, 2, 3), (1,), (1,), True),
        ("NHWC", {"mode": "batch"}, (0, 1, 2), (3,), (3,), True),
        ("NC", {"mode": "batch"}, (0,), (1,), (1,), True),
        ("N", {"mode": "batch"}, (0,), (), (), True),
        ("NHW", {"mode": "batch"}, (0, 1, 2), (), (), True),
        ("CHW", {"mode": "batch"}, (1, 2), (0,), (0,), True),
        ("SSCB", {"mode": "batch"}, (0, 1, 3), (2,), (2,), True),
        ("NCHW", {"mode": "instance"}, (2, 3), (0, 1), (1,), False),
        ("SSCB", {"mode": "instance"}, (0, 1), (2, 3), (2,), False),
        ("CHW", {"mode": "instance"}, (1, 2), (0,), (0,), False),
        ("NTC", {"mode": "instance"}, (1,), (0, 2), (2,), False),
        ("NCHW", {"mode": "layer"}, (3,), (0, 1, 2), (3,), False),
        ("NCHW", {"mode": "layer", "aggregate": "~N"}, (1, 2, 3), (0,), (1, 2, 3), False),
        ("NHWC", {"mode": "layer", "aggregate": "1,3"}, (1, 3), (0, 2), (1, 3), False),
        ("NCHW", {"mode": "group", "groups": 2}, (2, 3), (0, 1), (1,), False),
        ("NC", {"mode": "group", "groups": 2}, (), (0, 1), (1,), False),
        ("CHW", {"mode": "group", "groups": 2}, (1, 2), (0,), (0,), False),
        ("NTHW", {"mode": "group", "groups": 2, "group_axis": "T"}, (2, 3), (0, 1), (1,), False),
        ("NCHW", {"mode": "custom", "aggregate": "HW"}, (2, 3), (0, 1), (1,), False),
        ("NCHW", {"mode": "custom", "aggregate": "N"}, (0,), (1, 2, 3), (1, 2, 3), True),
        ("NCHW", {"mode": "custom", "aggregate": "all"}, (0, 1, 2, 3), (), (), True),
        (
            "NCHW",
            {"mode": "custom", "aggregate": "HW", "scale_axes": "same"},
            (2, 3),
            (0, 1),
            (2, 3),
            False,
        ),
        (
            "NCHW",
            {"mode": "custom", "aggregate": "C,W", "scale_axes": "0,1"},
            (1, 3),
            (0, 2),
            (0, 1),
            False,
        ),
        (
            "NCHW",
            {"mode": "custom", "aggregate": "HW", "scale_axes": "none"},
            (2, 3),
            (0, 1),
            (),
            False,
        ),
        (
            "NCHW",
            {"mode": "custom", "aggregate": "2;;All", "wolfram_levels": True},
            (2, 3),
            (0, 1),
            (1,),
            False,
        ),
        (
            "CHW",
            {
                "mode": "layer",
                "aggregate": "2;;All",
                "wolfram_levels": True,
                "scale_axes": "Complement",
            },
            (1, 2),
            (0,),
            (0,),
            False,
        ),
        ("NCHW", {"mode": "layer", "convention": "wolfram"}, (2, 3), (0, 1), (2, 3), False),
        ("NC", {"mode": "layer", "convention": "wolfram"}, (1,), (0,), (1,), False),
        ("NHWC", {"mode": "layer", "convention": "keras"}, (3,), (0, 1, 2), (3,), False),
        ("SSCB", {"mode": "layer", "convention": "matlab"}, (0, 1, 2), (3,), (0, 1, 2), False),
        ("CBT", {"mode": "layer", "convention": "matlab"}, (0,), (1, 2), (0,), False),
        ("NCHW", {"mode": "layer", "convention": "torch"}, (3,), (0, 1, 2), (3,), False),
        ("NTC", {"mode": "layer", "convention": "onnx"}, (2,), (0, 1), (2,), False),
    ],
)
def test_modes(layout, options, aggregated, kept, scale, per_dataset):
    spec = make_spec(Layout(layout), F4, **options)
    assert (spec.aggregated, spec.kept, spec.scale_axes) == (aggregated, kept, scale)
    assert spec.per_dataset is per_dataset
    assert sorted(spec.aggregated + spec.kept) == list(range(len(layout)))


@pytest.mark.parametrize(
    ("layout", "options", "says"),
    [
        ("NCHW", {"mode": "weight"}, "no mode 'weight'"),
        ("NCHW", {"method": "minimax"}, "no method"),
        ("NCHW", {"nonfinite": "drop"}, "no nonfinite"),
        ("NCHW", {"placement": "above"}, "no epsilon placement"),
        ("NCHW", {"convention": "jax"}, "no convention 'jax'"),
        ("NCHW", {"aggregate": "HW"}, "--aggregate does not go with --mode batch"),
        ("NCHW", {"mode": "custom"}, "needs --aggregate"),
        ("NCHW", {"mode": "custom", "aggregate": "none"}, "aggregates no axis"),
        ("NC", {"mode": "instance"}, "aggregates no axis"),
        ("C", {"mode": "batch"}, "aggregates no axis"),
        ("NCHW", {"mode": "group"}, "needs --groups"),
        ("NCHW", {"groups": 2}, "--groups needs --mode group"),
        ("NCHW", {"group_axis": "C"}, "--group-axis needs --mode group"),
        ("NHW", {"mode": "group", "groups": 2}, "has no C"),
        ("NCHW", {"mode": "group", "groups": 2, "group_axis": "HW"}, "names 2 axes"),
        ("NCHW", {"mode": "group", "groups": 2, "group_axis": "N"}, "batch axis"),
        ("NCHW", {"epsilon": -1e-9}, "Epsilon is -1e-09"),
        ("NCHW", {"epsilon": float("nan")}, "Epsilon is nan"),
        ("NCHW", {"epsilon": float("inf")}, "Epsilon is inf"),
        ("NCHW", {"ddof": 2}, "ddof is 2"),
        ("NCHW", {"mode": "custom", "aggregate": "7"}, "out of range"),
        ("NCHW", {"mode": "layer", "aggregate": "3,-1"}, "twice"),
        ("NCHW", {"mode": "layer", "aggregate": "0", "wolfram_levels": True}, "out of range"),
        ("NCHW", {"scale_axes": "1,1"}, "twice"),
    ],
)
def test_contradictions(layout, options, says):
    with pytest.raises(UsageError, match=says):
        make_spec(Layout(layout), F4, **options)


# epsilon, momentum as stated, weight of the old value, moving variance; SEMANTICS section 5.
CONVENTION_TABLE = {
    "wolfram": (1e-3, 0.9, 0.9, "biased"),
    "keras": (1e-3, 0.99, 0.99, "biased"),
    "matlab": (1e-5, 0.1, 0.9, "biased"),
    "torch": (1e-5, 0.1, 0.9, "unbiased"),
    "onnx": (1e-5, 0.9, 0.9, "biased"),
    "sklearn": (0.0, 0.9, 0.9, "biased"),
}


@pytest.mark.parametrize("name", CONVENTION_TABLE)
def test_conventions(name):
    epsilon, momentum, old, variance = CONVENTION_TABLE[name]
    system = convention(name)
    assert (system.epsilon, system.momentum, system.moving_variance) == (
        epsilon,
        momentum,
        variance,
    )
    assert system.old_weight(momentum) == old
    spec = make_spec(Layout("NC"), F4, convention=name)
    assert (spec.epsilon, spec.epsilon_given, spec.convention) == (epsilon, True, name)
    assert make_spec(Layout("NC"), F4, convention=name, epsilon=0.25).epsilon == 0.25


def test_every_convention_is_in_the_table():
    assert set(CONVENTIONS) == set(CONVENTION_TABLE)


def test_our_own_defaults():
    spec = make_spec(Layout("NC"), F4)
    assert (spec.epsilon, spec.epsilon_given, spec.ddof, spec.nonfinite) == (1e-5, False, 0, "omit")
    assert make_spec(Layout("NC"), F4, epsilon=1e-5).epsilon_given
    assert convention(None).momentum == 0.9


@pytest.mark.parametrize(
    ("name", "dtype", "epsilon"),
    [
        (None, F4, 1e-5),
        ("keras", F8, 1e-6),
        ("wolfram", F4, 1e-3),
        ("torch", F8, np.finfo("f8").eps),
        ("torch", np.dtype(">f8"), np.finfo("f8").eps),
        ("torch", F4, np.finfo("f4").eps),
        ("torch", F2, np.finfo("f4").eps),
    ],
)
def test_epsilon_of_the_root_mean_square(name, dtype, epsilon):
    spec = make_spec(Layout("NTC"), dtype, mode="layer", method="rms", convention=name)
    assert spec.epsilon == float(epsilon)


def test_bfloat16_has_the_epsilon_of_float32():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    dtype = np.dtype(ml_dtypes.bfloat16)
    spec = make_spec(Layout("NC"), dtype, mode="layer", method="rms", convention="torch")
    assert spec.epsilon == float(np.finfo("f4").eps)


def test_geometry_of_groups():
    spec = make_spec(Layout("NCHW"), F4, mode="group", groups=3)
    geometry = bind(spec, (2, 6, 4, 5))
    assert geometry.segments == (1, 2, 4, 5)
    assert geometry.statistics_shape == (2, 3)
    assert (geometry.group_count, geometry.group_size) == (6, 40)
    assert geometry.scale_shape == (6,)
    assert geometry.divided_axis == 1
    assert geometry.region((1, 2, 0, 0), (2, 4, 4, 5)) == (slice(1, 2), slice(1, 2))
    # A box that cuts segments touches them all the same.
    assert geometry.region((0, 1, 0, 0), (2, 5, 4, 5)) == (slice(0, 2), slice(0, 3))
    assert geometry.scale_region((0, 1, 0, 0), (2, 5, 4, 5)) == (slice(1, 5),)


def test_geometry_of_batches():
    spec = make_spec(Layout("NCHW"), F4).by_batches(4)
    geometry = bind(spec, (10, 3, 2, 2))
    assert geometry.kept == (0, 1)
    assert geometry.segments == (4, 1, 2, 2)
    assert geometry.statistics_shape == (3, 3)
    assert geometry.region((8, 0, 0, 0), (10, 3, 2, 2)) == (slice(2, 3), slice(0, 3))
    assert not spec.per_dataset
    assert bind(spec, (3, 3, 2, 2)).statistics_shape == (1, 3)


def test_geometry_of_a_batch():
    geometry = bind(make_spec(Layout("NCHW"), F4), (10, 3, 2, 5))
    assert geometry.statistics_shape == geometry.scale_shape == (3,)
    assert geometry.group_size == 100
    assert geometry.divided_axis is None
    assert geometry.region((4, 1, 0, 0), (6, 2, 2, 5)) == (slice(1, 2),)
    assert bind(make_spec(Layout("N"), F4), (9,)).region((2,), (5,)) == ()


@pytest.mark.parametrize(
    ("mode", "layout"), [("instance", "NCHW"), ("layer", "NCHW"), ("batch", "CHW")]
)
def test_batches_need_an_aggregated_batch_axis(mode, layout):
    with pytest.raises(UsageError, match="Batches need a batch axis"):
        make_spec(Layout(layout), F4, mode=mode).by_batches(4)


@pytest.mark.parametrize(
    ("shape", "error", "says"),
    [
        ((2, 6, 4), UsageError, "is for 4 axes"),
        ((2, 7, 4, 5), UsageError, "3 groups do not divide axis 1"),
        ((2, 6, 0, 5), InputError, "empty: axis 2"),
        ((0, 6, 4, 5), InputError, "empty: axis 0"),
    ],
)
def test_shapes_that_do_not_fit(shape, error, says):
    spec = make_spec(Layout("NCHW"), F4, mode="group", groups=3)
    with pytest.raises(error, match=says):
        bind(spec, shape)


@pytest.mark.parametrize("groups", [0, -2])
def test_groups_below_one(groups):
    with pytest.raises(UsageError, match="groups"):
        bind(make_spec(Layout("NCHW"), F4, mode="group", groups=groups), (2, 6, 4, 5))
