"""Files that lie, lead elsewhere or carry code are refused, and nothing is allocated for them."""

import io
import json
import os
import pickle
import struct
import sys
import tracemalloc
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr

from normcli import fit
from normcli.bundles.bundle import Bundle
from normcli.bundles.formats import read_bundle, write_bundle
from normcli.bundles.guards import Allowance
from normcli.errors import InputError, NormcliError, SafetyError

OBJECTS = np.array([{"a": 1}, None], dtype=object)


@pytest.fixture(autouse=True)
def little_memory():
    tracemalloc.start()
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100 * 2**20


def npy_header(shape, dtype="<f8", version=1):
    text = repr({"descr": dtype, "fortran_order": False, "shape": shape}).encode() + b"\n"
    size = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + size + text


def as_npz(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            archive.writestr(name, data)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_pickle_called_npy(tmp_path, protocol):
    path = tmp_path / "p.npy"
    path.write_bytes(pickle.dumps(np.zeros(3), protocol=protocol))
    with pytest.raises(SafetyError, match="contains a pickle; normcli never loads pickles"):
        read_bundle(str(path))


def test_object_arrays(tmp_path):
    np.save(tmp_path / "p.npy", OBJECTS)
    np.savez(tmp_path / "p.npz", scale=OBJECTS)
    as_npz(tmp_path / "torch.npz", [("archive/data.pkl", b"\x80\x02.")])
    for name in ("p.npy", "p.npz", "torch.npz"):
        with pytest.raises(SafetyError, match="normcli never loads pickles"):
            read_bundle(str(tmp_path / name))


@pytest.mark.parametrize(
    "data",
    [
        npy_header((2**43,)),
        npy_header((2**60, 2**60)),
        npy_header((-1,)),
        npy_header((1.5,)),
        npy_header((3,)) + bytes(23),
        npy_header((3,)) + bytes(25),
        npy_header((10**9,), "|V0"),
        npy_header((3,), "<c16") + bytes(48),
        npy_header((3,), "<U4") + bytes(48),
        npy_header((3,), "nonsense"),
        npy_header((3,), [("a", "<f8")]) + bytes(24),
        npy_header((3,))[:-9],
        b"\x93NUMPY\x02\x00\xff\xff\xff\xff",
        b"\x93NUMPY\x09\x00" + bytes(100),
        b"\x93NUMPY",
    ],
)
def test_npy_files_that_lie(tmp_path, data):
    (tmp_path / "p.npy").write_bytes(data)
    as_npz(tmp_path / "p.npz", [("scale.npy", data)])
    for name in ("p.npy", "p.npz"):
        with pytest.raises(InputError, match=name):
            read_bundle(str(tmp_path / name))


def test_npz_members_that_are_refused(tmp_path):
    path = str(tmp_path / "p.npz")
    array = io.BytesIO()
    np.save(array, np.zeros(3))
    with pytest.warns(UserWarning, match="Duplicate name"):
        as_npz(path, [("a.npy", array.getvalue()), ("a.npy", array.getvalue())])
    with pytest.raises(InputError, match="'a' twice"):
        read_bundle(path)
    as_npz(path, [("readme.txt", b"hello")])
    with pytest.raises(InputError, match=r"'readme\.txt' is no array"):
        read_bundle(path)
    as_npz(path, [("../../evil.npy", array.getvalue())])
    assert list(read_bundle(path).arrays) == ["../../evil"]


def test_arrays_too_large_for_memory():
    allowance = Allowance("p.npz", stored=2**40)
    allowance.take("a", 2**32)
    with pytest.raises(InputError, match="holds 4,294,967,297 bytes or more"):
        allowance.take("b", 1)


def test_hdf5_that_leads_elsewhere(tmp_path):
    secret = str(tmp_path / "secret.h5")
    write_bundle(secret, Bundle({"scale": np.zeros(3)}))
    raw = tmp_path / "raw.bin"
    raw.write_bytes(bytes(24))
    path = str(tmp_path / "p.h5")
    layout = h5py.VirtualLayout((3,), "f8")
    layout[:] = h5py.VirtualSource(secret, "scale", (3,))
    with h5py.File(path, "w") as file:
        file["external"] = h5py.ExternalLink(secret, "scale")
        file.create_virtual_dataset("virtual", layout)
        file.create_dataset("raw", (3,), "f8", external=[(str(raw), 0, 24)])
        file["soft"] = h5py.SoftLink("/external")
        file["good"] = np.ones(3)
        file.create_dataset("never", (3,), "f8")
        file.create_dataset("huge", (2**50,), "f8", chunks=(2**20,))
        file.create_dataset("chunked", (4,), "f8", chunks=(2,))[:2] = 1
        file["text"] = "words"
        file["empty"] = h5py.Empty("f8")
        file["loop"] = file["/"]
    for name, error in [
        ("external", SafetyError),
        ("virtual", SafetyError),
        ("raw", SafetyError),
        ("soft", InputError),
        ("never", InputError),
        ("huge", InputError),
        ("chunked", InputError),
        ("text", InputError),
        ("empty", InputError),
    ]:
        with pytest.raises(error, match=name):
            read_bundle(path + "#" + name)
    assert read_bundle(path + "#good").arrays["good"].tolist() == [1, 1, 1]


def test_a_flipped_bit_in_hdf5_is_noticed(tmp_path):
    path = tmp_path / "p.h5"
    values = np.arange(1000.0)
    write_bundle(str(path), Bundle({"a": values}))
    whole = path.read_bytes()
    at = whole.index(np.float64(500).tobytes())
    path.write_bytes(whole[:at] + b"\x01" + whole[at + 1 :])
    with pytest.raises(InputError, match="not an HDF5 file that can be read"):
        read_bundle(str(path))


def store(tmp_path, change):
    path = tmp_path / "p.zarr"
    write_bundle(str(path), Bundle({"a": np.arange(1000.0)}))
    document = json.loads((path / "a" / "zarr.json").read_text())
    change(document)
    (path / "a" / "zarr.json").write_text(json.dumps(document))
    return str(path)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda d: d["codecs"].append({"name": "numcodecs.pickle"}), SafetyError),
        (lambda d: d["codecs"].append({"name": "own"}), InputError),
        (lambda d: d.update(data_type="string"), InputError),
        (lambda d: d.update(data_type="complex128", fill_value=[0, 0]), InputError),
        (lambda d: d.update(data_type="nonsense"), InputError),
        (lambda d: d.update(shape=[2**50]), InputError),
        (lambda d: d.update(shape=[1001]), InputError),
        (lambda d: d.update(shape="x"), InputError),
        (lambda d: d.pop("chunk_grid"), InputError),
        (lambda d: d["chunk_grid"]["configuration"].update(chunk_shape=[0]), InputError),
        (lambda d: d["chunk_grid"]["configuration"].update(chunk_shape=[500]), InputError),
        (lambda d: d.update(zarr_format=9), InputError),
        (lambda d: d.update(node_type="other"), InputError),
    ],
)
def test_zarr_metadata_that_is_refused(tmp_path, change, error):
    with pytest.raises(error, match=r"p\.zarr"):
        read_bundle(store(tmp_path, change))


