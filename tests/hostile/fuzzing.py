"""Searches for inputs that break the readers, led by coverage: ``python -m tests.hostile.fuzzing``.

The first argument is a format of `READERS`, the second how many seconds to search. Anything but an
array or an error of normcli ends the search with a traceback and another exit code than 0.
"""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["normcli.arrays"]):
    from normcli.arrays.opening import open_source
    from normcli.arrays.zarr_frames import zstd_sizes

from normcli.domain.grid import Block
from normcli.errors import NormcliError
from tests.hostile import mutations

_MOST = 1 << 20


def _read(name: str) -> None:
    try:
        source = open_source(name)
        if source.info.nbytes <= _MOST:
            shape = source.info.shape
            source.read(Block(0, (0,) * len(shape), shape))
        source.close()
    except NormcliError:
        pass


def npy(data: bytes) -> None:
    Path("x.npy").write_bytes(data)
    _read("x.npy")


def npz(data: bytes) -> None:
    Path("x.npz").write_bytes(data)
    _read("x.npz")


def zarr_document(data: bytes) -> None:
    Path("x.zarr/zarr.json").write_bytes(data)
    _read("x.zarr")


def zarr_chunk(data: bytes) -> None:
    Path("x.zarr/c/1/0").write_bytes(data)
    _read("x.zarr")


def zstd_frames(data: bytes) -> None:
    sizes = zstd_sizes(lambda at, count: data[at : at + count], len(data))
    assert sizes is None or sizes[1] >= 0


READERS: dict[str, tuple[Callable[[bytes], None], Callable[[Path], str], str]] = {
    "npy": (npy, mutations.npy, "x.npy"),
    "npz": (npz, mutations.npz, "x.npz"),
    "zarr_document": (zarr_document, mutations.zarr_3, "x.zarr/zarr.json"),
    "zarr_chunk": (zarr_chunk, mutations.zarr_3, "x.zarr/c/1/0"),
    "zstd_frames": (zstd_frames, mutations.zarr_3, "x.zarr/c/1/0"),
}


def main() -> None:
    """Search in a folder of its own."""
    reader, make, seed = READERS[sys.argv[1]]
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        make(Path())
        Path("corpus").mkdir()
        Path("corpus/seed").write_bytes(Path(seed).read_bytes())
        # The most that a process took is counted from the one that began it, which may be large.
        options = [f"-max_total_time={sys.argv[2]}", "-rss_limit_mb=8192", "-timeout=30"]
        atheris.Setup([sys.argv[0], "-seed=1", "-max_len=8192", *options, "corpus"], reader)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
