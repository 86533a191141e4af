"""What is written for other programs gives the numbers of an apply; what they wrote comes back."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

import normcli
from normcli.bundles.bundle import Bundle
from normcli.bundles.formats import read_bundle, write_bundle
from tests.cli.terminal import call

REFERENCES = Path(__file__).parents[1] / "references"
MODEL = REFERENCES / "keras_model.keras"


def normcli_ok(*arguments):
    ended = call(*arguments)
    assert ended.code == 0, ended.err
    return ended


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Work where x.npy is (float64, NCHW), with a scale and a bias for it in affine.npz."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(11)
    x = rng.normal(0, 1, (6, 3, 4, 5)) * [[[2.0]], [[0.5]], [[7.0]]] + [[[1.0]], [[-40]], [[3]]]
    np.save("x.npy", x)
    np.savez("affine.npz", scale=np.array([1.5, -0.5, 2.0]), bias=np.array([0.25, 3.0, -1.0]))
    return x


def fitted(*options, affine=True, data="x.npy", layout="NCHW"):
    """Fit and apply; return the path of the sidecar and what the apply wrote."""
    normcli_ok("fit", data, "-o", "fit.json", "--layout", layout, "--overwrite", *options)
    given = ["--affine", "affine.npz"] if affine else []
    normcli_ok(
        "apply", data, "-o", "y.npy", "--stats", "fit.json", "--stats-out", "s.json",
        "--overwrite", *given,
    )  # fmt: skip
    return np.load("y.npy")


def per_channel(values, axis=1, ndim=4):
    shape = [1] * ndim
    shape[axis] = -1
    return np.reshape(values, shape)


def evaluate(x, arrays, epsilon, names=("running_mean", "running_var", "weight", "bias"), axis=1):
    """Return what any framework's layer gives: the plain formula."""
    mean, variance, scale, bias = (
        per_channel(arrays[n], axis, x.ndim) if n in arrays else None for n in names
    )
    y = (x - mean) / np.sqrt(variance + epsilon)
    y = y if scale is None else y * scale
    return y if bias is None else y + bias


