"""Beside onnx's reference evaluator, which is the specification in NumPy: each operator."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import normcli
from normcli.kernels import select

from .desk import close, cuts, draw, draw_affine, rng_of

pytestmark = pytest.mark.slow

LOOSE = {"float16": 2e-2, "float32": 2e-4, "float64": 1e-9}
DTYPES = tuple(LOOSE)
# Attributes of a model are float32.
EPSILON = float(np.float32(1e-5))


@pytest.fixture(params=["numba"])
def kernel(request, monkeypatch) -> str:
    monkeypatch.setattr(select, "SMALL", 0)
    return request.param


@pytest.fixture
def run():
    onnx = pytest.importorskip("onnx")
    evaluator = pytest.importorskip("onnx.reference").ReferenceEvaluator

    def call(operator: str, opset: int, outputs: int = 1, told: Any = None, **feeds: Any) -> Any:
        kind = onnx.helper.np_dtype_to_tensor_dtype(feeds["X"].dtype)
        names = [f"Y{k}" for k in range(outputs)]
        node = onnx.helper.make_node(operator, list(feeds), names, **(told or {}))
        graph = onnx.helper.make_graph(
            [node],
            "g",
            [onnx.helper.make_tensor_value_info(n, kind, v.shape) for n, v in feeds.items()],
            [onnx.helper.make_tensor_value_info(n, kind, None) for n in names],
        )
        sets = [onnx.helper.make_opsetid("", opset)]
        made = evaluator(onnx.helper.make_model(graph, opset_imports=sets)).run(None, feeds)
        return made[0] if outputs == 1 else made

    return call


def files(desk: Any, **given: np.ndarray) -> dict[str, str]:
    return {name: desk.write(name, values) for name, values in given.items()}


@pytest.mark.parametrize("momentum", [0.9, 0.25])
@pytest.mark.parametrize(
    ("shape", "layout", "size"),
    [((22, 5), "NC", 8), ((11, 4, 6), "NCT", 4), ((9, 5, 3, 4), "NCHW", 4)],
    ids=str,
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_batch_normalization(run, desk, dtype, shape, layout, size, momentum):
    desk.turn(len(shape))
    rng = rng_of("onnx batch", dtype, shape, momentum)
    x = draw(rng, shape, dtype)
    scale, bias = draw_affine(rng, shape[1:2], dtype)
    mean, var = np.zeros(shape[1], dtype), np.ones(shape[1], dtype)
    trained = []
    sizes = [size] * (shape[0] // size) + [shape[0] % size]
    for cut in cuts(sizes):
        feeds = {"X": x[cut], "s": scale, "b": bias, "m": mean, "v": var}
        told = {"momentum": momentum, "training_mode": 1}
        piece, mean, var = run("BatchNormalization", 15, 3, told, **feeds)
        trained.append(piece)
    options = {"layout": layout, "convention": "onnx"}
    source, given = desk.put("x", x), files(desk, scale=scale, bias=bias)
    own = desk.apply(source, training=True, batch_size=size, **options, **given)
    close(own, np.concatenate(trained), LOOSE[dtype])
    fitted = normcli.fit(source, batch_size=size, momentum=momentum, **options)
    tolerance = max(LOOSE[dtype], 1e-6)
    close(fitted.moving_mean, mean, tolerance)
    close(fitted.moving_variance, var, tolerance)
    other = draw(rng, (4, *shape[1:]), dtype)
    moving = {"m": fitted.moving_mean.astype(dtype), "v": fitted.moving_variance.astype(dtype)}
    evaluated = run("BatchNormalization", 15, X=other, s=scale, b=bias, **moving)
    close(desk.apply(desk.put("other", other), stats=fitted, **given), evaluated, tolerance * 10)


@pytest.mark.parametrize("dtype", DTYPES)
def test_operators_that_measure_observations(run, desk, dtype):
    rng = rng_of("onnx observations", dtype)
    x = draw(rng, (4, 6, 5, 3), dtype)
    source = desk.put("x", x)
    kind = {"float16": 10, "float32": 1, "float64": 11}[dtype]  # of TensorProto
    shared = {"layout": "NCHW", "epsilon": EPSILON}
    scale, bias = draw_affine(rng, (6,), dtype)
    given = files(desk, scale=scale, bias=bias)
    made = run("InstanceNormalization", 6, X=x, s=scale, b=bias)
    close(desk.apply(source, mode="instance", **shared, **given), made, LOOSE[dtype])
    for groups in (1, 3, 6):
        mode = {"mode": "group", "groups": groups, **shared}
        told = {"num_groups": groups, "stash_type": kind if dtype == "float64" else 1}
        made = run("GroupNormalization", 21, told=told, X=x, s=scale, b=bias)
        close(desk.apply(source, **mode, **given), made, LOOSE[dtype])
        told.pop("stash_type")
        few = draw_affine(rng, (groups,), dtype)
        made = run("GroupNormalization", 18, told=told, X=x, s=few[0], b=few[1])
        each = (np.repeat(values, 6 // groups) for values in few)
        spread = {
            name: desk.write(f"{name}_of_groups", v) for name, v in zip(given, each, strict=True)
        }
        close(desk.apply(source, **mode, **spread), made, LOOSE[dtype])
    for axis in (-1, 2, 1):
        axes = list(range(axis % 4, 4))
        mode = {"mode": "layer", "aggregate": ",".join(map(str, axes)), **shared}
        scale, bias = draw_affine(rng, x.shape[axes[0] :], dtype)
        given = files(desk, scale=scale, bias=bias)
        made = run("LayerNormalization", 17, told={"axis": axis}, X=x, s=scale, b=bias)
        close(desk.apply(source, **mode, **given), made, LOOSE[dtype])
        made = run("RMSNormalization", 23, told={"axis": axis}, X=x, s=scale)
        alone = {"scale": given["scale"]}
        close(desk.apply(source, method="rms", **mode, **alone), made, LOOSE[dtype])


def test_mean_variance_normalization_adds_epsilon_to_the_deviation(run, desk):
    x = draw(rng_of("mvn"), (5, 4, 3, 2), "float32")
    made = run("MeanVarianceNormalization", 13, X=x)
    own = desk.apply(desk.put("x", x), layout="NCHW", epsilon=1e-9, epsilon_placement="outside")
    close(own, made, 2e-4)
