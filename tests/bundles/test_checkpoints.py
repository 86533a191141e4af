"""Parameters in the files of PyTorch, ONNX, Keras and MATLAB."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import struct
import sys
import zipfile
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest

from normcli.bundles.formats import CHECKPOINTS, read_bundle
from normcli.bundles.layer_file import read_layer
from normcli.bundles.parameter_file import (
    read_affine,
    read_bias,
    read_mean,
    read_scale,
    read_variance,
)
from normcli.errors import InputError, NormcliError, SafetyError
from tests.examples import steps

REFERENCES = Path(__file__).parents[1] / "references"


class Canary:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


@pytest.fixture
def checkpoint(torch, tmp_path):
    """Return the path of a checkpoint with two normalization layers beside others."""
    layers = torch.nn.Sequential(
        torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3), torch.nn.LayerNorm(3)
    )
    with torch.no_grad():
        layers[1].weight.copy_(torch.tensor([1.5, 2.5, 3.5]))
        layers[1].bias.copy_(torch.tensor([-1.0, 0.25, 1.0]))
        layers[1].running_mean.copy_(torch.tensor([0.1, 0.2, 0.3]))
        layers[1].running_var.copy_(torch.tensor([4.0, 5.0, 6.0]))
    path = tmp_path / "m.pt"
    torch.save({"model": layers.state_dict(), "epoch": 3, "half": [torch.ones(2).bfloat16()]}, path)
    return str(path)


class TestTorch:
    def test_a_layer_of_a_checkpoint(self, checkpoint):
        layer = f"{checkpoint}#model.1"
        affine = read_affine(layer)
        assert affine.scale.tolist() == [1.5, 2.5, 3.5]
        assert affine.bias.tolist() == [-1.0, 0.25, 1.0]
        assert read_mean(layer).tolist() == np.float32([0.1, 0.2, 0.3]).tolist()
        # Only one layer of this checkpoint has a variance.
        assert read_variance(checkpoint).tolist() == [4, 5, 6]

    def test_several_layers_are_listed(self, checkpoint):
        # The one that keeps a variance comes first, whatever its name is.
        listed = r"3 layers.*'model\.1', 'model\.0', 'model\.2'\."
        with pytest.raises(InputError, match=listed) as caught:
            read_affine(checkpoint)
        assert caught.value.hint == f"Pick one: {checkpoint}#model.1"

    def test_layers_that_say_that_they_normalize_are_listed_first(self, torch, tmp_path):
        path = str(tmp_path / "m.pth")
        names = ("fc", "conv", "bn1", "norm2")
        torch.save({f"{n}.weight": torch.ones(2) for n in names}, path)
        with pytest.raises(InputError, match=r"4 layers.*: 'bn1', 'norm2', 'conv', 'fc'\.$"):
            read_scale(path)

    def test_bfloat16_keeps_its_values(self, torch, tmp_path):
        path = str(tmp_path / "m.pt")
        values = torch.tensor([1.0, 3.140625, -1e38]).bfloat16()
        torch.save({"weight": values}, path)
        assert read_scale(path).tolist() == values.double().tolist()

    def test_other_tensors_are_not_looked_at(self, torch, tmp_path):
        path = str(tmp_path / "m.pt")
        sparse = torch.eye(3).to_sparse()
        torch.save({"bn": {"weight": torch.ones(2)}, "sparse": sparse}, path)
        assert read_scale(f"{path}#bn").tolist() == [1, 1]
        with pytest.raises(InputError, match="sparse, quantized or empty"):
            read_scale(f"{path}#sparse")

    def test_a_view_that_repeats_one_element_is_read_in_full(self, torch, tmp_path):
        path = str(tmp_path / "m.pt")
        torch.save({"weight": torch.tensor([2.0]).expand(4)}, path)
        assert read_scale(path).tolist() == [2, 2, 2, 2]

    def test_a_tensor_that_promises_too_much(self, torch, tmp_path):
        path = str(tmp_path / "m.pt")
        torch.save({"weight": torch.tensor([2.0]).expand(2**40)}, path)
        with pytest.raises(InputError, match="promises 4,398,046,511,104 bytes"):
            read_scale(path)

    @pytest.mark.parametrize("kind", ["zip", "bare"])
    @pytest.mark.parametrize("forced", [False, True])
    def test_a_checkpoint_that_would_run_code_runs_none(
        self, torch, tmp_path, monkeypatch, kind, forced
    ):
        path, canary = tmp_path / "m.pt", tmp_path / "canary"
        payload = {"weight": torch.ones(2), "extra": Canary(canary)}
        if kind == "zip":
            torch.save(payload, path)
        else:
            path.write_bytes(pickle.dumps({"extra": Canary(canary)}))
        # The canary sings where pickles are loaded: the test can fail.
        if kind == "zip":
            torch.load(path, weights_only=False)
        else:
            pickle.loads(path.read_bytes())
        assert canary.exists()
        canary.rmdir()
        if forced:
            monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
        with pytest.raises(SafetyError) as caught:
            read_scale(str(path))
        assert caught.value.exit_code == 4
        assert "run code" in caught.value.message
        assert "state_dict" in caught.value.hint
        assert not canary.exists()

    def test_a_whole_module_and_a_program_are_refused(self, torch, tmp_path):
        path = str(tmp_path / "m.pt")
        torch.save(torch.nn.BatchNorm1d(2), path)
        with pytest.raises(SafetyError, match=r"torch\.nn\.modules\.batchnorm\.BatchNorm1d"):
            read_scale(path)
        archive = zipfile.ZipFile(tmp_path / "p.pt", "w")
        with archive:
            archive.writestr("p/data.pkl", b"")
            archive.writestr("p/code/__torch__.py", b"")
        with pytest.raises(SafetyError, match="TorchScript"):
            read_scale(str(tmp_path / "p.pt"))

    def test_one_flipped_bit_is_found(self, torch, tmp_path):
        path = tmp_path / "m.pt"
        torch.save({"weight": torch.full((64,), 1.5)}, path)
        data = bytearray(path.read_bytes())
        place = data.index(np.full(64, 1.5, "<f4").tobytes())
        data[place + 130] ^= 1
        path.write_bytes(data)
        assert torch.load(path, weights_only=True)["weight"].unique().numel() > 1
        with pytest.raises(InputError, match="checksum"):
            read_scale(str(path))

    def test_files_that_are_no_checkpoints(self, tmp_path):
        path = tmp_path / "m.pt"
        for data, words in ((b"", "not a PyTorch"), (b"PK\x03\x04", "not a PyTorch")):
            path.write_bytes(data)
            with pytest.raises(InputError, match=words):
                read_scale(str(path))
        np.savez(tmp_path / "m.npz", a=np.ones(2))
        (tmp_path / "m.npz").replace(path)
        with pytest.raises(InputError, match=r"no data\.pkl"):
            read_scale(str(path))

    def test_an_old_torch_is_refused(self, checkpoint, torch, monkeypatch):
        monkeypatch.setattr(torch, "__version__", "2.9.1+cpu")
        with pytest.raises(InputError, match=r"torch 2\.10 or newer") as caught:
            read_mean(checkpoint)
        assert caught.value.hint == "needs: pip install 'normcli[torch]'"


def onnx_model(path, tensors, nodes, external=None):
    onnx = pytest.importorskip("onnx")
    helper = onnx.helper
    made = []
    for name, values in tensors.items():
        tensor = onnx.numpy_helper.from_array(np.asarray(values, np.float32), name)
        if external:
            tensor.data_location = onnx.TensorProto.EXTERNAL
            tensor.ClearField("raw_data")
            for key, value in external.items():
                entry = tensor.external_data.add()
                entry.key, entry.value = key, str(value)
        made.append(tensor)
    value = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, None)
    result = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes(helper), "g", [value], [result], made)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])
    Path(path).write_bytes(model.SerializeToString())
    return str(path)


def batch_norm(helper):
    names = [f"net.bn.{n}" for n in ("weight", "bias", "running_mean", "running_var")]
    return [
        helper.make_node(
            "BatchNormalization", ["x", *names], ["y"], name="n", epsilon=0.5, momentum=0.75
        )
    ]


TENSORS = {
    "net.bn.weight": [1.5, 2.5],
    "net.bn.bias": [3, 4],
    "net.bn.running_mean": [5, 6],
    "net.bn.running_var": [7, 8],
    "other.weight": [9, 9],
}


class TestOnnx:
    def test_a_batch_normalization(self, tmp_path):
        path = onnx_model(tmp_path / "m.onnx", TENSORS, batch_norm)
        assert read_affine(path).scale.tolist() == [1.5, 2.5]
        assert read_affine(path).bias.tolist() == [3, 4]
        assert read_mean(f"{path}#net.bn").tolist() == [5, 6]
        assert read_variance(path).tolist() == [7, 8]
        bundle = read_bundle(path)
        assert float(bundle.arrays["net.bn.epsilon"]) == 0.5
        assert float(bundle.arrays["net.bn.momentum"]) == 0.75
        assert bundle.attrs["layers"]["net.bn"]["operator"] == "BatchNormalization"

    @pytest.mark.parametrize(
        "operator",
        ["InstanceNormalization", "LayerNormalization", "GroupNormalization"],
    )
    def test_other_nodes_and_names(self, tmp_path, operator):
        def nodes(helper):
            first = helper.make_node(operator, ["x", "s", "b"], ["h"], name="a/norm")
            return [first, helper.make_node(operator, ["h", "s", "c"], ["y"])]

        path = onnx_model(tmp_path / "m.onnx", {"s": [1, 2], "b": [3, 4], "c": [5, 6]}, nodes)
        assert read_affine(f"{path}#a/norm").bias.tolist() == [3, 4]
        assert read_affine(f"{path}#{operator}_1").bias.tolist() == [5, 6]
        with pytest.raises(InputError, match="2 layers"):
            read_affine(path)
        assert float(read_bundle(path).arrays["a/norm.epsilon"]) == np.float32(1e-5)

    def test_constants_are_parameters_too(self, tmp_path):
        def nodes(helper):
            import onnx

            value = onnx.numpy_helper.from_array(np.float32([1, 2]), "v")
            constant = helper.make_node("Constant", [], ["s"], value=value)
            return [constant, helper.make_node("RMSNormalization", ["x", "s"], ["y"], name="r")]

        path = onnx_model(tmp_path / "m.onnx", {}, nodes)
        assert read_scale(f"{path}#r.scale").tolist() == [1, 2]

    def test_tensors_that_are_stored_once(self, tmp_path):
        def nodes(helper):
            same = helper.make_node("Identity", ["b.weight"], ["a.weight"])
            first = helper.make_node("InstanceNormalization", ["x", "a.weight", "a.bias"], ["h"])
            return [same, first, helper.make_node("RMSNormalization", ["h", "b.weight"], ["y"])]

        tensors = {"b.weight": [1, 2], "a.bias": [3, 4]}
        path = onnx_model(tmp_path / "m.onnx", tensors, nodes)
        assert read_affine(f"{path}#a").scale.tolist() == [1, 2]
        assert read_scale(f"{path}#b").tolist() == [1, 2]

    def test_external_data_inside_of_the_folder(self, tmp_path):
        (tmp_path / "w").mkdir()
        (tmp_path / "w" / "data").write_bytes(bytes(4) + np.float32([1.5, 2.5]).tobytes())
        where = {"location": "w/data", "offset": 4, "length": 8}
        path = onnx_model(tmp_path / "m.onnx", TENSORS, batch_norm, where)
        assert read_scale(f"{path}#net.bn").tolist() == [1.5, 2.5]

    @pytest.mark.parametrize(
        ("where", "error", "words"),
        [
            ({"location": "../data"}, SafetyError, "own folder only"),
            ({"location": "w/../../data"}, SafetyError, "own folder only"),
            ({"location": "/etc/hostname"}, SafetyError, "own folder only"),
            ({"location": ""}, SafetyError, "own folder only"),
            ({"location": "link"}, SafetyError, "symbolic link"),
            ({"location": "folder/data"}, SafetyError, "symbolic link"),
            ({"location": "none"}, InputError, "does not exist"),
            ({"location": "."}, SafetyError, "own folder only"),
            ({"location": "inner"}, InputError, "regular file"),
            ({"location": "m.onnx", "length": 8}, SafetyError, "the model itself"),
            ({"location": "data", "offset": 8}, InputError, "needs 8 bytes from byte 8"),
            ({"location": "data", "offset": -8}, InputError, "needs 8 bytes"),
            ({"location": "data", "length": 4}, InputError, "names 4"),
        ],
    )
    def test_external_data_that_are_refused(self, tmp_path, where, error, words):
        folder = tmp_path / "model"
        folder.mkdir()
        for place in (tmp_path, folder):
            (place / "data").write_bytes(bytes(8))
        (folder / "inner").mkdir()
        (folder / "link").symlink_to(tmp_path / "data")
        (folder / "folder").symlink_to(tmp_path)
        path = onnx_model(folder / "m.onnx", TENSORS, batch_norm, where)
        with pytest.raises(error, match=words):
            read_scale(f"{path}#net.bn")

    def test_files_that_are_no_models(self, tmp_path):
        pytest.importorskip("onnx")
        path = tmp_path / "m.onnx"
        for data in (b"", b"no model", bytes(100)):
            path.write_bytes(data)
            with pytest.raises(InputError, match="not an ONNX model"):
                read_scale(str(path))

        def relu(helper):
            return [helper.make_node("Relu", ["x"], ["y"])]

        with pytest.raises(InputError, match="no normalization nodes"):
            read_scale(onnx_model(path, {}, relu))

    def test_a_shape_that_its_bytes_do_not_have(self, tmp_path):
        onnx = pytest.importorskip("onnx")
        path = onnx_model(tmp_path / "m.onnx", TENSORS, batch_norm)
        model = onnx.load_model(path)
        for dims in ([3], [2**50], [-2]):
            del model.graph.initializer[0].dims[:]
            model.graph.initializer[0].dims.extend(dims)
            Path(path).write_bytes(model.SerializeToString())
            with pytest.raises(InputError):
                read_scale(f"{path}#net.bn")


class TestKeras:
    @pytest.mark.parametrize(
        ("file", "layer"),
        [
            ("keras_model.keras", "first"),
            ("keras_model.weights.h5", "first"),
            ("keras_model.h5", "model_weights/first"),
        ],
    )
    def test_a_batch_normalization(self, file, layer):
        path = f"{REFERENCES / file}#{layer}"
        affine = read_affine(path)
        assert affine.scale.tolist() == [1, 2, 3]
        assert affine.bias.tolist() == [11, 12, 13]
        assert read_mean(path).tolist() == [21, 22, 23]
        assert read_variance(path).tolist() == [31, 32, 33]

    def test_layers_without_some_parameters(self):
        path = str(REFERENCES / "keras_model.keras")
        affine = read_affine(f"{path}#no_scale")
        assert affine.scale is None
        assert affine.bias.tolist() == [1, 2, 3, 4]
        assert read_variance(f"{path}#no_scale").tolist() == [21, 22, 23, 24]
        assert read_affine(f"{path}#inner").bias is None
        assert read_affine(f"{path}#inner").scale.tolist() == [1, 2, 3, 4]
        assert read_affine(f"{path}#groups").bias.tolist() == [11, 12, 13, 14]
        assert read_scale(f"{path}#rms").tolist() == [1, 2, 3, 4]

    def test_the_configuration_of_an_older_model(self):
        layer = read_layer(f"{REFERENCES}/keras_model.h5#model_weights/first")
        assert (layer.epsilon, layer.momentum) == (0.002, 0.9)
        assert read_layer(f"{REFERENCES}/keras_model.h5#model_weights/sub/sequential/sub/inner")

    def test_its_configuration(self):
        bundle = read_bundle(str(REFERENCES / "keras_model.keras"))
        assert float(bundle.arrays["first/epsilon"]) == 0.002
        assert float(bundle.arrays["first/momentum"]) == 0.9
        assert bundle.attrs["layers"]["first"]["axis"] == -1
        assert bundle.attrs["layers"]["groups"]["groups"] == 2

    def test_what_weights_alone_do_not_tell_is_left_open(self):
        path = str(REFERENCES / "keras_model.weights.h5")
        with pytest.raises(InputError, match="nothing under 'no_scale'"):
            read_affine(f"{path}#no_scale")
        part = f"{path}#layers/batch_normalization_1/vars"
        assert read_bias(f"{part}/0").tolist() == [1, 2, 3, 4]
        assert read_variance(f"{part}/2").tolist() == [21, 22, 23, 24]

    def test_several_layers_are_listed(self):
        with pytest.raises(InputError, match=r"'first', .*'no_scale'"):
            read_mean(str(REFERENCES / "keras_model.keras"))

    def test_a_lambda_in_a_model_is_text(self, tmp_path):
        path = tmp_path / "m.keras"
        weights = io.BytesIO()
        with h5py.File(weights, "w") as file:
            file["layers/layer_normalization/vars/0"] = np.float32([1, 2])
            file["layers/layer_normalization/vars/1"] = np.float32([3, 4])
        config = {"class_name": "Lambda", "config": {"function": {"class_name": "__lambda__"}}}
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("config.json", json.dumps(config))
            archive.writestr("model.weights.h5", weights.getvalue())
        assert read_affine(str(path)).bias.tolist() == [3, 4]

    def test_weights_that_promise_too_much(self, tmp_path):
        path = tmp_path / "m.keras"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("config.json", "{}")
            archive.writestr("model.weights.h5", bytes(2**27))
        assert path.stat().st_size < 2**18
        with pytest.raises(InputError, match="promises 134,217,728 bytes"):
            read_scale(str(path))

    def test_files_that_are_no_models(self, tmp_path):
        path = tmp_path / "m.keras"
        path.write_bytes(b"no zip")
        with pytest.raises(InputError, match="not a Keras model"):
            read_scale(str(path))
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("config.json", "{}")
        with pytest.raises(InputError, match=r"no model\.weights\.h5"):
            read_scale(str(path))
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("config.json", "{}")
            archive.writestr("model.weights.h5", bytes(100))
        with pytest.raises(InputError, match="not a Keras"):
            read_scale(str(path))


class TestMatlab:
    def test_arrays(self, tmp_path):
        io_ = pytest.importorskip("scipy.io")
        path = str(tmp_path / "p.mat")
        arrays = {"Scale": np.array([[1.5], [2.5]]), "Offset": np.array([[3.0, 4.0]])}
        io_.savemat(path, arrays)
        affine = read_affine(path)
        assert affine.scale.shape == (2, 1)
        assert affine.bias.shape == (1, 2)
        assert affine.fitted((2,), "C").scale.tolist() == [1.5, 2.5]

    @pytest.mark.parametrize("compressed", [False, True])
    def test_structures_and_types(self, tmp_path, compressed):
        io_ = pytest.importorskip("scipy.io")
        path = str(tmp_path / "p.mat")
        layer = {
            "Scale": np.arange(1, 4, dtype=np.single).reshape(1, 1, 3),
            "Offset": np.arange(3, dtype=np.int8).reshape(1, 3),
            "TrainedMean": np.array([[0.5, 1, 2]]),
            "TrainedVariance": np.array([[1.0, 2, 3]]),
            "Name": "bn",
        }
        io_.savemat(path, {"bn": layer, "note": "text"}, do_compression=compressed)
        assert read_affine(f"{path}#bn").scale.tolist() == [[[1, 2, 3]]]
        assert read_affine(path).bias.tolist() == [[0, 1, 2]]
        assert read_mean(path).tolist() == [[0.5, 1, 2]]
        assert read_variance(path).tolist() == [[1, 2, 3]]
        with pytest.raises(InputError, match="nothing under 'note'"):
            read_scale(f"{path}#note")

    def test_version_7_3_lists_dimensions_in_matlabs_order(self, tmp_path):
        path = str(tmp_path / "p.mat")
        values = np.arange(6.0).reshape(2, 3)
        with h5py.File(path, "w", userblock_size=512) as file:
            for name, array, kind in (
                ("s/Scale", values, "double"),
                ("s/Offset", np.float32([[1, 2, 3]]), "single"),
                ("text", np.array([[97, 98]], np.uint16), "char"),
            ):
                file[name] = array.T
                file[name].attrs["MATLAB_class"] = np.bytes_(kind)
        with open(path, "r+b") as file:
            file.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")
        affine = read_affine(path)
        assert affine.scale.tolist() == values.tolist()
        assert affine.bias.tolist() == [[1, 2, 3]]
        assert list(read_bundle(f"{path}#s").arrays) == ["Offset", "Scale"]
        with pytest.raises(InputError, match="nothing under 'text'"):
            read_scale(f"{path}#text")

    @pytest.mark.parametrize("dtype", ["f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"])
    @pytest.mark.parametrize("compressed", [False, True])
    def test_every_type_and_order(self, tmp_path, dtype, compressed):
        io_ = pytest.importorskip("scipy.io")
        path = str(tmp_path / "p.mat")
        values = np.arange(24).reshape(2, 3, 4).astype(dtype)
        limit = np.iinfo(dtype).max if dtype[0] in "iu" else np.finfo(dtype).max
        values[0, 1, 2] = limit
        io_.savemat(path, {"a": values, "b": values[:, :1, 0]}, do_compression=compressed)
        arrays = read_bundle(path).arrays
        assert arrays["a"].dtype == np.dtype(dtype)
        assert np.array_equal(arrays["a"], values)
        assert np.array_equal(arrays["b"], values[:, :1, 0])

    def test_what_is_no_number(self, tmp_path):
        io_ = pytest.importorskip("scipy.io")
        path = str(tmp_path / "p.mat")
        cells = np.empty((1, 2), object)
        cells[0, 0], cells[0, 1] = np.ones(2), "text"
        held = {"c": cells, "many": np.array([(1.0,), (2.0,)], [("x", "O")]), "s": np.array([1j])}
        io_.savemat(path, {**held, "flag": np.array([True]), "empty": np.zeros((0, 3))})
        assert sorted(CHECKPOINTS[".mat"].read(path, lambda names: []).arrays) == []
        with pytest.raises(InputError, match="complex numbers, not numbers"):
            read_scale(f"{path}#s")
        with pytest.raises(InputError, match="bool, not numbers"):
            read_scale(f"{path}#flag")
        with pytest.raises(InputError, match=r"is empty \(shape \(0, 3\)\)"):
            read_scale(f"{path}#empty")
        with pytest.raises(InputError, match="nothing under 'c'"):
            read_scale(f"{path}#c")

    def test_big_endian_files_and_numbers_stored_narrower(self, tmp_path):
        path = tmp_path / "p.mat"
        parts = [(6, struct.pack(">II", 6, 0)), (5, struct.pack(">ii", 1, 3)), (1, b"scale")]
        parts.append((4, struct.pack(">HHH", 1, 2, 300)))
        body = b"".join(
            struct.pack(">II", kind, len(data)) + data + bytes(-len(data) % 8)
            for kind, data in parts
        )
        path.write_bytes(bytes(124) + b"\x01\x00MI" + struct.pack(">II", 14, len(body)) + body)
        assert read_scale(str(path)).tolist() == [[1, 2, 300]]
        assert read_bundle(str(path)).arrays["scale"].dtype == np.float64

    def test_files_that_are_no_mat(self, tmp_path):
        path = tmp_path / "p.mat"
        head = bytes(124) + b"\x00\x01IM"
        for data in (b"", b"text", bytes(1000), head, head + b"\xff" * 64):
            path.write_bytes(data)
            with pytest.raises(InputError):
                read_scale(str(path))

    def test_a_type_that_there_is_not(self, tmp_path):
        """SciPy 1.17.1 ends the process by a segmentation fault here."""
        io_ = pytest.importorskip("scipy.io")
        path = tmp_path / "p.mat"
        io_.savemat(path, {"s": {"Scale": np.ones((1, 3))}})
        data = bytearray(path.read_bytes())
        place = data.index(struct.pack("<II", 9, 24))
        data[place] = 128
        path.write_bytes(data)
        with pytest.raises(InputError, match="unknown type"):
            read_scale(str(path))

    def test_a_compressed_array_that_promises_too_much(self, tmp_path):
        path = tmp_path / "p.mat"
        head = bytes(124) + b"\x00\x01IM"
        for promise in (2**31, 2**32 - 8):
            packed = zlib.compress(struct.pack("<II", 14, promise) + bytes(64))
            path.write_bytes(head + struct.pack("<II", 15, len(packed)) + packed)
            with pytest.raises(InputError):
                read_scale(str(path))

    def test_a_cut_file(self, tmp_path):
        io_ = pytest.importorskip("scipy.io")
        path = tmp_path / "p.mat"
        io_.savemat(path, {"scale": np.random.default_rng(0).random((1, 500))}, do_compression=True)
        data = path.read_bytes()
        for cut in (len(data) // 2, len(data) - 1, 140):
            path.write_bytes(data[:cut])
            with pytest.raises(InputError):
                read_scale(str(path))


@pytest.mark.parametrize(
    ("suffix", "package", "extra"),
    [(".pt", "torch", "torch"), (".onnx", "onnx", "onnx")],
)
def test_a_package_that_is_not_installed(tmp_path, monkeypatch, suffix, package, extra):
    path = tmp_path / f"p{suffix}"
    if suffix == ".pt":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("p/data.pkl", b"")
    else:
        path.write_bytes(bytes(8))
    # What Python itself does for a module that is not there.
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=f"needs the package {package}") as caught:
        read_scale(str(path))
    assert caught.value.exit_code == 3
    assert caught.value.hint == f"needs: pip install 'normcli[{extra}]'"


@pytest.mark.parametrize("suffix", sorted(CHECKPOINTS))
def test_pipes_folders_and_missing_files(tmp_path, suffix):
    for name, words, make in (
        ("none", "does not exist", None),
        ("pipe", "regular file", os.mkfifo),
        ("folder", "regular file", os.mkdir),
    ):
        path = tmp_path / f"{name}{suffix}"
        if make:
            make(path)
        with pytest.raises(InputError, match=words):
            read_scale(str(path))


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Return data with a flipped bit, a byte of all or no bits, a cut, or other bytes."""
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 8])):
        place = rng.randrange(len(changed))
        kind = rng.randrange(4)
        if kind == 0:
            changed[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            changed[place] = rng.choice([0, 255, 127, 128])
        elif kind == 2:
            del changed[place : place + rng.randrange(1, 50)]
        else:
            changed[place : place + 4] = rng.randbytes(4)
    return bytes(changed)


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5", ".onnx", ".mat", ".pt"])
def test_damaged_files_are_refused_in_one_line_or_read(tmp_path, suffix):
    path = tmp_path / f"seed{suffix}"
    if suffix == ".onnx":
        onnx_model(path, TENSORS, batch_norm)
    elif suffix == ".mat":
        io_ = pytest.importorskip("scipy.io")
        held = {"s": {"Scale": np.ones((1, 3)), "x": "text"}, "Offset": np.ones((3, 1))}
        io_.savemat(path, held)
    elif suffix == ".pt":
        torch = pytest.importorskip("torch")
        torch.save({"bn": {"weight": torch.ones(5), "bias": torch.zeros(5)}}, path)
    else:
        path.write_bytes((REFERENCES / f"keras_model{suffix}").read_bytes())
    data, rng = path.read_bytes(), random.Random(7)
    errors = []
    for number in range(60 // steps(3)):
        other = tmp_path / f"{number}{suffix}"
        other.write_bytes(damaged(data, rng))
        for look in (read_bundle, read_layer):
            try:
                look(str(other))
            except NormcliError as error:
                errors.append(error)
    assert len(errors) > 10
    assert not [error for error in errors if "\n" in error.message]
    assert {error.exit_code for error in errors} <= {3, 4, 7}


@pytest.mark.parametrize(
    ("name", "value"),
    [("eps", [1.0, 2]), ("epsilon", -1e-3), ("eps", np.nan), ("eps", np.inf), ("momentum", 1.5),
     ("num_batches_tracked", -1), ("eps", "text")],
)  # fmt: skip
def test_what_a_layer_says_of_itself_must_make_sense(tmp_path, name, value):
    path = tmp_path / "p.npz"
    one = np.ones(3)
    np.savez(path, **{"running_mean": one, "running_var": one, name: np.array(value)})
    with pytest.raises(InputError, match=name):
        read_layer(str(path))