class TestTorch:
    @pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".json", ".h5"])
    def test_names_types_and_numbers(self, place, suffix):
        y = fitted()
        ended = normcli_ok("convert", "s.json", "-o", f"bn{suffix}", "--to", "torch")
        arrays = read_bundle(f"bn{suffix}").arrays
        names = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
        assert sorted(arrays) == sorted(names)
        assert {str(arrays[n].dtype) for n in names[:4]} == {"float64"}
        assert arrays["num_batches_tracked"].dtype == np.int64
        assert arrays["num_batches_tracked"].shape == ()
        np.testing.assert_allclose(evaluate(place, arrays, 1e-5), y, rtol=1e-12, atol=1e-12)
        assert "torch.nn.BatchNorm2d(3, eps=1e-05)" in ended.err
        assert "divisor n, as an apply uses it; torch keeps n - 1" in ended.err

    def test_torch_itself_loads_and_evaluates_it(self, place):
        torch = pytest.importorskip("torch")
        load_file = pytest.importorskip("safetensors.torch").load_file
        y = fitted()
        normcli_ok("convert", "s.json", "-o", "bn.safetensors", "--to", "torch")
        normcli_ok("convert", "s.json", "-o", "bn.npz", "--to", "torch")
        layer = torch.nn.BatchNorm2d(3, eps=1e-5).double().eval()
        for state in (
            load_file("bn.safetensors"),
            {name: torch.from_numpy(a) for name, a in np.load("bn.npz").items()},
        ):
            layer.load_state_dict(state)
            with torch.no_grad():
                got = layer(torch.from_numpy(place)).numpy()
            np.testing.assert_allclose(got, y, rtol=1e-10, atol=1e-12)

    def test_moving_statistics_momentum_and_divisor(self, place):
        fitted("--momentum", "0.9", "--batch-size", "2", "--moving-variance", "unbiased")
        ended = normcli_ok("convert", "s.json", "-o", "bn.safetensors", "--to", "torch")
        bundle = read_bundle("bn.safetensors")
        kept = normcli.read_statistics("s.json")
        assert bundle.arrays["running_mean"].tolist() == kept.moving_mean.tolist()
        assert bundle.arrays["running_var"].tolist() == kept.moving_variance.tolist()
        assert int(bundle.arrays["num_batches_tracked"]) == 3
        assert bundle.attrs["momentum"] == pytest.approx(0.1)
        assert "momentum=0.1)" in ended.err
        assert "divisor" not in ended.err
        # What torch trains to with the same settings.
        mean, variance = np.zeros(3), np.ones(3)
        for k in range(3):
            batch = place[2 * k : 2 * k + 2]
            mean = 0.9 * mean + 0.1 * batch.mean((0, 2, 3))
            variance = 0.9 * variance + 0.1 * batch.var((0, 2, 3), ddof=1)
        np.testing.assert_allclose(bundle.arrays["running_mean"], mean, rtol=1e-13)
        np.testing.assert_allclose(bundle.arrays["running_var"], variance, rtol=1e-13)

    def test_the_plain_average_has_no_momentum(self, place):
        fitted("--momentum", "cumulative", "--batch-size", "3")
        ended = normcli_ok("convert", "s.json", "-o", "bn.npz", "--to", "torch")
        assert "eps=1e-05, momentum=None)" in ended.err
        ended = normcli_ok("convert", "s.json", "-o", "k.npz", "--to", "keras")
        assert "no momentum that keras could hold" in ended.err

    @pytest.mark.parametrize("suffix", [".safetensors", ".json", ".h5", ".zarr"])
    def test_back_with_epsilon_momentum_and_divisor(self, place, suffix):
        y = fitted("--momentum", "0.75", "--batch-size", "2", "--epsilon", "0.125",
                   "--moving-variance", "unbiased")  # fmt: skip
        normcli_ok("convert", "s.json", "-o", f"bn{suffix}", "--to", "torch")
        normcli_ok("convert", f"bn{suffix}", "-o", "back.npz", "--layout", "NCHW")
        normcli_ok("apply", "x.npy", "-o", "z.npy", "--stats", "back.npz")
        assert np.array_equal(np.load("z.npy"), y)
        ended = normcli_ok("convert", "back.npz", "-o", f"again{suffix}", "--to", "torch")
        assert "eps=0.125, momentum=0.25)" in ended.err
        assert "divisor" not in ended.err
        one, two = read_bundle(f"bn{suffix}"), read_bundle(f"again{suffix}")
        assert one.attrs == two.attrs
        assert all(np.array_equal(one.arrays[n], two.arrays[n]) for n in one.arrays)

    def test_the_divisor_is_converted(self, place):
        fitted(affine=False)
        for estimate in ((), ("--estimate", "pooled")):
            normcli_ok(
                "convert", "s.json", "-o", "bn.npz", "--to", "torch", "--overwrite",
                "--moving-variance", "unbiased", *estimate,
            )  # fmt: skip
            np.testing.assert_allclose(
                np.load("bn.npz")["running_var"], place.var((0, 2, 3), ddof=1), rtol=1e-12
            )
        assert "weight" not in np.load("bn.npz")

    def test_a_moving_divisor_is_converted_where_it_can_be(self, place):
        fitted("--momentum", "cumulative", "--batch-size", "3", affine=False)
        to = ("--to", "torch", "--moving-variance", "unbiased", "--overwrite")
        normcli_ok("convert", "s.json", "-o", "bn.npz", *to)
        want = (place[:3].var((0, 2, 3), ddof=1) + place[3:].var((0, 2, 3), ddof=1)) / 2
        np.testing.assert_allclose(np.load("bn.npz")["running_var"], want, rtol=1e-12)
        # A start value of 1 has no divisor, and a short last batch has its own.
        for options in (("--momentum", "0.9", "--batch-size", "3"),
                        ("--momentum", "cumulative", "--batch-size", "4")):  # fmt: skip
            fitted(*options, affine=False)
            ended = call("convert", "s.json", "-o", "bn.npz", *to)
            assert ended.code == 7
            assert "divisor of this variance cannot be changed" in ended.err

    def test_an_absent_bias_is_said(self, place):
        fitted(affine=False)
        write_bundle("scale.npz", Bundle({"scale": np.ones(3) * 2}))
        normcli_ok("apply", "x.npy", "-o", "z.npy", "--stats", "fit.json", "--scale", "scale.npz",
                   "--stats-out", "scaled.json")  # fmt: skip
        ended = normcli_ok("convert", "scaled.json", "-o", "bn.npz", "--to", "torch")
        assert "the absent bias is zeros" in ended.err
        assert np.load("bn.npz")["bias"].tolist() == [0, 0, 0]

    def test_constant_channels(self, place):
        x = place.copy()
        x[:, 1] = 4.5
        np.save("x.npy", x)
        for epsilon in ("1e-5", "0"):
            y = fitted("--epsilon", epsilon)
            ended = normcli_ok("convert", "s.json", "-o", "bn.npz", "--to", "torch", "--overwrite")
            assert "1 of 3 channels were constant" in ended.err
            other = x + 1
            got = evaluate(other, np.load("bn.npz"), float(epsilon))
            normcli_ok("apply", "x.npy", "-o", "same.npy", "--stats", "s.json", "--overwrite")
            np.testing.assert_allclose(evaluate(x, np.load("bn.npz"), float(epsilon)), y, atol=1e-9)
            assert np.all(got[:, 1] == 3.0)

    def test_rounding_is_said_or_refused(self, place):
        far = (place - place.mean((0, 2, 3), keepdims=True)) + 1e4 + 0.1234
        np.save("x.npy", far)
        fitted(affine=False)
        to = ("convert", "s.json", "-o", "bn.npz", "--to", "torch", "--overwrite")
        ended = normcli_ok(*to, "--dtype", "float32")
        assert "float32 moves normalized values by up to" in ended.err
        np.save("x.npy", far + 1e7)
        fitted(affine=False)
        ended = call(*to, "--dtype", "float32")
        assert ended.code == 7
        assert "--dtype float64 keeps them" in ended.err
        normcli_ok(*to)

    @pytest.mark.parametrize("method", ["center", "std", "rms"])
    @pytest.mark.parametrize("placement", ["inside", "outside", "floor"])
    def test_methods_and_placements_are_translated(self, place, method, placement):
        y = fitted("--method", method, "--epsilon", "0.25", "--epsilon-placement", placement)
        normcli_ok("convert", "s.json", "-o", "bn.safetensors", "--to", "torch")
        bundle = read_bundle("bn.safetensors")
        got = evaluate(place, bundle.arrays, bundle.attrs["epsilon"])
        np.testing.assert_allclose(got, y, rtol=1e-12, atol=1e-12)


