"""Every format keeps the contract, and reads what its own tools write."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr
from safetensors.numpy import load_file, save_file

from normcli.bundles.bundle import Bundle
from normcli.bundles.formats import read_bundle, split_path, write_bundle
from normcli.errors import InputError, OutputError, UsageError

from .contract import BundleContract


class TestJson(BundleContract):
    suffix = ".json"

    def test_it_is_strict_json_that_people_can_read(self, path):
        write_bundle(path, Bundle({"a": np.array([np.nan, np.inf, -np.inf, 0.1])}, {"k": 1}))
        text = Path(path).read_text()
        assert '"data": ["nan", "inf", "-inf", 0.1]' in text
        assert json.loads(text, parse_constant=pytest.fail)["k"] == 1

    def test_too_many_values_for_json(self, path):
        with pytest.raises(UsageError, match="1,000,001 values") as caught:
            write_bundle(path, Bundle({"a": np.zeros(1_000_000), "b": np.zeros(1)}))
        assert ".zarr, .h5 or .npz" in caught.value.hint

    def test_plain_parameters(self, path):
        plain = {"scale": [1, 2], "bias": [0.5, 0], "epsilon": 1e-5, "note": "x"}
        Path(path).write_text(json.dumps(plain))
        bundle = read_bundle(path)
        assert bundle.arrays["scale"].dtype == np.int64
        assert bundle.arrays["bias"].tolist() == [0.5, 0]
        assert bundle.attrs == {"note": "x"}
        Path(path).write_text(json.dumps({"model": {"norm": {"gamma": [1, 2]}}}))
        assert list(read_bundle(path + "#model.norm").arrays) == ["gamma"]
        Path(path).write_text("\ufeff[[1, 2], [3, 4.5]]")
        assert read_bundle(path).arrays[""].tolist() == [[1, 2], [3, 4.5]]

    def test_described_data_may_be_flat(self, path):
        entry = {"dtype": "float32", "shape": [2, 2], "data": [1, 2, 3, "nan"]}
        Path(path).write_text(json.dumps({"arrays": {"a": entry}}))
        assert read_bundle(path).arrays["a"].shape == (2, 2)


class TestNpz(BundleContract):
    suffix = ".npz"

    def test_numpy_reads_it(self, path):
        write_bundle(path, Bundle({"mean": np.arange(3.0)}, {"k": "ü"}))
        with np.load(path) as archive:
            assert archive["mean"].tolist() == [0, 1, 2]
            assert json.loads(archive["normcli"].tobytes()) == {"k": "ü"}

    @pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
    def test_it_reads_what_numpy_writes(self, path, save):
        values = np.asfortranarray(np.arange(6, dtype=">i2").reshape(2, 3))
        save(path, mean=values, file_=np.zeros(2))
        assert read_bundle(path).arrays["mean"].tolist() == values.tolist()

    def test_a_flipped_bit_is_noticed(self, path):
        write_bundle(path, Bundle({"a": np.zeros(1000)}))
        data = bytearray(Path(path).read_bytes())
        data[1000] ^= 1
        Path(path).write_bytes(data)
        with pytest.raises(InputError, match="CRC"):
            read_bundle(path)


class TestNpy(BundleContract):
    suffix = ".npy"
    attributes = False
    several = False

    def test_numpy_reads_and_writes_it(self, path):
        write_bundle(path, Bundle({"any": np.arange(3.0)}))
        assert np.load(path).tolist() == [0, 1, 2]
        np.save(path, np.asfortranarray(np.arange(6, dtype=">f4").reshape(2, 3)))
        assert read_bundle(path).arrays[""].tolist() == [[0, 1, 2], [3, 4, 5]]

    def test_it_holds_one_array_and_nothing_else(self, path):
        with pytest.raises(UsageError, match="one array, not 2"):
            write_bundle(path, Bundle({"a": np.zeros(1), "b": np.zeros(1)}))
        with pytest.raises(UsageError, match="no attributes"):
            write_bundle(path, Bundle({"a": np.zeros(1)}, {"k": 1}))


class TestHdf5(BundleContract):
    suffix = ".h5"

    def test_h5py_reads_it(self, path):
        write_bundle(path, Bundle({"mean": np.arange(3.0), "g/x": np.zeros(2)}, {"k": "ü"}))
        with h5py.File(path) as file:
            assert file["mean"][:].tolist() == [0, 1, 2]
            assert file["mean"].fletcher32
            assert json.loads(file.attrs["normcli"]) == {"k": "ü"}

    def test_groups_are_prefixes(self, path):
        with h5py.File(path, "w") as file:
            file["model/norm/gamma"] = np.arange(3.0)
            file["model/norm/beta"] = np.arange(3.0)
            file["model/again"] = file["model"]
        for inner in ("/model/norm", "#model/norm"):
            assert set(read_bundle(path + inner).arrays) == {"gamma", "beta"}
        assert list(read_bundle(path + "/model/norm/gamma").arrays) == ["gamma"]

    @pytest.mark.parametrize("name", ["", "/a", "a//b", "..", "a/./b"])
    def test_names_that_it_cannot_hold(self, path, name):
        with pytest.raises(UsageError, match="no name"):
            write_bundle(path, Bundle({name: np.zeros(1)}))


class TestHdf5ByItsLongSuffix(TestHdf5):
    suffix = ".hdf5"


class TestZarr(BundleContract):
    suffix = ".zarr"

    def test_zarr_reads_it(self, path):
        write_bundle(path, Bundle({"mean": np.zeros(3), "g/x": np.zeros(2)}, {"k": "ü"}))
        group = zarr.open_group(path, mode="r")
        assert group.metadata.zarr_format == 3
        assert group.attrs["normcli"] == {"k": "ü"}
        assert group["mean"][:].tolist() == [0, 0, 0]
        assert group["mean"].nchunks_initialized == 1

    def test_it_reads_what_zarr_writes(self, path):
        group = zarr.open_group(path, mode="w", zarr_format=2)
        group.create_array("norm/gamma", shape=(4,), chunks=(2,), dtype=">f4")[:2] = [1, 2]
        assert read_bundle(path + "/norm").arrays["gamma"].tolist() == [1, 2, 0, 0]

    def test_it_reads_a_single_array(self, path):
        zarr.create_array(path, shape=(4,), chunks=(2,), shards=(4,), dtype="f4")[:] = 1
        assert read_bundle(path).arrays[""].tolist() == [1, 1, 1, 1]

    @pytest.mark.parametrize("name", ["", "/a", "a//b", "..", "zarr.json", "__a"])
    def test_names_that_it_cannot_hold(self, path, name):
        with pytest.raises(UsageError, match="no name"):
            write_bundle(path, Bundle({name: np.zeros(1)}))


class TestSafetensors(BundleContract):
    suffix = ".safetensors"

    def test_safetensors_reads_and_writes_it(self, path):
        write_bundle(path, Bundle({"mean": np.arange(3.0)}, {"k": "ü"}))
        assert load_file(path)["mean"].tolist() == [0, 1, 2]
        save_file({"w": np.float32([1, 2])}, path, metadata={"format": "pt"})
        assert read_bundle(path).arrays["w"].tolist() == [1, 2]

    def test_unread_tensors_may_have_any_type(self, path):
        save_file({"n.w": np.float32([1, 2]), "other": np.zeros(3, np.complex64)}, path)
        assert list(read_bundle(path + "#n").arrays) == ["w"]
        with pytest.raises(InputError, match="C64"):
            read_bundle(path)


def test_an_unknown_suffix(tmp_path):
    path = tmp_path / "file.pkl"
    with pytest.raises(UsageError, match="suffix"):
        write_bundle(str(path), Bundle({"a": np.zeros(1)}))
    with pytest.raises(InputError, match="does not exist"):
        read_bundle(str(path))
    path.write_bytes(b"")
    with pytest.raises(InputError, match="suffix"):
        read_bundle(str(path))


def test_a_missing_folder(tmp_path):
    with pytest.raises(OutputError, match="does not exist"):
        write_bundle(str(tmp_path / "no" / "file.npz"), Bundle({"a": np.zeros(1)}))


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("a.npz", ("a.npz", "")),
        ("a.npz#l.3", ("a.npz", "l.3")),
        ("d/a.H5/g/x/", ("d/a.H5", "g/x")),
        ("a.zarr/", ("a.zarr/", "")),
        ("a.zarr/x#y", ("a.zarr", "x#y")),
        ("plain", ("plain", "")),
        ("a.json#", ("a.json", "")),
    ],
)
def test_a_path_has_a_file_and_a_part(path, parts):
    assert split_path(path) == parts


def test_a_file_whose_name_looks_like_a_part(tmp_path):
    path = str(tmp_path / "a.npz#b.npz")
    write_bundle(path, Bundle({"a": np.zeros(1)}))
    assert list(read_bundle(path).arrays) == ["a"]
