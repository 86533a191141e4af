"""Parameters and statistics that are broken, carry code, lead elsewhere, or belong to others."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from normcli import fit
from tests.bundles.test_checkpoints import TENSORS, batch_norm, onnx_model
from tests.hostile.commands import Case, case, require_refused
from tests.hostile.test_npy_and_npz import Canary, header, npy, shaped

CHANNELS = 3
IMAGES = np.random.default_rng(6).normal(9, 2, (4, CHANNELS, 5, 5)).astype("f4")
APPLY = ("apply", "x.npy", "-o", "y.npy", "--layout", "NCHW")
SCALE = (*APPLY, "--scale", "{}")
VARIANCE = (*APPLY, "--mean", "one.npy", "--variance", "{}")
STATS = ("apply", "x.npy", "-o", "y.npy", "--stats", "{}")
CHECK = ("check", "{}", "x.npy")


def beside_images(build: Callable[[Path], str]) -> Callable[[Path], str]:
    """Return a builder that also writes the images that the command works on."""

    def both(folder: Path) -> str:
        np.save(folder / "x.npy", IMAGES)
        np.save(folder / "one.npy", np.ones(CHANNELS))
        return build(folder)

    return both


def data(name: str, content: bytes | str):
    def build(folder: Path) -> str:
        text = content.encode() if isinstance(content, str) else content
        (folder / name).write_bytes(text)
        return name

    return beside_images(build)


def array(values, name: str = "p.npy"):
    return data(name, npy(np.asarray(values)))


def npz_of(**arrays: np.ndarray):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return data("p.npz", buffer.getvalue())


def torch_file(make):
    def build(folder: Path) -> str:
        torch = pytest.importorskip("torch")
        make(torch, folder)
        return "p.pt"

    return beside_images(build)


def torch_code(torch, folder: Path) -> None:
    torch.save({"weight": torch.ones(3), "extra": Canary(folder / "canary")}, folder / "p.pt")


def torch_module(torch, folder: Path) -> None:
    torch.save(torch.nn.BatchNorm2d(3), folder / "p.pt")


def torch_promise(torch, folder: Path) -> None:
    torch.save({"weight": torch.tensor([2.0]).expand(2**40)}, folder / "p.pt")


def torch_bit(torch, folder: Path) -> None:
    torch.save({"weight": torch.full((64,), 1.5)}, folder / "p.pt")
    content = bytearray((folder / "p.pt").read_bytes())
    content[content.index(np.full(64, 1.5, "<f4").tobytes()) + 130] ^= 1
    (folder / "p.pt").write_bytes(content)


def keras_lambda(folder: Path) -> str:
    """A model whose configuration holds code, and no weights that could be read."""
    config = {"class_name": "Lambda", "config": {"function": {"class_name": "__lambda__"}}}
    with zipfile.ZipFile(folder / "p.keras", "w") as archive:
        archive.writestr("config.json", json.dumps(config))
    return "p.keras"


def keras_bomb(folder: Path) -> str:
    with zipfile.ZipFile(folder / "p.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("model.weights.h5", bytes(2**27))
    return "p.keras"


def keras_link(folder: Path) -> str:
    """Weights that are a link to another file, as in a model that reads what it must not."""
    (folder / "outside").mkdir()
    with h5py.File(folder / "outside/secret.h5", "w") as file:
        file["s"] = np.ones(3)
    weights = io.BytesIO()
    with h5py.File(weights, "w") as file:
        file["layers/layer_normalization/vars/0"] = h5py.ExternalLink(
            str(folder / "outside/secret.h5"), "/s"
        )
    with zipfile.ZipFile(folder / "p.keras", "w") as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("model.weights.h5", weights.getvalue())
    return "p.keras"


def hdf5_link(folder: Path) -> str:
    (folder / "outside").mkdir()
    with h5py.File(folder / "outside/secret.h5", "w") as file:
        file["scale"] = np.ones(3)
    with h5py.File(folder / "p.h5", "w") as file:
        file["scale"] = h5py.ExternalLink("outside/secret.h5", "/scale")
    return "p.h5"


def onnx_outside(**where: object):
    def build(folder: Path) -> str:
        pytest.importorskip("onnx")
        (folder / "model").mkdir()
        for place in (folder, folder / "model"):
            (place / "data").write_bytes(bytes(64))
        (folder / "model/link").symlink_to(folder / "data")
        (folder / "model/own").write_bytes(b"")
        name = where.get("location")
        here = {**where, "location": str(folder / "data")} if name == "absolute" else where
        onnx_model(folder / "model/p.onnx", TENSORS, batch_norm, here)
        return "model/p.onnx"

    return beside_images(build)


@beside_images
def torch_program(folder: Path) -> str:
    """An archive that holds code beside its tensors."""
    with zipfile.ZipFile(folder / "p.pt", "w") as archive:
        archive.writestr("p/data.pkl", b"")
        archive.writestr("p/code/__torch__.py", b"")
    return "p.pt"


def yaml_tag(folder: Path) -> str:
    (folder / "p.yaml").write_text(f"!!python/object/apply:os.mkdir [{str(folder / 'canary')!r}]")
    return "p.yaml"


def safetensors(entry: object, length: int | None = None):
    text = json.dumps(entry).encode()
    return data(
        "p.safetensors",
        struct.pack("<Q", len(text) if length is None else length) + text + bytes(24),
    )


def edited_sidecar(change):
    """Return a builder of a sidecar of the images, changed by hand."""

    def build(folder: Path) -> str:
        fit(folder / "x.npy", folder / "t.json", layout="NCHW")
        document = json.loads((folder / "t.json").read_text())
        document = change(document) or document
        (folder / "t.json").write_text(json.dumps(document))
        return "t.json"

    return beside_images(build)


def cut_sidecar(folder: Path) -> str:
    fit(folder / "x.npy", folder / "t.json", layout="NCHW")
    os.truncate(folder / "t.json", (folder / "t.json").stat().st_size // 2)
    return "t.json"


def sidecar_of_another(folder: Path) -> str:
    np.save(folder / "other.npy", np.ones((4, 5, 5, 5), "f4") + np.arange(5)[:, None, None])
    fit(folder / "other.npy", folder / "t.json", layout="NCHW")
    return "t.json"


def sidecar_with_a_flipped_bit(folder: Path) -> str:
    """An HDF5 sidecar, whose arrays and attributes are under checksums."""
    fit(folder / "x.npy", folder / "t.h5", layout="NCHW")
    content = bytearray((folder / "t.h5").read_bytes())
    mean = h5py.File(folder / "t.h5")["mean"][...]
    content[bytes(content).index(mean.tobytes()) + 3] ^= 1
    (folder / "t.h5").write_bytes(content)
    return "t.h5"


def put(*keys, to):
    def change(document) -> None:
        for key in keys[:-1]:
            document = document[key]
        document[keys[-1]] = to

    return change


def given(build, code, *words, command=SCALE):
    return case(build, code, *words, command=command)


CASES: dict[str, Case] = {
    # not what the name says, cut, or of other shapes
    "empty": given(data("p.npy", b""), 3, "p.npy"),
    "text": given(data("p.npy", "1 2 3"), 3, "p.npy"),
    "HTML": given(data("p.npz", "<html><body>404"), 3, "p.npz"),
    "wrong extension": given(data("p.npz", npy(np.ones(3))), 3, "p.npz"),
    "cut": given(data("p.npy", npy(np.ones(3))[:-1]), 3, "p.npy"),
    "8 TiB": given(data("p.npy", shaped(f"({2**41},)")), 3, "p.npy"),
    "code in the header": given(data("p.npy", header("__import__('os').abort()")), 3, "p.npy"),
    "length": given(array(np.ones(4)), 3, "(4,)", "(3,)"),
    "rank": given(array(np.ones((3, 2))), 3, "(3, 2)"),
    "of nothing": given(array(np.zeros(0)), 3, "empty"),
    "complex": given(array(np.ones(3, complex)), 3, "real numbers"),
    "words": given(array(["a", "b", "c"]), 3, "p.npy"),
    "truths": given(array([True, False, True]), 3, "bool"),
    "no key": given(npz_of(a=np.ones(3), b=np.ones(3)), 3, "'a', 'b'"),
    "JSON cut": given(data("p.json", '{"scale": [1, 2'), 3, "p.json"),
    "JSON of words": given(data("p.json", '{"scale": ["a", 1, 2]}'), 3, "p.json"),
    "JSON ragged": given(data("p.json", '{"scale": [[1], 2, 3]}'), 3, "p.json"),
    "JSON overflows": given(data("p.json", '{"scale": [1e400, 1, 2]}'), (3, 7), "p.json"),
    "JSON too deep": given(data("p.json", "[" * 100_000), (3, 4), "p.json"),
    "JSON key twice": given(data("p.json", '{"scale": [1,2,3], "scale": [3,2,1]}'), 3, "p.json"),
    "no suffix": given(data("p.txt", "1 2 3"), 3, "p.txt"),
    # values that no result can come from
    "NaN": given(array([1, np.nan, 3]), (3, 7), "1 NaN"),
    "Inf": given(array([1, np.inf, 3]), (3, 7), "1 infinite"),
    "negative variance": given(array([1, -1e-12, 1]), 7, "negative", command=VARIANCE),
    "NaN variance": given(array([1, np.nan, 1]), (3, 7), "1 NaN", command=VARIANCE),
    # code
    "objects": given(
        beside_images(
            lambda f: np.save(f / "p.npy", np.array([Canary(f / "canary")], object)) or "p.npy"
        ),
        4,
        "never loads pickles",
    ),
    "bare pickle as pt": given(data("p.pt", b"\x80\x04."), 4, "code"),
    "torch code": given(torch_file(torch_code), 4, "code", "state_dict"),
    "torch module": given(torch_file(torch_module), 4, "BatchNorm2d"),
    "torch script": given(torch_program, 4, "TorchScript"),
    "yaml tag": given(beside_images(yaml_tag), 3, "p.yaml"),
    "keras lambda": given(beside_images(keras_lambda), 3, "model.weights.h5"),
    # elsewhere
    "HDF5 link": given(beside_images(hdf5_link), 4, "p.h5"),
    "keras link": given(beside_images(keras_link), (3, 4), "p.keras"),
    "onnx ..": given(onnx_outside(location="../data"), 4, "own folder only"),
    "onnx absolute": given(onnx_outside(location="absolute"), 4, "own folder only"),
    "onnx link": given(onnx_outside(location="link"), 4, "symbolic link"),
    "onnx itself": given(onnx_outside(location="p.onnx", length=8), 4, "the model itself"),
    "onnx huge": given(onnx_outside(location="own", length=2**50), 3, "p.onnx"),
    # sizes
    "torch promise": given(torch_file(torch_promise), 3, "promises"),
    "keras bomb": given(beside_images(keras_bomb), 3, "promises"),
    "safetensors header": given(safetensors({}, 2**60), 3, "safetensors"),
    "safetensors beyond": given(
        safetensors({"a": {"dtype": "F64", "shape": [3], "data_offsets": [0, 2**40]}}), 3, "p.safe"
    ),
    # damage
    "torch bit": given(torch_file(torch_bit), 3, "checksum"),
    "sidecar bit": given(beside_images(sidecar_with_a_flipped_bit), 3, "t.h5", command=STATS),
    "sidecar cut": given(beside_images(cut_sidecar), 3, "t.json", command=STATS),
    # statistics of others, of tomorrow, and changed by hand
    "another input": given(beside_images(sidecar_of_another), 3, "(3,)", command=STATS),
    "newer schema": given(edited_sidecar(put("schema_version", to=99)), 3, "99", command=STATS),
    "other schema": given(edited_sidecar(put("schema", to="x")), 3, "'x'", command=STATS),
    "unknown method": given(
        edited_sidecar(put("spec", "method", to="new")), 3, "'new'", command=STATS
    ),
    "mean by hand": given(
        edited_sidecar(put("arrays", "mean", "data", to=[0.0, 0, 0])), (3, 7), "t.json",
        command=STATS,
    ),
    "negative m2": given(
        edited_sidecar(put("arrays", "m2", "data", to=[-1.0, 1, 1])), (3, 7), "t.json",
        command=STATS,
    ),
    "a list": given(edited_sidecar(lambda document: [document]), 3, "t.json", command=STATS),
}  # fmt: skip
NEEDED = {"torch": "torch", "onnx": "onnx"}


def installed(name: str) -> bool:
    """Whether what a case needs to write its file is here."""
    package = name.split()[0]
    return package not in NEEDED or importlib.util.find_spec(NEEDED[package]) is not None


@pytest.mark.parametrize("name", CASES)
def test_refused(tmp_path, monkeypatch, name):
    if not installed(name):
        pytest.skip(f"needs {name.split()[0]}")
    (tmp_path / "here").mkdir()
    require_refused(tmp_path / "here", CASES[name], monkeypatch)
    assert not (tmp_path / "here/canary").exists()