class TestOnnx:
    @pytest.fixture(autouse=True)
    def _needs_onnx(self):
        pytest.importorskip("onnx")

    def run(self, x):
        import onnx
        from onnx.reference import ReferenceEvaluator

        return onnx.load("m.onnx"), ReferenceEvaluator("m.onnx").run(None, {"x": x})[0]

    @pytest.mark.parametrize("order", ["NCHW", "NHWC", "CNHW", "HWCN"])
    @pytest.mark.parametrize("dtype", ["f4", "f8"])
    def test_a_batch_normalization(self, place, order, dtype):
        x = place.transpose(["NCHW".index(letter) for letter in order]).astype(dtype).copy()
        np.save("x.npy", x)
        y = fitted(layout=order)
        normcli_ok("convert", "s.json", "-o", "m.onnx")
        model, got = self.run(x)
        assert "BatchNormalization" in [node.op_type for node in model.graph.node]
        assert got.dtype == x.dtype
        rtol = 1e-5 if dtype == "f4" else 1e-9  # Attributes of ONNX are float32.
        np.testing.assert_allclose(got, y, rtol=rtol, atol=rtol)

    @pytest.mark.parametrize("layout", ["NC", "TC"])
    def test_vectors(self, place, layout):
        x = np.moveaxis(place, 1, -1).reshape(-1, 3).copy()
        np.save("x.npy", x)
        y = fitted(layout=layout)
        normcli_ok("convert", "s.json", "-o", "m.onnx")
        model, got = self.run(x)
        assert [node.op_type for node in model.graph.node] == ["BatchNormalization"]
        np.testing.assert_allclose(got, y, rtol=1e-9, atol=1e-9)

    @pytest.mark.parametrize(
        ("operator", "order", "options"),
        [
            ("InstanceNormalization", "NCHW", ["--mode", "instance"]),
            ("InstanceNormalization", "NHWC", ["--mode", "instance"]),
            ("GroupNormalization", "NCHW", ["--mode", "group", "--groups", "3"]),
            ("GroupNormalization", "NHWC", ["--mode", "group", "--groups", "1"]),
            ("LayerNormalization", "NCHW", ["--mode", "layer"]),
            ("LayerNormalization", "NCHW", ["--mode", "layer", "--aggregate", "CHW"]),
            ("RMSNormalization", "NCHW", ["--mode", "layer", "--method", "rms"]),
        ],
    )
    @pytest.mark.parametrize("affine", [True, False])
    def test_nodes_that_measure_each_observation(self, place, operator, order, options, affine):
        x = place.transpose(["NCHW".index(letter) for letter in order]).copy()
        np.save("x.npy", x)
        given = []
        if affine:
            shape = (3,) if operator[0] in "IG" else (3, 4, 5) if "CHW" in options else (5,)
            rng = np.random.default_rng(2)
            names = ("scale",) if operator[0] == "R" else ("scale", "bias")
            np.savez("affine.npz", **{name: rng.normal(1, 1, shape) for name in names})
            given = ["--affine", "affine.npz"]
        normcli_ok(
            "apply", "x.npy", "-o", "y.npy", "--layout", order, "--stats-out", "s.json", *options,
            *given,
        )  # fmt: skip
        ended = normcli_ok("convert", "s.json", "-o", "m.onnx")
        model, got = self.run(x)
        assert operator in [node.op_type for node in model.graph.node]
        np.testing.assert_allclose(got, np.load("y.npy"), rtol=1e-7, atol=1e-7)
        assert "measures each observation itself" in ended.err

    def test_what_no_node_computes(self, place):
        for options in (
            ["--mode", "custom", "--aggregate", "CH", "--scale-axes", "W"],
            ["--mode", "instance", "--ddof", "1"],
            ["--mode", "instance", "--epsilon-placement", "outside"],
        ):
            normcli_ok("apply", "x.npy", "-o", "y.npy", "--layout", "NCHW", "--stats-out",
                       "s.json", "--overwrite", *options)  # fmt: skip
            ended = call("convert", "s.json", "-o", "m.onnx")
            assert ended.code == 7
            assert "No ONNX node computes" in ended.err
        assert not Path("m.onnx").exists()

    def test_back(self, place):
        y = fitted("--momentum", "0.75", "--batch-size", "2")
        normcli_ok("convert", "s.json", "-o", "m.onnx")
        normcli_ok("convert", "m.onnx", "-o", "back.json", "--layout", "NCHW")
        normcli_ok("apply", "x.npy", "-o", "z.npy", "--stats", "back.json")
        np.testing.assert_allclose(np.load("z.npy"), y, rtol=1e-9)
        assert (
            normcli_ok("extract", "back.json", "epsilon").text == f"{np.float32(1e-5).item()!r}\n"
        )
        normcli_ok("convert", "back.json", "-o", "again.onnx")
        assert Path("again.onnx").read_bytes() == Path("m.onnx").read_bytes()


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # Keras, as it loads
class TestKeras:
    NAMES = ("moving_mean", "moving_variance", "gamma", "beta")

    @pytest.fixture
    def keras(self, monkeypatch):
        monkeypatch.setenv("KERAS_BACKEND", "torch")
        pytest.importorskip("torch")
        return pytest.importorskip("keras")

    def test_order_and_numbers(self, place):
        y = fitted("--convention", "keras")
        ended = normcli_ok("convert", "s.json", "-o", "k.npz", "--to", "keras")
        with np.load("k.npz") as arrays:
            assert list(arrays) == ["gamma", "beta", "moving_mean", "moving_variance"]
            got = evaluate(place, arrays, 1e-3, self.NAMES)
        np.testing.assert_allclose(got, y, rtol=1e-12, atol=1e-12)
        assert "BatchNormalization(axis=1, epsilon=0.001, scale=True, center=True)" in ended.err

    def test_keras_itself_loads_and_evaluates_it(self, place, keras):
        y = fitted()
        normcli_ok("convert", "s.json", "-o", "k.npz", "--to", "keras")
        normcli_ok("convert", "s.json", "-o", "k.weights.h5")
        layer = keras.layers.BatchNormalization(axis=1, epsilon=1e-5)
        model = keras.Sequential([keras.Input((3, 4, 5)), layer])
        layer.set_weights(list(np.load("k.npz").values()))
        np.testing.assert_allclose(model(place).detach().numpy(), y, rtol=1e-4, atol=1e-4)
        layer.set_weights([np.zeros(3)] * 4)
        model.load_weights("k.weights.h5")
        np.testing.assert_allclose(model(place).detach().numpy(), y, rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("terms", ["both", "scale", "bias", "none"])
    def test_a_model_that_keras_loads(self, place, keras, terms):
        fitted("--momentum", "0.75", "--batch-size", "4", affine=False)
        given = [] if terms in ("both", "scale") else ["--scale", "none"]
        given += [] if terms in ("both", "bias") else ["--bias", "none"]
        normcli_ok("apply", "x.npy", "-o", "y.npy", "--stats", "s.json", "--affine", "affine.npz",
                   *given, "--stats-out", "all.json", "--overwrite")  # fmt: skip
        ended = normcli_ok("convert", "all.json", "-o", "m.keras", "--dtype", "float32")
        assert "BatchNormalization(axis=1, epsilon=1e-05, scale=" in ended.err
        model = keras.models.load_model("m.keras")
        assert model.input_shape == (None, 3, None, None)
        layer = model.layers[-1]
        assert (layer.name, layer.momentum, layer.dtype) == ("batch_normalization", 0.75, "float32")
        assert (layer.scale, layer.center) == (
            terms in ("both", "scale"),
            terms in ("both", "bias"),
        )
        got = model(place.astype("f4")).detach().numpy()
        np.testing.assert_allclose(got, np.load("y.npy"), rtol=1e-4, atol=1e-4)
        normcli_ok("convert", "m.keras", "-o", "back.json", "--layout", "NCHW")
        back = read_bundle("back.json").arrays
        assert ("scale" in back, "bias" in back) == (layer.scale, layer.center)
        # Keras can save it again, and train it.
        model.save("again.keras")
        model(place.astype("f4"), training=True)

    OBSERVED = (
        ("layer", ["--mode", "layer"], (5,), True),
        ("layer", ["--mode", "layer", "--aggregate", "1,2,3"], (3, 4, 5), True),
        ("layer", ["--mode", "layer", "--aggregate", "1,3", "--convention", "keras"], (3, 5), True),
        ("group", ["--mode", "instance"], (3,), True),
        ("group", ["--mode", "group", "--groups", "3"], (3,), True),
        ("rms", ["--mode", "layer", "--method", "rms"], (5,), False),
        ("rms", ["--mode", "layer", "--method", "rms", "--aggregate", "2,3"], (4, 5), False),
    )

    @pytest.mark.parametrize("given", [True, False])
    @pytest.mark.parametrize(("kind", "mode", "shape", "biased"), OBSERVED, ids=str)
    def test_models_that_measure_each_observation(
        self, place, keras, kind, mode, shape, biased, given
    ):
        # Keras' GroupNormalization takes E[x²] - E[x]² in float32.
        np.save("x.npy", place + np.array([[[0.0]], [[40]], [[0]]]))
        np.savez("p.npz", scale=np.linspace(-1, 2, int(np.prod(shape))).reshape(shape),
                 **({"bias": np.linspace(3, 1, int(np.prod(shape))).reshape(shape)} if biased
                    else {}))  # fmt: skip
        normcli_ok("apply", "x.npy", "-o", "y.npy", "--layout", "NCHW", *mode, "--stats-out",
                   "s.json", *(["--affine", "p.npz"] if given else []))  # fmt: skip
        normcli_ok("convert", "s.json", "-o", "m.keras")
        model = keras.models.load_model("m.keras")
        assert type(model.layers[-1]).__name__.lower() == f"{kind}normalization"
        data = np.load("x.npy").astype("f4")
        got = model(data).detach().numpy()
        np.testing.assert_allclose(got, np.load("y.npy"), rtol=1e-4, atol=1e-4)
        if given:
            normcli_ok("convert", "s.json", "-o", "m.weights.h5")
            model.layers[-1].set_weights([0 * w for w in model.layers[-1].get_weights()])
            model.load_weights("m.weights.h5")
            np.testing.assert_array_equal(model(data).detach().numpy(), got)
            normcli_ok("convert", "m.keras", "-o", "back.npz")
            normcli_ok("apply", "x.npy", "-o", "z.npy", "--layout", "NCHW", *mode, "--affine",
                       "back.npz")  # fmt: skip
            np.testing.assert_allclose(np.load("z.npy"), np.load("y.npy"), rtol=1e-6, atol=1e-6)

    def test_the_same_model_has_the_same_bytes(self, place):
        fitted()
        made = []
        for _ in range(2):
            normcli_ok("convert", "s.json", "-o", "m.keras", "--overwrite")
            made.append(Path("m.keras").read_bytes())
        assert made[0] == made[1]
        # Its parts are those of a file that Keras wrote, and its layer is configured by words
        # that Keras uses.
        with zipfile.ZipFile("m.keras") as own, zipfile.ZipFile(MODEL) as theirs:
            assert own.namelist() == theirs.namelist()
            ours, kerass = (json.loads(z.read("config.json")) for z in (own, theirs))
        assert ours.keys() <= kerass.keys()
        mine, known = ours["config"]["layers"], kerass["config"]["layers"]
        for layer, like in zip(mine, known, strict=False):
            assert layer["class_name"] == like["class_name"]
            assert layer.keys() <= like.keys()
            assert layer["config"].keys() <= like["config"].keys()

    def test_what_no_keras_layer_computes(self, place):
        for mode in (
            ["--mode", "layer", "--method", "std"],
            ["--mode", "layer", "--ddof", "1"],
            ["--mode", "layer", "--epsilon-placement", "outside"],
            ["--mode", "layer", "--scale-axes", "C"],
            ["--mode", "layer", "--method", "rms", "--aggregate", "C"],
            ["--mode", "layer", "--aggregate", "N"],
        ):
            normcli_ok("apply", "x.npy", "-o", "y.npy", "--layout", "NCHW", *mode, "--stats-out",
                       "o.json", "--overwrite")  # fmt: skip
            ended = call("convert", "o.json", "-o", "m.keras")
            assert ended.code == 7, mode
            assert not Path("m.keras").exists()
        normcli_ok("fit", "x.npy", "-o", "o.json", "--layout", "CNHW", "--overwrite")
        ended = call("convert", "o.json", "-o", "m.keras")
        assert (ended.code, "Axis 0 has parameters" in ended.err) == (7, True)
        normcli_ok("apply", "x.npy", "-o", "y.npy", "--mode", "layer", "--layout", "NCHW",
                   "--stats-out", "o.json", "--overwrite")  # fmt: skip
        ended = call("convert", "o.json", "-o", "m.weights.h5")
        assert (ended.code, "no weights to write" in ended.err) == (2, True)

    @pytest.mark.parametrize("name", ["k.safetensors", "k.npz", "k.weights.h5", "k.keras"])
    def test_back(self, place, name):
        y = fitted("--momentum", "0.9", "--batch-size", "3", "--epsilon", "0.001")
        normcli_ok("convert", "s.json", "-o", name, "--to", "keras")
        normcli_ok("convert", name, "-o", "back.json", "--layout", "NCHW")
        normcli_ok("apply", "x.npy", "-o", "z.npy", "--stats", "back.json")
        np.testing.assert_allclose(np.load("z.npy"), y, rtol=1e-12)

    def test_a_layer_of_a_model(self, place):
        normcli_ok("convert", f"{MODEL}#first", "-o", "back.json",
                   "--layout", "NCHW")  # fmt: skip
        for name, text in (("epsilon", "0.002"), ("mean", "21.0\n22.0\n23.0")):
            assert normcli_ok("extract", "back.json", name).text == text + "\n"
        ended = normcli_ok("convert", "back.json", "-o", "bn.safetensors", "--to", "torch")
        assert "eps=0.002, momentum=0.1)" in ended.err


class TestSklearn:
    def test_numbers(self, place):
        y = fitted("--ddof", "1", affine=False)
        normcli_ok("convert", "s.json", "-o", "s.sk.json", "--to", "sklearn")
        made = json.loads(Path("s.sk.json").read_text())
        got = (place - per_channel(made["mean_"])) / per_channel(made["scale_"])
        np.testing.assert_allclose(got, y, rtol=1e-12, atol=1e-12)
        assert made["n_samples_seen_"] == 120
        assert made["n_features_in_"] == 3

    def test_scikit_learn_itself_transforms_by_it(self, place):
        sklearn = pytest.importorskip("sklearn.preprocessing")
        np.save("x.npy", place[:, :, 0, 0])
        y = fitted("--epsilon", "0", affine=False, layout="NC")
        normcli_ok("convert", "s.json", "-o", "s.sk.json", "--to", "sklearn")
        scaler = sklearn.StandardScaler()
        for name, value in json.loads(Path("s.sk.json").read_text()).items():
            setattr(scaler, name, np.array(value) if isinstance(value, list) else value)
        x = place[:, :, 0, 0]
        np.testing.assert_allclose(scaler.transform(x), y, rtol=1e-12, atol=1e-12)
        own = sklearn.StandardScaler().fit(x)
        for name in ("mean_", "var_", "scale_", "n_samples_seen_"):
            np.testing.assert_allclose(getattr(scaler, name), getattr(own, name), rtol=1e-12)

    def test_constant_columns_are_warned_of(self, place):
        x = place.copy()
        x[:, 0] = 2.0
        np.save("x.npy", x)
        y = fitted(affine=False)
        ended = normcli_ok("convert", "s.json", "-o", "s.sk.json", "--to", "sklearn")
        assert "1 of 3 channels were constant" in ended.err
        made = json.loads(Path("s.sk.json").read_text())
        assert made["scale_"][0] == 1.0
        got = (x - per_channel(made["mean_"])) / per_channel(made["scale_"])
        np.testing.assert_allclose(got, y, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("target", "file", "keys"),
    [("sklearn", "t.json", ("mean_", "scale_")), ("torchvision", "t.json", ("mean", "std"))],
)
class TestDivisors:
    def test_scale_and_bias_are_folded(self, place, target, file, keys):
        y = fitted()
        ended = normcli_ok("convert", "s.json", "-o", file, "--to", target)
        made = json.loads(Path(file).read_text())
        got = (place - per_channel(made[keys[0]])) / per_channel(made[keys[1]])
        np.testing.assert_allclose(got, y, rtol=1e-12, atol=1e-12)
        assert "folded into mean and divisor" in ended.err

    def test_back(self, place, target, file, keys):
        y = fitted()
        normcli_ok("convert", "s.json", "-o", file, "--to", target)
        normcli_ok("convert", file, "-o", "back.json", "--layout", "NCHW")
        normcli_ok("apply", "x.npy", "-o", "z.npy", "--stats", "back.json")
        np.testing.assert_allclose(np.load("z.npy"), y, rtol=1e-12, atol=1e-12)

    def test_a_scale_of_zero_is_refused(self, place, target, file, keys):
        np.savez("affine.npz", scale=np.array([1.5, 0, 2.0]))
        fitted()
        ended = call("convert", "s.json", "-o", file, "--to", target)
        assert ended.code == 7
        assert "1 of 3 scales are 0" in ended.err
        assert not Path(file).exists()

    @pytest.mark.parametrize("bad", [[1, 0], [1], ["a", 2], [1, "nan"], None])
    def test_malformed_files(self, place, target, file, keys, bad):
        document = {keys[0]: [1, 2], keys[1]: bad}
        if bad is None:
            del document[keys[1]]
        Path(file).write_text(json.dumps(document))
        ended = call("convert", file, "-o", "back.json", "--from", target)
        assert ended.code == 3, ended.err
        assert keys[1] in ended.err


def test_torchvision_says_what_its_numbers_are_of(place):
    np.save("x.npy", np.arange(120, dtype=np.uint8).reshape(2, 3, 4, 5))
    fitted(affine=False)
    ended = normcli_ok("convert", "s.json", "-o", "t.json", "--to", "torchvision")
    assert "ToTensor divides them by 255" in ended.err


class TestKaldi:
    def normalize(self, x, text):
        rows = text.strip().strip("[]").split("\n")
        rows = [np.array(row.split(), float) for row in rows if row.strip()]
        (*sums, count), (*squares, zero) = rows
        assert zero == 0
        mean = np.array(sums) / count
        deviation = np.sqrt(np.array(squares) / count - mean**2)
        return (x - mean) / deviation

    def test_numbers(self, place):
        x = np.moveaxis(place, 1, -1).reshape(-1, 3)
        np.save("x.npy", x)
        y = fitted("--epsilon", "0", affine=False, layout="TC")
        normcli_ok("convert", "s.json", "-o", "cmvn.txt")
        text = Path("cmvn.txt").read_text()
        np.testing.assert_allclose(self.normalize(x, text), y, rtol=1e-9, atol=1e-9)
        sums = np.array(text.split("\n")[1].split(), float)
        np.testing.assert_allclose(sums, [*x.sum(0), len(x)], rtol=1e-12)

    def test_back_and_archives_with_keys(self, place):
        x = np.moveaxis(place, 1, -1).reshape(-1, 3)
        np.save("x.npy", x)
        np.savez("affine.npz", scale=np.array([1.5, 0.5, 2.0]), bias=np.array([0.25, 3.0, -1.0]))
        y = fitted(layout="TC")
        normcli_ok("convert", "s.json", "-o", "cmvn.txt")
        Path("cmvn.ark").write_text("speaker-1 " + Path("cmvn.txt").read_text())
        normcli_ok("convert", "cmvn.ark", "-o", "back.json", "--layout", "TC")
        normcli_ok("apply", "x.npy", "-o", "z.npy", "--stats", "back.json")
        np.testing.assert_allclose(np.load("z.npy"), y, rtol=1e-9, atol=1e-9)

    def test_what_it_cannot_hold(self, place):
        fitted()  # One scale is negative.
        ended = call("convert", "s.json", "-o", "cmvn.txt")
        assert ended.code == 7
        assert "negative" in ended.err
        np.save("x.npy", place + 1e9)
        fitted(affine=False)
        ended = call("convert", "s.json", "-o", "cmvn.txt")
        assert ended.code == 7
        assert "the mean is too large beside the deviation" in ended.err

    @pytest.mark.parametrize(
        "text", ["", "[ 1 2\n 3 ]", "[ 1 2\n 3 a ]", "[ 1 0\n 3 0 ]", "[ 1 2 ]", "a [ ] b [ ]",
                 "[ 1 nan\n 1 0 ]", "x \0BFM "],
    )  # fmt: skip
    def test_malformed_files(self, place, text):
        Path("c.txt").write_text(text)
        ended = call("convert", "c.txt", "-o", "back.json")
        assert ended.code == 3, ended.err


class TestSidecars:
    @pytest.mark.parametrize("suffix", [".npz", ".h5", ".zarr", ".safetensors"])
    def test_another_container_holds_the_same(self, place, suffix):
        fitted("--momentum", "0.9", "--batch-size", "2")
        normcli_ok("convert", "s.json", "-o", f"s{suffix}")
        normcli_ok("convert", f"s{suffix}", "-o", "back.json")
        assert Path("back.json").read_text() == Path("s.json").read_text()

    def test_absent_terms_stay_absent(self, place):
        fitted(affine=False)
        normcli_ok("convert", "s.json", "-o", "k.npz", "--to", "keras")
        assert sorted(np.load("k.npz")) == ["moving_mean", "moving_variance"]
        normcli_ok("convert", "k.npz", "-o", "back.json")
        assert call("extract", "back.json", "scale").code == 3

    @pytest.mark.parametrize("target", ["torch", "keras"])
    def test_parameters_without_statistics(self, place, target):
        normcli_ok("apply", "x.npy", "-o", "y.npy", "--layout", "NCHW", "--mode", "instance",
                   "--affine", "affine.npz", "--stats-out", "s.json")  # fmt: skip
        normcli_ok("convert", "s.json", "-o", "p.npz", "--to", target)
        normcli_ok("convert", "p.npz", "-o", "affine.json", "--from", target)
        assert read_bundle("affine.json").arrays["scale"].tolist() == [1.5, -0.5, 2.0]
        normcli_ok("apply", "x.npy", "-o", "z.npy", "--layout", "NCHW", "--mode", "instance",
                   "--affine", "affine.json")  # fmt: skip
        assert np.array_equal(np.load("z.npy"), np.load("y.npy"))

    @pytest.mark.parametrize("target", ["sklearn", "torchvision", "kaldi"])
    def test_statistics_of_each_observation_are_refused(self, place, target):
        normcli_ok("apply", "x.npy", "-o", "y.npy", "--layout", "NCHW", "--mode", "instance",
                   "--stats-out", "s.json")  # fmt: skip
        ended = call("convert", "s.json", "-o", "o.txt", "--to", target)
        assert ended.code == 7
        assert "belong to each observation" in ended.err

    def test_statistics_along_two_axes_are_refused(self, place):
        normcli_ok("fit", "x.npy", "-o", "two.json", "--layout", "NCHW", "--mode", "custom",
                   "--aggregate", "NH")  # fmt: skip
        ended = call("convert", "two.json", "-o", "o.npz", "--to", "torch")
        assert ended.code == 7
        assert "keep the axes C, W" in ended.err

    def test_channels_without_data_are_refused(self, place):
        x = place.copy()
        x[:, 1] = np.nan
        np.save("x.npy", x)
        normcli_ok("fit", "x.npy", "-o", "s.json", "--layout", "NCHW")
        ended = call("convert", "s.json", "-o", "o.npz", "--to", "torch")
        assert ended.code == 7
        assert "1 of 3 channels have no finite mean" in ended.err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["none.json", "-o", "o.npz"], 3, "none.json does not exist"),
        (["x.npy", "-o", "o.json"], 2, "not clear which program wrote"),
        (["fit.json", "-o", "o.pkl"], 2, "tells no format"),
        (["fit.json", "-o", "o.json", "--layout", "NC"], 2, "files of other programs"),
        (["fit.json", "-o", "o.json", "--dtype", "float32"], 2, "for other programs"),
        (["fit.json", "-o", "o.json", "--to", "sklearn", "--dtype", "float32"], 2, "text"),
        (["fit.json", "-o", "o.npz", "--to", "torch", "--estimate", "moving"], 3, "no moving"),
        (["bn.npz", "-o", "o.json", "--layout", "NHW"], 2, "has no C"),
        (["bn.npz", "-o", "o.json", "--epsilon", "-1"], 2, "must be a finite number"),
        (["bad.npz", "-o", "o.json"], 3, "scale has 2 values, but the mean has 3"),
        (["negative.npz", "-o", "o.json"], 7, "never negative"),
        (["lone.npz", "-o", "o.json", "--from", "torch"], 3, "a mean only"),
        (["affine.npz", "-o", "o.onnx", "--from", "torch"], 2, "without statistics"),
        (["fit.json", "-o", "fit.json"], 2, "exists"),
    ],
)
def test_refusals(place, arguments, code, words):
    normcli_ok("fit", "x.npy", "-o", "fit.json", "--layout", "NCHW")
    one = np.ones(3)
    np.savez("bn.npz", running_mean=one, running_var=one)
    np.savez("bad.npz", running_mean=one, running_var=one, weight=one[:2])
    np.savez("negative.npz", running_mean=one, running_var=-one)
    np.savez("lone.npz", running_mean=one)
    ended = call("convert", *arguments)
    assert ended.code == code, ended.err
    assert words in ended.err
    assert not list(Path().glob("o.*"))


