"""Zarr stores that are broken, lead elsewhere, name code, or lie about their size."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import socket
import zlib
from pathlib import Path

import google_crc32c
import numcodecs
import numpy as np
import pytest
import zarr

from normcli.arrays.zarr_frames import zstd_sizes
from tests.cli.terminal import call
from tests.hostile.commands import SECRET, Case, case, limited, pooled, require_refused

VALUES = np.random.default_rng(5).normal(size=(40, 6)).astype("f4")
MAGIC_ZSTD = bytes.fromhex("28b52ffd")


def store(folder: Path, version: int = 3, **options) -> Path:
    path = folder / "x.zarr"
    shutil.rmtree(path, ignore_errors=True)
    options = {"chunks": (10, 6), **options}
    zarr.create_array(path, data=VALUES, zarr_format=version, **options)
    return path


def document(version: int) -> str:
    return "zarr.json" if version == 3 else ".zarray"


def edited(change, version: int = 3, **options):
    """Return a builder that changes the metadata of a sound store."""

    def build(folder: Path) -> str:
        path = store(folder, version, **options) / document(version)
        values = json.loads(path.read_text())
        change(values)
        path.write_text(json.dumps(values))
        return "x.zarr"

    return build


def put(*keys, to, version: int = 3, **options):
    def change(values) -> None:
        for key in keys[:-1]:
            values = values[key]
        values[keys[-1]] = to

    return edited(change, version, **options)


def written(text: str | bytes, version: int = 3):
    """Return a builder that replaces the metadata of a sound store."""

    def build(folder: Path) -> str:
        data = text if isinstance(text, bytes) else text.encode()
        (store(folder, version) / document(version)).write_bytes(data)
        return "x.zarr"

    return build


def cut_beside(folder: Path) -> str:
    """The other array must not be taken for the only one."""
    for name in "ab":
        zarr.create_array(folder / "x.zarr", name=name, data=np.ones((4, 3)))
    os.truncate(folder / "x.zarr/b/zarr.json", 40)
    return "x.zarr"


def attributes_2(text: str):
    """Return a builder that replaces the attributes of a sound store of format 2."""

    def build(folder: Path) -> str:
        (store(folder, 2) / ".zattrs").write_text(text)
        return "x.zarr"

    return build


def with_text(change, version: int = 3):
    def build(folder: Path) -> str:
        path = store(folder, version) / document(version)
        path.write_bytes(change(path.read_bytes()))
        return "x.zarr"

    return build


def chunk(data: bytes | None, version: int = 3, key: str = "c/1/0", **options):
    """Return a builder that replaces one chunk of a sound store."""

    def build(folder: Path) -> str:
        path = store(folder, version, **options) / key
        assert path.is_file()
        if data is None:
            path.unlink()
            path.mkdir()
        else:
            path.write_bytes(data)
        return "x.zarr"

    return build


def changed_chunk(change, version: int = 3, key: str = "c/1/0", **options):
    def build(folder: Path) -> str:
        path = store(folder, version, **options) / key
        data = bytearray(path.read_bytes())
        path.write_bytes(change(data))
        return "x.zarr"

    return build


def flip(place: int):
    def change(data: bytearray) -> bytes:
        data[place] ^= 4
        return bytes(data)

    return change


def halved(data: bytearray) -> bytes:
    return bytes(data[: len(data) // 2])


def both_versions(folder: Path) -> str:
    path = store(folder, 3)
    shutil.move(path, folder / "three.zarr")
    store(folder, 2)
    shutil.copy(folder / "three.zarr/zarr.json", path)
    return "x.zarr"


def special(kind: str, key: str = "c/1/0"):
    def build(folder: Path) -> str:
        path = store(folder) / key
        path.unlink()
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "device":
            path.symlink_to("/dev/zero")
        else:
            here = Path.cwd()
            os.chdir(path.parent)
            with socket.socket(socket.AF_UNIX) as opened:
                opened.bind(path.name)
            os.chdir(here)
        return "x.zarr"

    return build


def zstd_of_unknown_size(nbytes: int, told: int | None = None) -> bytes:
    """Return a zstd frame of zeros, in blocks of one repeated byte, that hides its size."""

    def block(last: int, size: int) -> bytes:
        return (last | 1 << 1 | size << 3).to_bytes(3, "little") + b"\0"

    full, rest = divmod(nbytes, 1 << 17)
    head = b"\0\x58" if told is None else b"\x80\x58" + told.to_bytes(4, "little")
    return MAGIC_ZSTD + head + block(0, 1 << 17) * full + block(1, rest)


def sharded_bomb(data: bytes):
    """Return a builder of a shard whose first chunk inflates too far, with a right index."""

    def build(folder: Path) -> str:
        path = store(folder, compressors=ZSTD, **SHARDED)
        count = 4
        index = np.full((count, 2), np.iinfo("u8").max, "<u8")
        index[0] = 0, len(data)
        table = index.tobytes()
        sums = google_crc32c.value(table).to_bytes(4, "little")
        (path / "c/0/0").write_bytes(data + table + sums)
        return path.name

    return build


def bomb(compressor, data: bytes, version: int = 3):
    return chunk(data, version, key="c/1/0" if version == 3 else "1.0", compressors=compressor)


BIG = bytes(1 << 22)
GZIP = zarr.codecs.GzipCodec()
ZSTD = zarr.codecs.ZstdCodec()
CRC = [zarr.codecs.ZstdCodec(), zarr.codecs.Crc32cCodec()]
BLOSC = zarr.codecs.BloscCodec(cname="lz4")
SHARDED = {"chunks": (5, 6), "shards": (20, 6)}
SHARD = "c/1/0"
PICKLED = [{"id": "pickle"}], [{"id": "vlen-utf8"}, {"id": "pickle"}], [{"id": "numcodecs.pickle"}]


def sharding(values) -> dict:
    return values["codecs"][0]["configuration"]


CASES: dict[str, Case] = {
    # metadata
    "no metadata": case(lambda f: (f / "x.zarr").mkdir() or "x.zarr", 3, "x.zarr"),
    "a plain file": case(
        lambda f: (f / "x.zarr").write_text("1,2") and "x.zarr", 3, "not a folder"
    ),
    "JSON cut, of one of two": case(cut_beside, 3, "x.zarr/b/zarr.json could not be read as Zarr"),
    "JSON cut": case(with_text(lambda d: d[:-20]), 3, "zarr.json could not be read as Zarr"),
    "JSON cut, 2": case(with_text(lambda d: d[:-20], 2), 3, ".zarray could not be read as Zarr"),
    "JSON empty": case(written(""), 3, "zarr.json is empty"),
    "JSON of HTML": case(written("<html>"), 3, "zarr.json"),
    "JSON list": case(written("[]"), 3, "no JSON object"),
    "JSON with a BOM": case(with_text(lambda d: b"\xef\xbb\xbf" + d), 3, "byte order mark"),
    "JSON in Latin-1": case(written(b'{"zarr_format": "\xe9"}'), 3, "zarr.json"),
    "JSON too deep": case(written("[" * 100_000), 4, "nested too deeply"),
    "a key twice": case(
        with_text(lambda d: d.replace(b'"shape"', b'"shape": [2], "shape"', 1)), 3, "'shape' twice"
    ),
    "both formats": case(both_versions, 3, "both formats"),
    "format 4": case(put("zarr_format", to=4), 3, "zarr_format 4"),
    "node type": case(put("node_type", to="tree"), 3, "'tree'"),
    "shape of text": case(put("shape", to="40,6"), 3, "shape"),
    "shape of floats": case(put("shape", to=[40.0, 6]), 3, "shape"),
    "shape of truth": case(put("shape", to=[True, 6]), 3, "shape"),
    "shape negative": case(put("shape", to=[-1, 6]), 3, "out of range"),
    "shape overflows": case(put("shape", to=[1 << 70, 6]), 3, "out of range"),
    "rank": case(put("shape", to=[40]), 3, "shape (40,)", "chunks (10, 6)"),
    "rank, 2": case(put("shape", to=[40], version=2), 3, "shape (40,)", "chunks (10, 6)"),
    "chunks of 0": case(put("chunk_grid", "configuration", "chunk_shape", to=[0, 6]), 3, "range"),
    "chunks of 0, 2": case(put("chunks", to=[0, 6], version=2), 3, "chunks", "range"),
    "chunks missing": case(edited(lambda v: v.pop("chunks"), 2), 3, "chunks None"),
    "unknown grid": case(put("chunk_grid", "name", to="odd"), 3, "'odd'"),
    "unknown dtype": case(put("data_type", to="float33"), 3, "x.zarr"),
    "unknown dtype, 2": case(put("dtype", to="<q9", version=2), 3, "x.zarr"),
    "unknown codec": case(put("codecs", 1, "name", to="magic"), 3, "for the codec 'magic'"),
    "unknown codec, 2": case(put("compressor", to={"id": "magic"}, version=2), 3, "codec 'magic'"),
    "unknown extension": case(put("extra", to={"must_understand": True}), 3, "x.zarr"),
    "storage transformer": case(put("storage_transformers", to=[{"name": "x"}]), 4, "transformers"),
    "separator": case(
        put("chunk_key_encoding", to={"name": "default", "configuration": {"separator": "../"}}),
        4,
        "'../'",
    ),
    "separator, 2": case(put("dimension_separator", to="../", version=2), 4, "'../'"),
    "separator of text": case(
        put("chunk_key_encoding", to={"name": "default", "configuration": "/"}),
        3,
        "chunk_key_encoding.configuration that is no JSON object",
    ),
    "attributes of truth": case(put("attributes", to=True), 3, "attributes that is no JSON object"),
    "attributes of truth, 2": case(attributes_2("true"), 3, ".zattrs holds no JSON object"),
    "nothing in it": case(put("shape", to=[40, 0]), 3, "x.zarr is empty: axis 1"),
    "key encoding": case(put("chunk_key_encoding", to={"name": "odd"}), 4, "'odd'"),
    # types
    "complex": case(put("data_type", to="complex64"), 3, "x.zarr"),
    "dates": case(put("dtype", to="<M8[s]", version=2), 3, "x.zarr"),
    "strings": case(put("data_type", to="string"), 3, "x.zarr"),
    "records": case(put("dtype", to=[["p", "<f4"]], version=2), 3, "x.zarr"),
    # code
    **{
        f"pickle as filter {n}": case(
            put("filters", to=filters, version=2), 4, ".zarray", "never loads pickles"
        )
        for n, filters in enumerate(PICKLED)
    },
    "pickle as compressor": case(
        put("compressor", to={"id": "pickle", "protocol": 5}, version=2), 4, "never loads pickles"
    ),
    "pickle in format 3": case(
        put("codecs", to=[{"name": "numcodecs.pickle", "configuration": {}}]), 4, "pickles"
    ),
    "pickle under two names": case(
        put("codecs", 0, to={"id": "bytes", "name": "numcodecs.pickle"}), 4, "pickles"
    ),
    "pickle in a shard": case(
        edited(lambda v: sharding(v)["codecs"].append({"name": "numcodecs.pickle"}), **SHARDED),
        4,
        "never loads pickles",
    ),
    "pickle in the index of a shard": case(
        edited(lambda v: sharding(v)["index_codecs"].append({"name": "pickle"}), **SHARDED),
        4,
        "never loads pickles",
    ),
    "msgpack": case(put("filters", to=[{"id": "msgpack2"}], version=2), 3, "'msgpack2'"),
    "json": case(put("filters", to=[{"id": "json2"}], version=2), 3, "'json2'"),
    # sizes
    "2.5e10 chunks": case(
        edited(lambda v: v.update(shape=[25 * 10**10, 6])), 7, "0.0 % of chunks exist"
    ),
    "8 TiB": case(put("shape", to=[1 << 40, 6], version=2), 7, "0.0 % of chunks exist"),
    "a chunk of 1.5 TiB": case(
        put("chunk_grid", "configuration", "chunk_shape", to=[1 << 36, 6]),
        4,
        "chunks of 1536.0 GiB",
    ),
    # chunks
    "chunk empty": case(chunk(b""), 3, "x.zarr: the chunk c/1/0 is empty"),
    "chunk empty, 2": case(chunk(b"", 2, "1.0"), 3, "x.zarr: the chunk 1.0 is empty"),
    "chunk a folder": case(chunk(None), 3, "the chunk c/1/0 is a folder"),
    "chunk nonsense": case(chunk(b"nonsense"), 3, "x.zarr at (10, 0) (chunk c/1/0)"),
    "chunk short": case(chunk(bytes(100), compressors=None), 3, "chunk c/1/0"),
    "chunk long": case(chunk(bytes(1000), compressors=None), 3, "chunk c/1/0"),
    "chunk short, 2": case(chunk(bytes(100), 2, "1.0", compressors=None), 3, "chunk 1.0"),
    "chunk cut": case(changed_chunk(halved), 3, "chunk c/1/0"),
    "chunk cut, gzip": case(changed_chunk(halved, compressors=GZIP), 3, "chunk c/1/0"),
    "chunk cut, blosc": case(changed_chunk(halved, compressors=BLOSC), 3, "chunk c/1/0", "blosc"),
    "bit under crc32c": case(changed_chunk(flip(20), compressors=CRC), 3, "chunk c/1/0"),
    "bit under gzip": case(changed_chunk(flip(40), compressors=GZIP), 3, "chunk c/1/0"),
    "pipe": case(special("pipe"), 3, "the chunk c/1/0 is a pipe"),
    "socket": case(special("socket"), 3, "the chunk c/1/0 is a pipe, a device or a socket"),
    "device": case(special("device"), 4, "/dev/zero"),
    "pipe as metadata": case(special("pipe", "zarr.json"), 3, "zarr.json is no regular file"),
    # shards
    "shard empty": case(chunk(b"", key=SHARD, **SHARDED), 3, "the chunk c/1/0 is empty"),
    "shard cut": case(changed_chunk(halved, key=SHARD, **SHARDED), 3, "x.zarr"),
    "shard of an index": case(
        changed_chunk(lambda d: bytes(d[-30:]), key=SHARD, **SHARDED), 3, "shard c/1/0 is cut"
    ),
    "shard index beyond": case(
        changed_chunk(
            lambda d: bytes(d[:-68]) + b"\x7f" * 64 + bytes(d[-4:]), key=SHARD, **SHARDED
        ),
        3,
        "index points beyond",
    ),
    "shard index bit": case(changed_chunk(flip(-60), key=SHARD, **SHARDED), 3, "x.zarr"),
    # bombs
    "bomb gzip": case(bomb(GZIP, gzip.compress(BIG)), 4, "chunk c/1/0", "inflates to more"),
    "bomb gzip of members": case(
        bomb(GZIP, gzip.compress(bytes(240)) * 2), 4, "chunk c/1/0", "inflates to more"
    ),
    "bomb gzip, 2": case(
        bomb(numcodecs.GZip(), gzip.compress(BIG), 2), 4, "chunk 1.0", "inflates to more"
    ),
    "bomb zlib, 2": case(
        bomb(numcodecs.Zlib(), zlib.compress(BIG), 2), 4, "chunk 1.0", "inflates to more"
    ),
    "bomb bz2, 2": case(
        bomb(numcodecs.BZ2(), numcodecs.BZ2().encode(BIG), 2), 4, "chunk 1.0", "inflates to more"
    ),
    "bomb lzma, 2": case(
        bomb(numcodecs.LZMA(), numcodecs.LZMA().encode(BIG), 2), 4, "chunk 1.0", "inflates to"
    ),
    "bomb lz4, 2": case(
        bomb(numcodecs.LZ4(), numcodecs.LZ4().encode(BIG), 2), 4, "chunk 1.0", "inflates to 4194304"
    ),
    "bomb zstd": case(bomb(ZSTD, numcodecs.Zstd().encode(BIG)), 4, "inflates to 4194304 bytes"),
    "bomb zstd of no size": case(bomb(ZSTD, zstd_of_unknown_size(1 << 22)), 4, "inflates to more"),
    "bomb zstd in a second frame": case(
        bomb(ZSTD, numcodecs.Zstd().encode(bytes(240)) + numcodecs.Zstd().encode(BIG)),
        4,
        "inflates to 4194544 bytes",
    ),
    "bomb zstd behind a lie": case(bomb(ZSTD, zstd_of_unknown_size(1 << 22, told=240)), 3, "c/1/0"),
    "bomb zstd in a shard": case(
        sharded_bomb(zstd_of_unknown_size(1 << 22)), 4, "chunk c/0/0", "inflates to more"
    ),
    "bomb zstd, 2": case(
        bomb(numcodecs.Zstd(), numcodecs.Zstd().encode(BIG), 2), 4, "inflates to 4194304 bytes"
    ),
    "bomb blosc": case(
        bomb(BLOSC, numcodecs.Blosc().encode(BIG)), 4, "chunk c/1/0", "inflates to 4194304"
    ),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CASES)
def test_refused(tmp_path, monkeypatch, name):
    require_refused(tmp_path, CASES[name], monkeypatch)


GIB = 1 << 30


@pytest.mark.parametrize(
    ("told", "sharded"),
    [
        (None, False),
        (240, True),
        (GIB, False),
        pytest.param(None, True, marks=pytest.mark.slow),
        pytest.param(240, False, marks=pytest.mark.slow),
        pytest.param(GIB, True, marks=pytest.mark.slow),
    ],
)
def test_a_bomb_of_a_gibibyte_takes_no_memory(tmp_path, sharded, told):
    data = zstd_of_unknown_size(GIB, told)
    name = sharded_bomb(data)(tmp_path) if sharded else bomb(ZSTD, data)(tmp_path)
    ended, _, memory = limited("fit", name, "-o", "s.json", cwd=tmp_path)
    assert ended.code in (3, 4), ended
    assert "Traceback" not in ended.err
    assert memory < 600 << 20


class TestFrames:
    """What is told of zstd frames is compared with what numcodecs makes of them."""

    @pytest.mark.parametrize("level", [-5, 1, 3, 19])
    @pytest.mark.parametrize("checksum", [False, True])
    @pytest.mark.parametrize("nbytes", [0, 1, 255, 256, 300, 65_791, 65_792, 1_000_000])
    def test_sizes(self, level, checksum, nbytes):
        rng = np.random.default_rng(nbytes)
        for values in (rng.integers(0, 4, nbytes, "u1"), rng.integers(0, 256, nbytes, "u1")):
            data = numcodecs.Zstd(level, checksum).encode(values)
            for times in (1, 3):
                sizes = frames(bytes(data) * times)
                assert sizes is not None
                told, most = sizes
                assert told == times * nbytes
                assert most >= times * nbytes

    def test_cut_or_longer(self):
        data = bytes(numcodecs.Zstd(3, True).encode(np.arange(50_000, dtype="u4")))
        assert frames(data) is not None
        for size in (1, 5, 17, 100, len(data) - 5, len(data) - 1):
            assert frames(data[:size]) is None
        assert frames(data + b"\0") is None
        assert frames(b"\x50\x2a\x4d\x18\4\0\0\0abcd" + data) is None

    def test_blocks_of_a_frame_that_does_not_tell(self):
        assert frames(zstd_of_unknown_size(1 << 20)) == (None, 1 << 20)


def frames(data: bytes):
    return zstd_sizes(lambda at, count: data[at : at + count], len(data))


def test_a_zstd_chunk_of_unknown_size_is_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = chunk(zstd_of_unknown_size(240))(tmp_path)
    assert call("fit", name, "-o", "s.json").code == 0
    expected = VALUES.astype(float)
    expected[10:20] = 0
    assert np.isclose(pooled(tmp_path / "s.json")[0], expected.mean())


def link_chunk(path: Path, outside: Path) -> None:
    (path / "c/1/0").rename(outside / "chunk")
    (path / "c/1/0").symlink_to(outside / "chunk")


def link_folder(path: Path, outside: Path) -> None:
    (path / "c/1").rename(outside / "one")
    (path / "c/1").symlink_to(outside / "one")


def link_all(path: Path, outside: Path) -> None:
    (path / "c").rename(outside / "c")
    (path / "c").symlink_to("../outside/c")


def link_document(path: Path, outside: Path) -> None:
    (path / "zarr.json").rename(outside / "zarr.json")
    (path / "zarr.json").symlink_to(outside / "zarr.json")


def link_of_link(path: Path, outside: Path) -> None:
    (path / "c/1/0").rename(outside / "chunk")
    (path / "hop").symlink_to(outside / "chunk")
    (path / "c/1/0").symlink_to("../../hop")


LINKS = (link_chunk, link_folder, link_all, link_document, link_of_link)


@pytest.mark.parametrize("make", LINKS, ids=lambda make: make.__name__)
def test_links_out_of_the_store(tmp_path, monkeypatch, make):
    (tmp_path / "outside").mkdir()

    def build(folder: Path) -> str:
        make(store(folder), folder / "outside")
        return "x.zarr"

    require_refused(tmp_path, case(build, 4, "outside", "--allow-symlinks"), monkeypatch)
    ended = call("fit", "x.zarr", "-o", "s.json", "--allow-symlinks")
    assert ended.code == 0, ended
    assert np.isclose(pooled(tmp_path / "s.json")[0], VALUES.astype(float).mean())


def test_metadata_too_large_to_be_any(tmp_path, monkeypatch):
    """A file of holes, which would take memory if it were read."""

    def build(folder: Path) -> str:
        os.truncate(store(folder) / "zarr.json", 65 << 20)
        return "x.zarr"

    require_refused(tmp_path, case(build, 4, "zarr.json", "too many for metadata"), monkeypatch)


def test_a_linked_array_of_a_group(tmp_path, monkeypatch):
    def build(folder: Path) -> str:
        zarr.create_array(folder / "secret.zarr", data=np.full((4, 3), SECRET))
        zarr.create_group(folder / "x.zarr")
        (folder / "x.zarr/a").symlink_to(folder / "secret.zarr")
        return "x.zarr/a"

    require_refused(tmp_path, case(build, 4, "x.zarr/a", "secret.zarr"), monkeypatch)
    assert call("fit", "x.zarr/a", "-o", "s.json", "--allow-symlinks").code == 0
    assert pooled(tmp_path / "s.json")[0] == SECRET


def test_links_inside_of_the_store(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = store(tmp_path)
    (path / "c/1/0").unlink()
    (path / "c/1/0").symlink_to("../0/0")
    assert call("fit", "x.zarr", "-o", "s.json").code == 0
    expected = np.concatenate([VALUES[:10], VALUES[:10], VALUES[20:]]).astype(float)
    assert np.isclose(pooled(tmp_path / "s.json")[0], expected.mean())
