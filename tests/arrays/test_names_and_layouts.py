"""The grammar of names, the choice of an array, and the storage of outputs."""

from __future__ import annotations

import subprocess
import sys

import h5py
import numpy as np
import pytest
import zarr

from normcli.arrays.opening import list_arrays, make_sink, open_source, output_info
from normcli.arrays.paths import parse_path
from normcli.domain.array_info import ArrayInfo
from normcli.domain.grid import Grid
from normcli.errors import InputError, UsageError

F4, F8 = np.dtype("f4"), np.dtype("f8")


@pytest.mark.parametrize(
    ("text", "kind", "container", "inner"),
    [
        ("a.npy", "npy", "a.npy", ""),
        ("./a.NPY", "npy", "a.NPY", ""),
        ("d/a.h5/group/x", "hdf5", "d/a.h5", "group/x"),
        ("a.nc//x/", "hdf5", "a.nc", "x"),
        ("s.zarr", "zarr", "s.zarr", ""),
        ("s.zarr/g/x.npy", "zarr", "s.zarr", "g/x.npy"),
        ("a.npz/mean", "npz", "a.npz", "mean"),
        ("-", "stream", "-", ""),
    ],
)
def test_names(tmp_path, monkeypatch, text, kind, container, inner):
    monkeypatch.chdir(tmp_path)
    for what in ("input", "output"):
        path = parse_path(text, what)
        assert (path.format, str(path.container), path.inner) == (kind, container, inner)


def test_a_plain_folder_may_be_called_like_a_container(tmp_path):
    (tmp_path / "runs.zarr").mkdir()
    (tmp_path / "runs.h5").mkdir()
    for folder in ("runs.zarr", "runs.h5"):
        path = parse_path(str(tmp_path / folder / "a.npy"), "output")
        assert path.container == tmp_path / folder / "a.npy"
    zarr.create_group(tmp_path / "real.zarr")
    assert parse_path(str(tmp_path / "real.zarr/a.npy")).inner == "a.npy"


def test_a_store_without_suffix_is_known_by_its_metadata(tmp_path):
    zarr.create_array(tmp_path / "store", name="g/x", data=np.arange(3.0))
    path = parse_path(str(tmp_path / "store/g/x"))
    assert (path.format, path.container, path.inner) == ("zarr", tmp_path / "store", "g/x")
    assert open_source(str(tmp_path / "store")).info.shape == (3,)
    with pytest.raises(UsageError):
        parse_path(str(tmp_path / "store/g/x"), "output")


def test_unknown_names():
    for text in ("a.txt", "a", "s3://b/a.zarr"):
        with pytest.raises(InputError) as caught:
            parse_path(text)
        assert ".zarr" in caught.value.hint
        with pytest.raises(UsageError):
            parse_path(text, "output")
    with pytest.raises(UsageError):
        parse_path("a.h5/x/../y")


def test_coordinates_do_not_make_a_choice_necessary(tmp_path):
    with h5py.File(tmp_path / "x.nc", "w") as file:
        file["time"] = np.arange(3.0)
        file["time"].make_scale("time")
        file["temperature"] = np.zeros((3, 2), "f4")
        file["temperature"].dims[0].attach_scale(file["time"])
        file["temperature"].attrs["units"] = np.bytes_(b"K")
        file["temperature"].attrs["range"] = np.array([1.5, 2.5])
        file["temperature"].attrs["ref"] = file["time"].ref
        file["crs"] = 1
        file["label"] = "text"
    source = open_source(str(tmp_path / "x.nc"))
    assert source.info.dims == ("time", "")
    assert source.info.attrs == {"units": "K", "range": [1.5, 2.5]}
    entries = {entry.path: entry for entry in list_arrays(str(tmp_path / "x.nc"))}
    assert set(entries) == {"time", "temperature", "crs", "label"}
    assert entries["temperature"].stored_bytes is not None