def test_a_zarr_pickle_of_format_2(tmp_path):
    path = tmp_path / "p.zarr"
    path.mkdir()
    (path / ".zgroup").write_text('{"zarr_format": 2}')
    (path / "a").mkdir()
    document = {"zarr_format": 2, "shape": [1], "chunks": [1], "dtype": "|O", "order": "C"}
    document |= {"fill_value": None, "compressor": None}
    document["filters"] = [{"id": "vlen-utf8"}, {"id": "pickle"}]
    (path / "a" / ".zarray").write_text(json.dumps(document))
    with pytest.raises(NormcliError) as caught:
        read_bundle(str(path))
    assert caught.value.exit_code in (3, 4)


def test_zarr_stores_that_are_refused(tmp_path):
    path = store(tmp_path, lambda d: None)
    document = Path(path, "a", "zarr.json")
    text = document.read_text()
    document.write_text(text.replace('"shape":', '"shape": [3], "shape":'))
    with pytest.raises(InputError, match="'shape' occurs twice"):
        read_bundle(path)
    document.write_text(text[:50])
    with pytest.raises(InputError, match="not valid JSON"):
        read_bundle(path)
    document.write_text(text)
    chunk = Path(path, "a", "c", "0")
    data = chunk.read_bytes()
    chunk.write_bytes(data[:200] + bytes([data[200] ^ 1]) + data[201:])
    with pytest.raises(InputError, match="Zarr"):
        read_bundle(path)
    chunk.unlink()
    with pytest.raises(InputError, match="1 of 1 chunks are missing"):
        read_bundle(path)
    (tmp_path / "outside").write_bytes(data)
    chunk.symlink_to(tmp_path / "outside")
    with pytest.raises(SafetyError, match="symbolic link"):
        read_bundle(path)
    (tmp_path / "empty.zarr").mkdir()
    with pytest.raises(InputError, match="no Zarr group"):
        read_bundle(str(tmp_path / "empty.zarr"))


