"""GroupNormalization of ONNX: a scale and a bias for each group before opset 21, then for each
channel. What normcli computes is compared with onnx's reference evaluator.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from normcli.bundles.formats import read_bundle
from normcli.bundles.parameter_file import read_affine, read_scale
from tests.cli.terminal import call

onnx = pytest.importorskip("onnx")

GROUPS, CHANNELS = 3, 6
SCALE, BIAS = np.array([0.5, -2.0, 3.0]), np.array([1.0, 0.0, -4.0])


def ok(*words: object) -> str:
    ended = call(*map(str, words))
    assert ended.code == 0, ended.err
    return ended.err


def evaluated(path: str, x: np.ndarray) -> np.ndarray:
    from onnx.reference import ReferenceEvaluator

    session = ReferenceEvaluator(path)
    return session.run(None, {session.input_names[0]: x})[0]


def model(path: Path, opset: int, scale: np.ndarray, bias: np.ndarray, dtype: str) -> str:
    """Write a model as an exporter would, by onnx itself."""
    helper = onnx.helper
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    about = {"num_groups": GROUPS, "epsilon": 0.25, "name": "net.norm"}
    if opset >= 21:
        about["stash_type"] = kind
    node = helper.make_node(
        "GroupNormalization", ["x", "net.norm.weight", "net.norm.bias"], ["y"], **about
    )
    tensors = [
        onnx.numpy_helper.from_array(values.astype(dtype), f"net.norm.{name}")
        for name, values in (("weight", scale), ("bias", bias))
    ]
    ends = [helper.make_tensor_value_info(name, kind, None) for name in "xy"]
    graph = helper.make_graph([node], "g", ends[:1], ends[1:], tensors)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    path.write_bytes(made.SerializeToString())
    return str(path)


@pytest.fixture
def x(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    values = np.random.default_rng(4).normal(5, 3, (4, CHANNELS, 3, 2))
    np.save("x.npy", values)
    return values


MODE = ("--mode", "group", "--groups", GROUPS, "--layout", "NCHW", "--epsilon", 0.25)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize("opset", [18, 19, 20, 21, 22, 23])
def test_a_model_of_either_kind_is_read(x, tmp_path, opset, dtype):
    np.save("x.npy", x.astype(dtype))
    each = 1 if opset < 21 else CHANNELS // GROUPS
    path = model(tmp_path / "m.onnx", opset, np.repeat(SCALE, each), np.repeat(BIAS, each), dtype)
    truth = evaluated(path, x.astype(dtype))
    assert read_affine(path).groups == (GROUPS if opset < 21 else None)
    assert read_affine(f"{path}#net.norm").groups == read_affine(path).groups
    tolerance = {"f2": 2e-2, "f4": 1e-5, "f8": 1e-12}[dtype]
    # Through a file of normcli too.
    ok("convert", path, "-o", "affine.npz")
    ok("convert", path, "-o", "affine.json")
    for number, given in enumerate(
        (
            ["--affine", path],
            ["--affine", f"{path}#net.norm"],
            ["--scale", path, "--bias", f"{path}#net.norm.bias"],
            ["--affine", "affine.npz"],
            ["--affine", "affine.json"],
        )
    ):
        if number == 2:  # A lone array does not tell what it is of.
            given[3] = path
        ok("apply", "x.npy", "-o", f"y{number}.npy", *MODE, *given)
        np.testing.assert_allclose(np.load(f"y{number}.npy"), truth, rtol=tolerance, atol=tolerance)
    # What is recorded beside the output has a value for each channel.
    assert read_scale("y0.npy.stats.json").tolist() == np.repeat(SCALE, 2).tolist()


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("opset", [None, 18, 20, 21, 23])
def test_a_model_of_either_kind_is_written(x, opset, layout):
    data = x if layout == "NCHW" else np.ascontiguousarray(np.moveaxis(x, 1, -1))
    np.save("x.npy", data)
    np.savez("affine.npz", scale=np.repeat(SCALE, 2), bias=np.repeat(BIAS, 2))
    ok("apply", "x.npy", "-o", "y.npy", "--mode", "group", "--groups", GROUPS, "--layout", layout,
       "--affine", "affine.npz", "--stats-out", "s.json")  # fmt: skip
    ok("convert", "s.json", "-o", "m.onnx", *([] if opset is None else ["--opset", opset]))
    made = onnx.load("m.onnx")
    assert made.opset_import[0].version == (opset or 21)
    assert made.graph.initializer[0].dims == [GROUPS if opset in (18, 20) else CHANNELS]
    np.testing.assert_allclose(evaluated("m.onnx", data), np.load("y.npy"), rtol=1e-6, atol=1e-6)
    ok("convert", "m.onnx", "-o", "back.npz")
    ok("apply", "x.npy", "-o", "z.npy", "--mode", "group", "--groups", GROUPS, "--layout", layout,
       "--affine", "back.npz")  # fmt: skip
    np.testing.assert_array_equal(np.load("z.npy"), np.load("y.npy"))


def test_other_nodes_take_an_opset_too(x):
    for mode, opset in (("instance", 18), ("batch", 19), ("layer", 22)):
        ok("apply", "x.npy", "-o", "y.npy", "--mode", mode, "--layout", "NCHW", "--stats-out",
           "s.json", "--overwrite")  # fmt: skip
        ok("convert", "s.json", "-o", "m.onnx", "--opset", opset, "--overwrite")
        assert onnx.load("m.onnx").opset_import[0].version == opset
        np.testing.assert_allclose(evaluated("m.onnx", x), np.load("y.npy"), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("term", ["scale", "bias"])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_init_and_learn_take_a_value_for_each_group(x, tmp_path, layout, term):
    path = model(tmp_path / "m.onnx", 18, SCALE, BIAS, "f8")
    data = x if layout == "NCHW" else np.ascontiguousarray(np.moveaxis(x, 1, -1))
    np.save("x.npy", data)
    spread = np.repeat({"scale": SCALE, "bias": BIAS}[term], CHANNELS // GROUPS)
    mode = ("--mode", "group", "--groups", GROUPS, "--layout", layout)
    ok("init", "x.npy", "-o", "i.npz", *mode, f"--{term}", path)
    assert np.load("i.npz")[term].tolist() == spread.tolist()
    # Statistics tell their groups too.
    ok("apply", "x.npy", "-o", "y.npy", *mode, "--stats-out", "s.json")
    ok("init", "s.json", "-o", "j.npz", f"--{term}", path)
    assert np.load("j.npz")[term].tolist() == spread.tolist()
    ok("learn", "x.npy", "x.npy", "-o", "l.npz", *mode, f"--{term}", path, "--freeze", term)
    assert np.load("l.npz")[term].tolist() == spread.tolist()
    for words in (["--layout", layout], [*mode[:3], "2", *mode[4:]]):
        ended = call("init", "x.npy", "-o", "no.npz", *map(str, words), f"--{term}", path)
        assert (ended.code, "each of 3 groups" in ended.err) == (3, True), ended.err
    ended = call("init", "--shape", "6", "-o", "no.npz", f"--{term}", path)
    assert (ended.code, "each of 3 groups" in ended.err) == (3, True), ended.err


def test_what_is_refused(x, tmp_path):
    path = model(tmp_path / "m.onnx", 18, SCALE, BIAS, "f4")
    for words, told in (
        (["--mode", "group", "--groups", 2], "each of 3 groups"),
        (["--mode", "instance"], "each of 3 groups"),
        (["--mode", "group", "--groups", 3, "--scale-axes", "HW"], "each of 3 groups"),
    ):
        for which in ("--affine", "--scale"):
            ended = call("apply", "x.npy", "-o", "no.npy", "--layout", "NCHW", *words, which, path)
            assert (ended.code, told in ended.err) == (3, True), ended.err
    wrong = model(tmp_path / "w.onnx", 18, np.ones(4), np.ones(4), "f4")
    ended = call("apply", "x.npy", "-o", "no.npy", *MODE, "--affine", wrong)
    assert ended.code == 3
    assert "4 values for 3 groups" in ended.err
    assert not Path("no.npy").exists()

    np.savez("affine.npz", scale=np.arange(6.0), bias=np.zeros(6))
    ok("apply", "x.npy", "-o", "y.npy", *MODE, "--affine", "affine.npz", "--stats-out", "s.json")
    ended = call("convert", "s.json", "-o", "o.onnx", "--opset", 18)
    assert (ended.code, "differs within a group" in ended.err) == (7, True)
    ok("apply", "x.npy", "-o", "r.npy", "--mode", "layer", "--method", "rms", "--layout", "NCHW",
       "--stats-out", "r.json")  # fmt: skip
    for words, code in (
        (["r.json", "-o", "o.onnx", "--opset", 21], 2),
        (["s.json", "-o", "o.onnx", "--opset", 17], 2),
        (["s.json", "-o", "o.npz", "--to", "torch", "--opset", 18], 2),
        (["s.json", "-o", "o.npz", "--opset", 18], 2),
    ):
        assert call("convert", *words).code == code, words
    assert not Path("o.onnx").exists()
    damaged = dict(read_bundle(path).arrays)
    np.savez("d.npz", scale=SCALE, parameter_groups=np.array([3.5]), also=damaged["net.norm.bias"])
    ended = call("apply", "x.npy", "-o", "no.npy", *MODE, "--affine", "d.npz")
    assert (ended.code, "one integer" in ended.err) == (3, True)