def test_many_arrays_are_listed_up_to_a_limit(tmp_path):
    np.savez(tmp_path / "x.npz", **{f"a{n:02}": np.zeros(2) for n in range(30)})
    with pytest.raises(InputError, match="and 10 more") as caught:
        open_source(str(tmp_path / "x.npz"))
    assert caught.value.hint.endswith("x.npz/a00")


def test_listing_below_an_inner_path(tmp_path):
    for name in ("a/x", "a/y", "b/z"):
        zarr.create_array(tmp_path / "s.zarr", name=name, data=np.zeros(3, "c8"))
    assert [entry.path for entry in list_arrays(str(tmp_path / "s.zarr/a"))] == ["a/x", "a/y"]


ZARR = ArrayInfo(
    (100, 20),
    np.dtype(">i2"),
    chunks=(10, 20),
    shards=(50, 20),
    dims=("t", "x"),
    attrs={"units": "K", "scale_factor": 0.1, "_FillValue": -1},
    storage="zarr",
    codecs={
        "zarr_format": 3,
        "filters": [],
        "compressors": [{"name": "blosc", "configuration": {"typesize": 2, "cname": "zstd"}}],
        "fill_value": -1,
    },
)
NPY = ArrayInfo((10, 3000, 1000), F4, fortran_order=True)
HDF5 = ArrayInfo((100, 20), F4, chunks=(10, 20), storage="hdf5", codecs={"compression": "gzip"})


class TestOutputInfo:
    def test_same_format_new_type(self):
        got = output_info(ZARR, F4, "o.zarr")
        assert (got.chunks, got.shards, got.dims) == (ZARR.chunks, ZARR.shards, ZARR.dims)
        assert got.dtype == np.dtype(">f4")
        assert got.attrs == {"units": "K"}
        assert got.codecs["compressors"][0]["configuration"]["typesize"] == 4
        assert "fill_value" not in got.codecs

    def test_same_format_same_type_keeps_everything(self):
        assert output_info(ZARR, ZARR.dtype, "o.zarr") == ZARR
        assert output_info(NPY, F4, "o.npy") == NPY
        assert output_info(HDF5, F4, "o.h5") == HDF5

    def test_between_formats(self):
        to_hdf5 = output_info(ZARR, np.dtype(">f4"), "o.h5")
        assert to_hdf5.chunks == (10, 20)
        assert to_hdf5.shards is None
        assert to_hdf5.dtype == F4
        assert to_hdf5.codecs["compression"] == "gzip"
        to_npy = output_info(HDF5, F8, "o.npy")
        assert (to_npy.chunks, to_npy.codecs, to_npy.storage) == (None, {}, "npy")
        to_zarr = output_info(NPY, F4, "o.zarr")
        assert to_zarr.chunks == (1, 1048, 1000)
        assert not to_zarr.fortran_order
        assert output_info(HDF5, F4, "o.zarr").chunks == (10, 20)
        assert output_info(NPY, F4, "o.h5").chunks is None
        assert output_info(NPY, F4, "-").storage == "stream"

    @pytest.mark.parametrize("source", [ZARR, NPY, HDF5], ids=["zarr", "npy", "hdf5"])
    @pytest.mark.parametrize("name", ["o.npy", "o.npz", "o.h5", "o.zarr"])
    def test_every_sink_can_lay_it_out(self, tmp_path, source, name):
        info = output_info(source, F4, name)
        sink = make_sink(str(tmp_path / name), {"": info})
        sink.create()
        for part in Grid(info.shape, info.write_unit or info.shape):
            sink.write("", part, np.zeros(part.shape, F4))
        sink.seal()
        sink.publish()
        got = open_source(str(tmp_path / name)).info
        assert (got.shape, got.chunks, got.dtype) == (info.shape, info.chunks, info.dtype)


def test_libraries_are_imported_only_when_needed(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros(3))
    code = (
        "import sys; from normcli.arrays.opening import open_source;"
        f"open_source({str(tmp_path / 'x.npy')!r});"
        "print([m for m in ('h5py', 'zarr', 'zipfile') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "h5py" not in found.stdout
    assert "'zarr'" not in found.stdout
