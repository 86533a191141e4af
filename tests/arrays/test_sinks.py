"""What every sink promises, held by each of them."""

from __future__ import annotations

import io
import json
import pickle
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import pytest
import zarr

from normcli.arrays.opening import list_arrays, make_sink, open_source, output_info
from normcli.arrays.stream import NpyStreamSink
from normcli.domain.array_info import ArrayInfo
from normcli.domain.grid import Grid
from normcli.errors import UsageError

from .samples import SHAPE, VALUES, whole

FLOAT = np.dtype("f4")
BLOSC = {
    "name": "blosc",
    "configuration": {
        "cname": "lz4",
        "clevel": 3,
        "shuffle": "shuffle",
        "typesize": 4,
        "blocksize": 0,
    },
}
CASES = {
    "npy_c": ("x.npy", ArrayInfo(SHAPE, FLOAT)),
    "npy_f": ("x.npy", ArrayInfo(SHAPE, FLOAT, fortran_order=True)),
    "npy_big": ("x.npy", ArrayInfo(SHAPE, np.dtype(">f4"))),
    "npz": ("x.npz/x", ArrayInfo(SHAPE, FLOAT)),
    "hdf5_contiguous": ("x.h5/a/x", ArrayInfo(SHAPE, FLOAT, storage="hdf5")),
    "hdf5_gzip": (
        "x.h5",
        ArrayInfo(
            SHAPE,
            np.dtype(">f4"),
            chunks=(4, 6, 5),
            dims=("time", "lat", "lon"),
            attrs={"units": "K", "levels": [1, 2], "names": ["a", "b"], "mixed": [1, "b"]},
            storage="hdf5",
            codecs={
                "compression": "gzip",
                "compression_opts": 4,
                "shuffle": True,
                "fletcher32": True,
            },
        ),
    ),
    "zarr_2": (
        "x.zarr",
        ArrayInfo(
            SHAPE,
            np.dtype(">f4"),
            chunks=(4, 6, 5),
            dims=("time", "lat", "lon"),
            attrs={"units": "K"},
            storage="zarr",
            codecs={
                "zarr_format": 2,
                "order": "F",
                "separator": "/",
                "filters": [{"id": "shuffle", "elementsize": 4}],
                "compressors": [{"id": "zlib", "level": 3}],
                "fill_value": 0.0,
            },
        ),
    ),
    "zarr_3": (
        "x.zarr/group/x",
        ArrayInfo(
            SHAPE,
            np.dtype(">f4"),
            chunks=(4, 6, 5),
            dims=("time", "", "lon"),
            attrs={"units": "K", "nested": {"a": [1]}},
            storage="zarr",
            codecs={"zarr_format": 3, "compressors": [BLOSC]},
        ),
    ),
    "zarr_sharded": (
        "x.zarr",
        ArrayInfo(
            SHAPE,
            FLOAT,
            chunks=(2, 3, 5),
            shards=(4, 6, 10),
            storage="zarr",
            codecs={"zarr_format": 3, "compressors": [], "index_location": "start"},
        ),
    ),
}


@pytest.fixture(params=CASES, ids=list(CASES))
def case(request, tmp_path):
    name, info = CASES[request.param]
    folder = tmp_path / "out"
    folder.mkdir()
    return folder, str(folder / name), info


def parts(info: ArrayInfo) -> list:
    return list(Grid(info.shape, info.write_unit or (4, 3, 10)))


def fill(sink, info, values=VALUES):
    for part in parts(info):
        sink.write("", part, values[part.slices])


