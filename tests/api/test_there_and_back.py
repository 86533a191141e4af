"""Every format that convert writes, and back: the numbers of the apply stay those of the fit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.cli.terminal import Ended, call

X = np.random.default_rng(5).normal(0, 1, (12, 3, 4, 5)) * [[[2.0]], [[0.5]], [[7.0]]] + 1.0

# What is written, where to, what it needs, and whether it holds scale, epsilon and momentum.
PLACES = [
    ("torch", "bn.npz", None),
    ("torch", "bn.safetensors", "safetensors"),
    ("torch", "bn.json", None),
    ("torch", "bn.h5", None),
    ("torch", "bn.pt", "torch"),
    ("torch", "bn.pth", "torch"),
    ("keras", "bn.npz", None),
    ("keras", "bn.safetensors", "safetensors"),
    ("keras", "bn.weights.h5", None),
    ("onnx", "bn.onnx", "onnx"),
    ("sklearn", "scaler.json", None),
    ("torchvision", "normalize.json", None),
    ("kaldi", "cmvn.txt", None),
    ("kaldi", "cmvn.ark", None),
]
# The epsilon of a file that states none is told.
SILENT = {
    ("torch", ".npz"),
    ("torch", ".pt"),
    ("torch", ".pth"),
    ("keras", ".npz"),
    ("keras", ".h5"),
}
DIVISORS = ("sklearn", "torchvision", "kaldi")


def ok(*words: object) -> Ended:
    ended = call(*words)
    assert ended.code == 0, ended.err
    return ended


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", X)
    np.savez("affine.npz", scale=np.array([1.5, 0.5, 2.0]), bias=np.array([0.25, 3.0, -1.0]))
    return tmp_path


@pytest.mark.parametrize("fit", ["pooled", "moving", "unbiased"])
@pytest.mark.parametrize(("target", "file", "package"), PLACES)
def test_the_numbers_stay(folder, target, file, package, fit):
    if package is not None:
        pytest.importorskip(package)
    words = {
        "pooled": [],
        "moving": ["--momentum", 0.75, "--batch-size", 5],
        "unbiased": ["--convention", "torch", "--momentum", 0.25, "--batch-size", 5],
    }[fit]
    ok("fit", "x.npy", "-o", "fit.json", "--layout", "NCHW", "--epsilon", 0.125, *words)
    ok("apply", "x.npy", "-o", "y.npy", "--stats", "fit.json", "--affine", "affine.npz",
       "--stats-out", "s.json")  # fmt: skip
    y = np.load("y.npy")
    more = ["--dtype", "float64"] if target not in DIVISORS else []
    told = ok("convert", "s.json", "-o", file, "--to", target, *more)
    silent = (target, Path(file).suffix) in SILENT
    epsilon = ["--epsilon", 0.125] if silent else []
    ok("convert", file, "-o", "back.json", "--layout", "NCHW", "--from", target, *epsilon)
    ok("apply", "x.npy", "-o", "z.npy", "--stats", "back.json")
    np.testing.assert_allclose(np.load("z.npy"), y, rtol=1e-9, atol=1e-9)
    back = json.loads(Path("back.json").read_text())
    about = back["provenance"]
    if target in DIVISORS:
        assert "folded" in told.err  # scale and bias have no place of their own
        assert back["epsilon"] == 0
        return
    assert back["epsilon"] == 0.125
    # Each side states momentum in its own sense; what comes back weighs the old value.
    held = about["converted_from"]["momentum"]
    if fit == "pooled" and target == "onnx":
        assert held == pytest.approx(0.9)  # the operator's own default
    elif fit == "pooled" or silent:
        assert held is None
    else:
        assert held == pytest.approx(0.75)
    written = "unbiased" if fit == "unbiased" else "biased"
    own = "unbiased" if target == "torch" else "biased"
    if written != own:
        assert "keeps" in told.err  # the divisor is said where it is not the framework's
    if not silent and target != "onnx":
        assert about["variance_divisor"] == written


@pytest.mark.parametrize("suffix", [".pt", ".pth"])
def test_a_state_dict_is_loaded_by_torch(folder, suffix):
    torch = pytest.importorskip("torch")
    ok("fit", "x.npy", "-o", "fit.json", "--layout", "NCHW")
    ok("apply", "x.npy", "-o", "y.npy", "--stats", "fit.json", "--affine", "affine.npz",
       "--stats-out", "s.json")  # fmt: skip
    ended = ok("convert", "s.json", "-o", f"bn{suffix}")
    assert "torch.nn.BatchNorm2d(3, eps=1e-05" in ended.err
    layer = torch.nn.BatchNorm2d(3, dtype=torch.float64)
    layer.load_state_dict(torch.load(f"bn{suffix}", weights_only=True))
    with torch.no_grad():
        made = layer.eval()(torch.from_numpy(X)).numpy()
    np.testing.assert_allclose(made, np.load("y.npy"), rtol=1e-12, atol=1e-12)
    again = call("convert", "s.json", "-o", f"bn{suffix}")
    assert (again.code, "exists" in again.err) == (2, True)
    other = call("convert", "s.json", "-o", f"keras{suffix}", "--to", "keras")
    assert other.code == 2
    assert not Path(f"keras{suffix}").exists()


def test_parameters_of_a_layer_are_a_state_dict_too(folder):
    torch = pytest.importorskip("torch")
    ok("apply", "x.npy", "-o", "y.npy", "--layout", "NCHW", "--mode", "instance", "--affine",
       "affine.npz", "--stats-out", "s.json")  # fmt: skip
    ok("convert", "s.json", "-o", "in.pt")
    layer = torch.nn.InstanceNorm2d(3, affine=True, dtype=torch.float64)
    layer.load_state_dict(torch.load("in.pt", weights_only=True))
    with torch.no_grad():
        made = layer(torch.from_numpy(X)).numpy()
    np.testing.assert_allclose(made, np.load("y.npy"), rtol=1e-12, atol=1e-12)