def test_the_default_epsilon_of_a_framework_is_said(place):
    np.savez("bn.npz", moving_mean=np.ones(3), moving_variance=np.ones(3))
    ended = normcli_ok("convert", "bn.npz", "-o", "s.json")
    assert "states no epsilon; 0.001 is the default of keras" in ended.err
    assert normcli_ok("extract", "s.json", "epsilon").text == "0.001\n"
    normcli_ok("convert", "bn.npz", "-o", "t.json", "--epsilon", "0.5")
    assert normcli_ok("extract", "t.json", "epsilon").text == "0.5\n"


def test_a_torch_checkpoint_evaluates_as_in_torch(place):
    torch = pytest.importorskip("torch")
    layer = torch.nn.BatchNorm2d(3, eps=0.01).double()
    for _ in range(3):
        layer(torch.from_numpy(place))
    layer.eval()
    torch.save({"net": {"bn": layer.state_dict()}, "epoch": 1}, "m.pt")
    normcli_ok("convert", "m.pt#net.bn", "-o", "s.json", "--layout", "NCHW", "--epsilon", "0.01")
    normcli_ok("apply", "x.npy", "-o", "y.npy", "--stats", "s.json")
    with torch.no_grad():
        want = layer(torch.from_numpy(place)).numpy()
    np.testing.assert_allclose(np.load("y.npy"), want, rtol=1e-12)
    ended = normcli_ok("convert", "s.json", "-o", "again.npz", "--to", "torch")
    assert "eps=0.01);" in ended.err  # What its momentum was, the checkpoint does not tell.
    again = np.load("again.npz")
    for name, tensor in layer.state_dict().items():
        assert np.array_equal(again[name], tensor.numpy()), name