class TestEverySink:
    def test_appears_at_once_and_whole(self, case):
        folder, text, info = case
        sink = make_sink(text, {"": info})
        sink.create()
        fill(sink, info)
        assert all(path.name.startswith(".") for path in folder.iterdir())
        sink.annotate({"a": 1})
        sink.seal()
        sink.publish()
        assert [path.name.split(".")[0] for path in folder.iterdir()] == ["x"]
        source = open_source(text)
        np.testing.assert_array_equal(source.read(whole(SHAPE)), VALUES)

    def test_keeps_what_describes_the_array(self, case):
        _, text, info = case
        sink = make_sink(text, {"": info})
        sink.create()
        fill(sink, info)
        sink.seal()
        sink.publish()
        got = open_source(text).info
        for field in ("shape", "dtype", "chunks", "shards", "fortran_order", "dims"):
            assert getattr(got, field) == getattr(info, field), field
        for name, value in info.codecs.items():
            if name == "compressors" and info.codecs["zarr_format"] == 3:
                value = [*value, {"name": "crc32c"}]  # which no output goes without
            assert got.codecs[name] == value, name
        attrs = dict(got.attrs)
        attrs.pop("normcli", None)
        if isinstance(attrs.get("mixed"), str):
            attrs["mixed"] = json.loads(attrs["mixed"])
        assert attrs == info.attrs
        again = output_info(got, got.dtype, text)
        assert again == got

    def test_discard_leaves_nothing(self, case):
        folder, text, info = case
        sink = make_sink(text, {"": info})
        sink.create()
        sink.write("", parts(info)[0], VALUES[parts(info)[0].slices])
        sink.discard()
        assert list(folder.iterdir()) == []
        sink.discard()
        fresh = make_sink(text, {"": info})
        fresh.discard()
        assert list(folder.iterdir()) == []

    def test_replaces_only_when_told(self, case):
        folder, text, info = case
        for overwrite, factor in ((False, 1), (True, 2)):
            sink = make_sink(text, {"": info}, overwrite)
            sink.create()
            fill(sink, info, VALUES * np.float32(factor))
            sink.seal()
            sink.publish()
        with pytest.raises(UsageError, match="exists"):
            make_sink(text, {"": info})
        np.testing.assert_array_equal(open_source(text).read(whole(SHAPE)), VALUES * 2)
        assert len(list(folder.iterdir())) == 1

    def test_threads_and_copies_write_too(self, case):
        _, text, info = case
        sink = make_sink(text, {"": info})
        sink.create()
        writers = [sink, pickle.loads(pickle.dumps(sink))]
        with ThreadPoolExecutor(6) as pool:
            list(
                pool.map(
                    lambda job: writers[job[0] % len(writers)].write(
                        "", job[1], VALUES[job[1].slices]
                    ),
                    enumerate(parts(info)),
                )
            )
        sink.seal()
        sink.publish()
        np.testing.assert_array_equal(open_source(text).read(whole(SHAPE)), VALUES)

    def test_fortran_and_native_values_are_accepted(self, case):
        _, text, info = case
        sink = make_sink(text, {"": info})
        sink.create()
        fill(sink, info, np.asfortranarray(VALUES))
        sink.seal()
        sink.publish()
        np.testing.assert_array_equal(open_source(text).read(whole(SHAPE)), VALUES)


def test_zeros_are_stored(tmp_path):
    info = ArrayInfo((4, 4), FLOAT, chunks=(2, 2), storage="zarr")
    sink = make_sink(str(tmp_path / "x.zarr"), {"": info})
    sink.create()
    for part in Grid((4, 4), (2, 2)):
        pickle.loads(pickle.dumps(sink)).write("", part, np.zeros((2, 2), "f4"))
    sink.seal()
    sink.publish()
    assert zarr.open_array(tmp_path / "x.zarr").nchunks_initialized == 4


STATISTICS = {
    "mean": ArrayInfo((3,), np.dtype("f8")),
    "count": ArrayInfo((), np.dtype("i8")),
    "m2": ArrayInfo((3, 1), np.dtype("f8")),
}


