"""Every format into every format: the same values; and the output keeps the kind of the input."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec

from tests.cli.terminal import call, run, zscore

VALUES = np.random.default_rng(4).normal(7, 2, (12, 6, 10)).astype(np.float32)


def _npy() -> str:
    np.save("in.npy", VALUES)
    return "in.npy"


def _h5() -> str:
    with h5py.File("in.h5", "w") as file:
        data = file.create_dataset(
            "g/x", data=VALUES, chunks=(5, 6, 4), compression="gzip", shuffle=True
        )
        data.attrs["units"] = "K"
        for axis, name in enumerate("tyx"):
            data.dims[axis].label = name
    return "in.h5/g/x"


def _zarr2() -> str:
    array = zarr.create_array(
        "in2.zarr", shape=VALUES.shape, chunks=(5, 6, 4), dtype="<f4", zarr_format=2
    )
    array[...] = VALUES
    array.attrs.update({"units": "K", "_ARRAY_DIMENSIONS": ["t", "y", "x"]})
    return "in2.zarr"


def _zarr3(name: str = "in3.zarr", shards: tuple[int, ...] | None = None) -> str:
    array = zarr.create_array(
        name,
        shape=VALUES.shape,
        chunks=(3, 6, 5),
        shards=shards,
        dtype="f4",
        compressors=ZstdCodec(level=2),
        dimension_names=["t", "y", "x"],
        attributes={"units": "K"},
    )
    array[...] = VALUES
    return name


def _sharded() -> str:
    return _zarr3("sharded.zarr", (6, 6, 10))


INPUTS: dict[str, Callable[[], str]] = {
    "npy": _npy, "h5": _h5, "zarr2": _zarr2, "zarr3": _zarr3, "sharded": _sharded,
}  # fmt: skip


def _read(name: str, inner: str) -> np.ndarray:
    if name.endswith(".npy"):
        return np.asarray(np.load(name))
    if name.endswith(".h5"):
        with h5py.File(name) as file:
            return np.asarray(file[inner][...])
    return np.asarray(zarr.open_array(name, mode="r")[...])


@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.parametrize("output", ["y.npy", "y.h5/g/x", "y.zarr"])
@pytest.mark.parametrize("mode", ["batch", "layer"])
def test_the_same_values(folder: Path, kind: str, output: str, mode: str):
    name = INPUTS[kind]()
    ended = call("apply", name, "-o", output, "--mode", mode, "--layout", "NSC", "-q")
    assert (ended.code, ended.err) == (0, "")
    expected = zscore(VALUES, [0, 1] if mode == "batch" else [2])
    container = output.removesuffix("/g/x")
    got = _read(container, "g/x")
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    assert json.loads(Path(f"{container}.stats.json").read_text())["schema"] == "normcli-statistics"


def test_hdf5_keeps_its_kind(folder: Path):
    assert call("apply", _h5(), "-o", "y.h5/g/x", "-q").code == 0
    with h5py.File("y.h5") as file:
        data = file["g/x"]
        assert data.chunks == (5, 6, 4)
        assert (data.compression, data.shuffle) == ("gzip", True)
        assert data.attrs["units"] == "K"
        assert [d.label for d in data.dims] == ["t", "y", "x"]


@pytest.mark.parametrize("kind", ["zarr2", "zarr3", "sharded"])
def test_zarr_keeps_its_kind(folder: Path, kind: str):
    name = INPUTS[kind]()
    assert call("apply", name, "-o", "y.zarr", "-q").code == 0
    before, after = zarr.open_array(name, mode="r"), zarr.open_array("y.zarr", mode="r")
    assert after.metadata.zarr_format == before.metadata.zarr_format
    assert (after.chunks, after.shards) == (before.chunks, before.shards)
    # Format 3 gets a checksum of each chunk; format 2 has no codec that others can read.
    added = () if kind == "zarr2" else (Crc32cCodec(),)
    assert after.compressors == before.compressors + added
    assert dict(after.attrs) == dict(before.attrs)
    if kind != "zarr2":
        assert after.metadata.dimension_names == ("t", "y", "x")


@pytest.mark.parametrize("suffix", ["json", "npz", "h5", "zarr", "safetensors"])
def test_statistics_of_every_format_give_the_same_bits(folder: Path, suffix: str):
    assert call("fit", "x.npy", "-o", f"s.{suffix}", "-q").code == 0
    assert call("apply", "x.npy", "-o", "y.npy", "--stats", f"s.{suffix}", "-q").code == 0
    assert call("apply", "x.npy", "-o", "own.npy", "-q").code == 0
    np.testing.assert_array_equal(np.load("y.npy"), np.load("own.npy"))


def test_a_fit_apply_inverse_chain_of_processes(folder: Path):
    for arguments in (
        ["fit", "x.npy", "-o", "s.npz"],
        ["apply", "x.npy", "-o", "z.zarr", "--stats", "s.npz"],
        ["apply", "z.zarr", "-o", "back.npy", "--inverse", "--stats", "z.zarr.stats.json"],
    ):
        assert run(*arguments, "-q", cwd=folder).code == 0
    np.testing.assert_allclose(np.load("back.npy"), np.load("x.npy"), rtol=1e-6)