def test_a_matlab_layer_evaluates_as_in_matlab(place):
    savemat = pytest.importorskip("scipy.io").savemat
    layer = {
        "Scale": np.array([1.5, 2, 3]).reshape(1, 1, 3),
        "Offset": np.array([0.5, 0, -1]).reshape(1, 1, 3),
        "TrainedMean": np.array([1.0, -40, 3]).reshape(1, 1, 3),
        "TrainedVariance": np.array([4.0, 0.25, 49]).reshape(1, 1, 3),
        "Epsilon": 0.01,
    }
    savemat("layer.mat", {"bn": layer})
    ended = normcli_ok("convert", "layer.mat", "-o", "s.json", "--layout", "NCHW")
    assert "default" not in ended.err
    normcli_ok("apply", "x.npy", "-o", "y.npy", "--stats", "s.json")
    names = ("TrainedMean", "TrainedVariance", "Scale", "Offset")
    want = evaluate(place, layer, 0.01, names)
    np.testing.assert_allclose(np.load("y.npy"), want, rtol=1e-12)


def test_one_element_has_no_variance_with_divisor_n_minus_1(place):
    np.save("x.npy", place[:1, :, :1, :1])
    normcli_ok("fit", "x.npy", "-o", "s.json", "--layout", "NCHW")
    arguments = ("convert", "s.json", "-o", "bn.npz", "--to", "torch")
    ended = call(*arguments, "--moving-variance", "unbiased")
    assert ended.code == 7
    assert "one element has no variance with divisor n - 1" in ended.err
    normcli_ok(*arguments)


def test_what_a_supplied_variance_was_divided_by_is_not_claimed(place):
    for name in ("mean", "variance"):
        np.save(f"{name}.npy", np.array([1.0, 2, 3]))
    normcli_ok("apply", "x.npy", "-o", "y.npy", "--layout", "NCHW", "--mean", "mean.npy",
               "--variance", "variance.npy", "--stats-out", "s.json")  # fmt: skip
    ended = normcli_ok("convert", "s.json", "-o", "bn.safetensors", "--to", "torch")
    assert "divisor" not in ended.err
    assert "variance_divisor" not in read_bundle("bn.safetensors").attrs
    ended = call("convert", "s.json", "-o", "b.npz", "--to", "torch", "--moving-variance", "biased")
    assert ended.code == 7


def test_converted_statistics_fit_the_schema_of_sidecars(place):
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((REFERENCES.parents[1] / "docs" / "statistics.schema.json").read_text())
    normcli_ok("convert", f"{MODEL}#first", "-o", "s.json")
    document = json.loads(Path("s.json").read_text())
    jsonschema.validate(document, schema)
    assert document["source"]["shape"] == [0, 3]
    assert document["affine"] == {"scale": True, "bias": True}