class TestContainers:
    @pytest.mark.parametrize("suffix", [".npz", ".h5", ".zarr"])
    def test_several_arrays_and_attributes(self, tmp_path, suffix):
        text = str(tmp_path / f"s{suffix}")
        for overwrite in (False, True):
            sink = make_sink(text, STATISTICS, overwrite)
            sink.create()
            for name, info in STATISTICS.items():
                sink.write(name, whole(info.shape), np.full(info.shape, 7, info.dtype))
            sink.annotate({"mode": "batch"})
            sink.annotate({"epsilon": 1e-5})
            sink.seal()
            sink.publish()
        assert {entry.path for entry in list_arrays(text)} == set(STATISTICS)
        for name, info in STATISTICS.items():
            got = open_source(f"{text}/{name}")
            assert got.info.dtype == info.dtype
            np.testing.assert_array_equal(got.read(whole(info.shape)), np.full(info.shape, 7))
        assert self._attrs(tmp_path / f"s{suffix}") == {"mode": "batch", "epsilon": 1e-5}
        # Its own statistics may be replaced as a whole, even by fewer.
        make_sink(text, {"mean": STATISTICS["mean"]}, overwrite=True).discard()

    @staticmethod
    def _attrs(path):
        if path.suffix == ".zarr":
            return zarr.open_group(path).attrs["normcli"]
        if path.suffix == ".h5":
            with h5py.File(path) as file:
                return json.loads(file.attrs["normcli"])
        with np.load(path) as file:
            assert file["mean"].tolist() == [7, 7, 7]
            return json.loads(file["normcli"].tobytes())

    @pytest.mark.parametrize("suffix", [".npz", ".h5", ".zarr"])
    def test_other_arrays_are_never_lost(self, tmp_path, suffix):
        text = str(tmp_path / f"s{suffix}")
        sink = make_sink(text, STATISTICS)
        sink.create()
        for name, info in STATISTICS.items():
            sink.write(name, whole(info.shape), np.zeros(info.shape, info.dtype))
        sink.seal()
        sink.publish()
        with pytest.raises(UsageError, match="other arrays"):
            make_sink(f"{text}/mean", {"": STATISTICS["mean"]}, overwrite=True)
        with pytest.raises(UsageError, match="exists"):
            make_sink(f"{text}/new", {"": STATISTICS["mean"]})

    def test_data_do_not_pass_for_earlier_statistics(self, tmp_path):
        text = str(tmp_path / "s.h5")
        sink = make_sink(text, {"": STATISTICS["mean"]})
        sink.create()
        sink.annotate({"a": 1})
        sink.seal()
        sink.publish()
        with pytest.raises(UsageError, match="other arrays"):
            make_sink(text, STATISTICS, overwrite=True)

    def test_npy_holds_one(self, tmp_path):
        with pytest.raises(UsageError, match="one array"):
            make_sink(str(tmp_path / "s.npy"), STATISTICS)


class TestStream:
    def test_in_order(self):
        out = io.BytesIO()
        sink = NpyStreamSink(out, {"": ArrayInfo(SHAPE, FLOAT, storage="stream")})
        sink.create()
        for part in Grid(SHAPE, (5, 6, 10)):
            sink.write("", part, np.asfortranarray(VALUES[part.slices]))
        sink.seal()
        sink.publish()
        sink.discard()
        np.testing.assert_array_equal(np.load(io.BytesIO(out.getvalue())), VALUES)
        with pytest.raises(UsageError, match="pipe"):
            pickle.dumps(sink)

    def test_closed_pipe_is_told_as_such(self):
        import os

        reader, writer = os.pipe()
        os.close(reader)
        with os.fdopen(writer, "wb", buffering=0) as file:
            sink = NpyStreamSink(file, {"": ArrayInfo((3,), FLOAT)})
            with pytest.raises(BrokenPipeError):
                sink.create()


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.h5", "x.zarr"])
def test_bfloat16_is_refused_where_it_cannot_be_told(tmp_path, name):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    info = ArrayInfo((3,), np.dtype(ml_dtypes.bfloat16))
    with pytest.raises(UsageError, match="bfloat16") as caught:
        make_sink(str(tmp_path / name), {"": info})
    assert "--dtype" in caught.value.hint
    assert list(tmp_path.iterdir()) == []