@pytest.mark.parametrize(
    "header",
    [
        {"a": {"dtype": "F64", "shape": [2**50], "data_offsets": [0, 8]}},
        {"a": {"dtype": "F64", "shape": [1], "data_offsets": [0, 16]}},
        {"a": {"dtype": "F64", "shape": [-1], "data_offsets": [0, 8]}},
        {"a": {"dtype": "F64", "shape": [1], "data_offsets": [8, 16]}},
        {"a": {"dtype": "X", "shape": [1], "data_offsets": [0, 8]}},
        {"a": {"shape": [1]}},
        {"a": 1},
        [],
    ],
)
def test_safetensors_that_lie(tmp_path, header):
    path = tmp_path / "p.safetensors"
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(8))
    with pytest.raises(InputError, match="safetensors"):
        read_bundle(str(path))
    path.write_bytes(struct.pack("<Q", 2**60) + text)
    with pytest.raises(InputError, match="safetensors"):
        read_bundle(str(path))


def test_safetensors_is_not_installed(tmp_path, monkeypatch):
    path = str(tmp_path / "p.safetensors")
    write_bundle(path, Bundle({"a": np.zeros(1)}))
    # What Python itself does for a module that is not there.
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    with pytest.raises(InputError) as caught:
        read_bundle(path)
    assert caught.value.hint == "needs: pip install 'normcli[safetensors]'"
    with pytest.raises(NormcliError) as caught:
        write_bundle(path, Bundle({"a": np.zeros(1)}), overwrite=True)
    assert caught.value.exit_code == 3
    assert caught.value.hint == "needs: pip install 'normcli[safetensors]'"
    # By the name that was asked for, and before the input is read.
    assert caught.value.message == f"Writing {path} needs the package safetensors."
    np.save(tmp_path / "x.npy", np.full((4, 3), np.nan))
    with pytest.raises(NormcliError) as caught:
        fit(tmp_path / "x.npy", path, overwrite=True, nonfinite="error")
    assert caught.value.hint == "needs: pip install 'normcli[safetensors]'"


@pytest.mark.parametrize("suffix", [".json", ".npz", ".npy", ".h5", ".safetensors", ".zarr"])
def test_pipes_and_folders(tmp_path, suffix):
    pipe = tmp_path / f"pipe{suffix}"
    os.mkfifo(pipe)
    with pytest.raises(InputError, match="pipe"):
        read_bundle(str(pipe))
    folder = tmp_path / f"folder{suffix}"
    folder.mkdir()
    with pytest.raises(InputError, match="folder"):
        read_bundle(str(folder))


def test_a_large_json_file_is_refused_by_its_size(tmp_path):
    path = tmp_path / "p.json"
    with path.open("wb") as file:
        file.truncate(2**29)
    with pytest.raises(InputError, match="536,870,912 bytes"):
        read_bundle(str(path))


def test_a_huge_array_is_refused_by_its_promise(tmp_path):
    path = str(tmp_path / "p.zarr")
    group = zarr.open_group(path, mode="w")
    group.create_array("a", shape=(2**28,), chunks=(2**20,), dtype="f8")
    with pytest.raises(InputError, match="promises 2,147,483,648 bytes"):
        read_bundle(path)
