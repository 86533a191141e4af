"""Layers without statistics, from ONNX models and checkpoints, to the names of torch and Keras."""

from __future__ import annotations

import json

import numpy as np
import pytest

from normcli.bundles.formats import read_bundle
from tests.cli.terminal import call

onnx = pytest.importorskip("onnx")

RANDOM = np.random.default_rng(7)
X = RANDOM.normal(3, 2, (4, 6, 5, 5)).astype("f4")
# Operator, opset, its attributes, and the extents of its parameters.
NODES = {
    "LayerNormalization": (17, {"axis": -1, "epsilon": 1e-3}, 5),
    "InstanceNormalization": (17, {"epsilon": 1e-3}, 6),
    "GroupNormalization": (21, {"num_groups": 3, "epsilon": 1e-3}, 6),
}


def model(operator: str, bias: bool = True, dtype: str = "f4") -> str:
    """Write a model of one node as m.onnx."""
    opset, about, size = NODES[operator]
    held = {"scale": RANDOM.normal(1, 0.5, size), "bias": RANDOM.normal(size=size)}
    names = [name for name in held if bias or name == "scale"]
    kind = onnx.TensorProto.DOUBLE if dtype == "f8" else onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(operator, ["x", *(f"n.{n}" for n in names)], ["y"], **about)],
        "g",
        [onnx.helper.make_tensor_value_info("x", kind, list(X.shape))],
        [onnx.helper.make_tensor_value_info("y", kind, list(X.shape))],
        [onnx.numpy_helper.from_array(held[n].astype(dtype), f"n.{n}") for n in names],
    )
    made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    onnx.save(made, "m.onnx")
    return "m.onnx"


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def evaluated(name: str) -> np.ndarray:
    from onnx.reference import ReferenceEvaluator

    return ReferenceEvaluator(name).run(None, {"x": X})[0]


@pytest.mark.parametrize("suffix", ["safetensors", "npz", "pt", "json", "h5"])
@pytest.mark.parametrize("operator", NODES)
def test_torch_evaluates_as_the_model(operator, suffix):
    torch = pytest.importorskip("torch")
    ended = call("convert", model(operator), "-o", f"o.{suffix}", "--to", "torch")
    assert ended.code == 0, ended.err
    assert "no running_mean and running_var" in ended.err
    assert "epsilon 0.001" in ended.err
    arrays = read_bundle(f"o.{suffix}").arrays
    assert sorted(arrays) == ["bias", "weight"]
    assert {values.dtype for values in arrays.values()} == {np.dtype("f4")}
    layer = {
        "LayerNormalization": lambda: torch.nn.LayerNorm(5, eps=1e-3),
        "InstanceNormalization": lambda: torch.nn.InstanceNorm2d(6, eps=1e-3, affine=True),
        "GroupNormalization": lambda: torch.nn.GroupNorm(3, 6, eps=1e-3),
    }[operator]()
    layer.load_state_dict({name: torch.tensor(values) for name, values in arrays.items()})
    y = layer(torch.tensor(X)).detach().numpy()
    np.testing.assert_allclose(y, evaluated("m.onnx"), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("suffix", ["safetensors", "npz"])
def test_keras_names(suffix):
    ended = call("convert", model("LayerNormalization"), "-o", f"o.{suffix}", "--to", "keras", "-q")
    assert ended.code == 0, ended.err
    assert sorted(read_bundle(f"o.{suffix}").arrays) == ["beta", "gamma"]


def test_what_is_absent_is_said():
    ended = call("convert", model("LayerNormalization", bias=False), "-o", "o.npz", "--to", "torch")
    assert (ended.code, "no bias" in ended.err) == (0, True)
    assert list(read_bundle("o.npz").arrays) == ["weight"]


def test_numbers_keep_their_bits():
    call("convert", model("LayerNormalization", dtype="f8"), "-o", "o.npz", "--to", "torch")
    kept = read_bundle("o.npz").arrays["weight"]
    assert kept.dtype == np.float64
    np.testing.assert_array_equal(kept, read_bundle("m.onnx").arrays["n.scale"])
    call("convert", "m.onnx", "-o", "f.npz", "--to", "torch", "--dtype", "float32")
    assert read_bundle("f.npz").arrays["weight"].dtype == np.float32


def test_a_checkpoint_changes_its_names():
    np.savez("ln.npz", weight=np.arange(3.0) + 1, bias=np.arange(3.0))
    ended = call("convert", "ln.npz", "-o", "o.safetensors", "--to", "keras")
    assert ended.code == 0, ended.err
    arrays = read_bundle("o.safetensors").arrays
    np.testing.assert_array_equal(arrays["gamma"], [1, 2, 3])
    np.testing.assert_array_equal(arrays["beta"], [0, 1, 2])


def test_parameters_of_groups_are_refused():
    """One value a group needs the number of channels, which the model does not tell."""
    NODES["old"] = (18, {"num_groups": 3}, 3)
    try:
        model("old")
        loaded = onnx.load("m.onnx")
        loaded.graph.node[0].op_type = "GroupNormalization"
        onnx.save(loaded, "m.onnx")
    finally:
        del NODES["old"]
    ended = call("convert", "m.onnx", "-o", "o.npz", "--to", "torch")
    assert ended.code == 7
    assert "3 groups" in ended.err
    assert "Hint" in ended.err


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        (["o.onnx"], 2, "without statistics"),
        (["o.keras"], 2, "without statistics"),
        (["o.json", "--to", "sklearn"], 2, "without statistics"),
        (["o.npz", "--to", "torch", "--estimate", "pooled"], 2, "--estimate"),
        (["o.npz", "--to", "torch", "--moving-variance", "biased"], 2, "--moving-variance"),
        (["o.npz", "--to", "torch", "--opset", "21"], 2, "--opset"),
    ],
)
def test_refusals(more, code, words):
    ended = call("convert", model("LayerNormalization"), "-o", *more)
    assert (ended.code, words in ended.err) == (code, True), ended.err


def test_a_float16_that_overflows_is_refused():
    np.savez("ln.npz", weight=np.array([1e6]), bias=np.array([0.0]))
    ended = call("convert", "ln.npz", "-o", "o.npz", "--to", "torch", "--dtype", "float32")
    assert ended.code == 0
    np.savez("ln.npz", weight=np.array([1e300]), bias=np.array([0.0]))
    ended = call("convert", "ln.npz", "-o", "p.npz", "--to", "torch", "--dtype", "float32")
    assert (ended.code, "float32" in ended.err) == (7, True)
    assert json.loads(call("convert", "ln.npz", "-o", "q.npz", "--to", "torch", "--json").out)
