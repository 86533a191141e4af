"""Statistics to write and read, of every mode."""

import numpy as np

from normcli.domain.affine import Affine
from normcli.domain.dtypes import bfloat16
from normcli.domain.geometry import bind
from normcli.domain.layout import Layout
from normcli.domain.moments import Moments
from normcli.domain.moving_average import MovingRule, MovingStatistics
from normcli.domain.presets import make_spec
from normcli.domain.statistics import SourceDescription, Statistics

SHAPE = (3, 4, 2, 5)
MODES = [
    {"mode": "batch"},
    {"mode": "batch", "method": "rms", "convention": "torch", "ddof": 1},
    {"mode": "instance", "nonfinite": "propagate", "placement": "outside"},
    {"mode": "layer", "epsilon": 0.0},
    {"mode": "group", "groups": 2, "placement": "floor"},
    {"mode": "custom", "aggregate": "all", "scale_axes": "none"},
    {"mode": "custom", "aggregate": "HW", "scale_axes": "same", "nonfinite": "error"},
]
BY_BATCHES = "by batches"


def spec_of(options, dims=("time", "", "lat", "lon")):
    if options == BY_BATCHES:
        return make_spec(Layout("NCHW", dims), np.dtype("f4")).by_batches(2)
    return make_spec(Layout("NCHW", dims), np.dtype("f4"), **options)


def statistics_of(spec, seed=0, moving=None, affine=True, dtype="<f4"):
    rng = np.random.default_rng(seed)
    geometry = bind(spec, SHAPE)
    shape = geometry.statistics_shape
    count = rng.integers(0, 9, shape)
    low = rng.normal(size=shape)
    moments = Moments(
        count=count,
        mean=np.where(count, low + 1 / 3, 0.0),
        m2=np.where(count, rng.random(shape), 0.0),
        minimum=np.where(count, low, np.inf),
        maximum=np.where(count, low + 1, -np.inf),
        nonfinite=rng.integers(0, 2**62, shape),
    )
    kept = None
    if moving is not None:
        momentum = None if moving == "cumulative" else moving
        rule = MovingRule(momentum, (2, 1), "unbiased", "first-batch")
        kept = MovingStatistics(rule, rng.normal(size=shape), rng.random(shape), 7)
    return Statistics(
        spec=spec,
        source=SourceDescription(
            SHAPE,
            bfloat16() if dtype == "bfloat16" else np.dtype(dtype),
            spec.layout.names,
            ({"path": "ä.npy", "size": 480, "mtime": 1.7e9 + 0.1, "fingerprint": "a" * 64},),
        ),
        moments=moments,
        moving=kept,
        affine=Affine(rng.normal(size=geometry.scale_shape)) if affine else Affine(),
        provenance={"version": "0.1.0", "command": "normcli fit x -o y", "created": "2026-01-01"},
    )
