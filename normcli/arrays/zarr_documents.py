"""The metadata of a Zarr array, checked before zarr opens it.

Metadata name codecs, and codecs are code: only those known here are let through.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from normcli.arrays.files import read_error
from normcli.arrays.rules import InputRules
from normcli.arrays.zarr_links import require_document, require_inside
from normcli.errors import InputError, SafetyError

DOCUMENTS = ("zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata")
_MAX_AXES = 64
_CODECS = {
    "bytes", "endian", "transpose", "sharding_indexed", "blosc", "gzip", "zlib", "bz2", "lzma",
    "lz4", "zstd", "crc32c", "crc32", "adler32", "fletcher32", "jenkins_lookup3", "shuffle",
    "delta", "fixedscaleoffset", "quantize", "bitround", "astype", "packbits", "zfpy", "pcodec",
    "vlen-utf8", "vlen-bytes",
}  # fmt: skip


@dataclass(frozen=True)
class ArrayDocument:
    """What the metadata of an array say of its files.

    Attributes
    ----------
    version : {2, 3}
        Format of Zarr, 2 or 3.
    shape, chunks : tuple of int
        Extents of the array, and of what one file holds (a shard, or a chunk).
    prefixed : bool
        Whether keys begin with ``c``.
    separator : str
        Between the numbers of a key.
    sharding : mapping, optional
        Configuration of the sharding codec.
    codecs : tuple
        What chunks are encoded with, in order, as the metadata name it.
    """

    version: Literal[2, 3]
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    prefixed: bool
    separator: str
    sharding: Mapping[str, Any] | None
    codecs: tuple[Any, ...]

    @property
    def counts(self) -> tuple[int, ...]:
        """Files along each axis."""
        return tuple(-(-n // c) for n, c in zip(self.shape, self.chunks, strict=True))

    def key(self, index: tuple[int, ...]) -> str:
        """Return the name of the file at a place in the grid."""
        parts = [str(i) for i in index]
        if self.prefixed:
            return self.separator.join(["c", *parts])
        return self.separator.join(parts) or "0"

    def index_of(self, key: str) -> tuple[int, ...] | None:
        """Return the place of a file in the grid; None for what is no chunk of this array."""
        parts = key.split("/")
        if self.prefixed:
            if self.separator == "/":
                if parts[0] != "c":
                    return None
                parts = parts[1:]
            else:
                if len(parts) != 1:
                    return None
                parts = parts[0].split(".")
                if parts[0] != "c":
                    return None
                parts = parts[1:]
        elif not self.shape:
            return () if key == "0" else None
        elif self.separator == ".":
            parts = key.split(".")
        if len(parts) != len(self.shape) or not all(p.isascii() and p.isdigit() for p in parts):
            return None
        index = tuple(map(int, parts))
        return index if all(i < n for i, n in zip(index, self.counts, strict=True)) else None


def read_document(root: Path, folder: Path, name: str, rules: InputRules) -> ArrayDocument:
    """Return the metadata of the array in `folder`, checked.

    Raises
    ------
    InputError
        When there are none, or they are malformed, or ask for what is not supported.
    SafetyError
        When they ask for pickles, or lie outside of the store.
    """
    require_inside(root, folder, name, rules)
    found = [n for n in ("zarr.json", ".zarray") if os.path.lexists(folder / n)]
    for extra in DOCUMENTS:
        if os.path.lexists(folder / extra):
            require_document(root, folder / extra, rules)
    if len(found) > 1:
        raise InputError(
            f"{name} has metadata of both formats, zarr.json and .zarray.",
            "Remove the one that is out of date.",
        )
    path = folder / found[0]
    document = _parsed(path)
    version = 3 if path.name == "zarr.json" else 2
    if document.get("zarr_format") != version:
        raise InputError(
            f"{path} has zarr_format {_short(document.get('zarr_format'))}, not {version}."
        )
    if version == 3 and document.get("node_type") != "array":
        raise InputError(f"{path} describes a {_short(document.get('node_type'))}, no array.")
    _require_codecs(document, path)
    _require_attributes(document, folder, version)
    return (_version_3 if version == 3 else _version_2)(document, path)


def is_array(root: Path, folder: Path, files: list[str], rules: InputRules) -> bool:
    """Whether a folder of a store is an array, by the names and documents in it.

    Raises
    ------
    InputError
        When its metadata cannot be read, or tell of something else than a group or an array.
    SafetyError
        When they lie outside of the store.
    """
    if ".zarray" in files:
        return True
    if "zarr.json" not in files:
        return False
    path = folder / "zarr.json"
    require_document(root, path, rules)
    kind = _parsed(path).get("node_type")
    if kind not in ("array", "group"):
        raise InputError(f"{path} describes a {_short(kind)}, neither a group nor an array.")
    return kind == "array"


def group_attributes(folder: Path) -> set[str]:
    """Return the names of the attributes of a group, of format 2 or 3.

    Raises
    ------
    InputError
        When its documents cannot be read.
    """
    found: set[str] = set()
    if os.path.lexists(folder / "zarr.json"):
        attributes = _parsed(folder / "zarr.json").get("attributes")
        found.update(attributes if isinstance(attributes, Mapping) else ())
    if os.path.lexists(folder / ".zattrs"):
        found.update(_parsed(folder / ".zattrs"))
    return found


def _parsed(path: Path) -> dict[str, Any]:
    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(items)
        if len(found) < len(items):
            keys = [key for key, _ in items]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise InputError(f"{path} has the key {_short(twice)} twice.")
        return found

    try:
        data = path.read_bytes()
        if data.startswith(b"\xef\xbb\xbf"):
            raise InputError(f"{path} begins with a byte order mark, which is not valid JSON.")
        document = json.loads(data.decode("utf-8"), object_pairs_hook=pairs)
    except OSError as error:
        raise read_error(str(path), error) from error
    except RecursionError as error:
        raise SafetyError(f"{path} is nested too deeply.") from error
    except ValueError as error:
        raise InputError(f"{path} could not be read as Zarr: {_one_line(error)}.") from error
    if not isinstance(document, dict):
        raise InputError(f"{path} holds no JSON object.")
    return document


def _version_3(document: Mapping[str, Any], path: Path) -> ArrayDocument:
    shape = _extents(document.get("shape"), 0, "shape", path)
    grid = _object(document.get("chunk_grid"), "chunk_grid", path)
    if grid.get("name") != "regular":
        raise InputError(f"{path} has the chunk grid {_short(grid.get('name'))}, not regular.")
    configuration = _object(grid.get("configuration"), "chunk_grid.configuration", path)
    chunks = _extents(configuration.get("chunk_shape"), 1, "chunk_shape", path)
    _require_rank(shape, chunks, path)
    if document.get("storage_transformers"):
        raise SafetyError(f"{path} asks for storage transformers, which are not supported.")
    encoding = document.get("chunk_key_encoding", {"name": "default"})
    if isinstance(encoding, str):
        encoding = {"name": encoding}
    encoding = _object(encoding, "chunk_key_encoding", path)
    name = encoding.get("name")
    settings = encoding.get("configuration")
    settings = {} if settings is None else settings
    separator = _object(settings, "chunk_key_encoding.configuration", path).get("separator")
    if name not in ("default", "v2") or separator not in (None, "/", "."):
        raise SafetyError(
            f"{path} names its chunks by the encoding {_short(name)} with the separator "
            f"{_short(separator)}, which are not supported."
        )
    prefixed = name == "default"
    sharding = None
    codecs = document.get("codecs")
    for codec in codecs if isinstance(codecs, list) else []:
        if codec_name(codec) == "sharding_indexed" and isinstance(codec, Mapping):
            sharding = _object(codec.get("configuration"), "sharding_indexed", path)
            inner = _extents(sharding.get("chunk_shape"), 1, "the inner chunk_shape", path)
            _require_rank(shape, inner, path)
            if any(c % i for c, i in zip(chunks, inner, strict=True)):
                raise InputError(f"{path} has shards {chunks} that chunks {inner} do not divide.")
            break
    separator = separator or ("/" if prefixed else ".")
    chain = tuple(codecs) if isinstance(codecs, list) else ()
    return ArrayDocument(3, shape, chunks, prefixed, separator, sharding, chain)


def _version_2(document: Mapping[str, Any], path: Path) -> ArrayDocument:
    shape = _extents(document.get("shape"), 0, "shape", path)
    chunks = _extents(document.get("chunks"), 1, "chunks", path)
    _require_rank(shape, chunks, path)
    separator = document.get("dimension_separator", ".")
    if separator not in (".", "/"):
        raise SafetyError(
            f"{path} has the dimension separator {_short(separator)}, which is not supported."
        )
    filters = document.get("filters")
    chain = tuple(filters) if isinstance(filters, list) else ()
    if document.get("compressor") is not None:
        chain = (*chain, document["compressor"])
    return ArrayDocument(2, shape, chunks, False, separator, None, chain)


def _extents(value: Any, least: int, what: str, path: Path) -> tuple[int, ...]:
    listed = value if isinstance(value, list) else None
    if listed is None or len(listed) > _MAX_AXES or any(type(n) is not int for n in listed):
        raise InputError(f"{path} has the {what} {_short(value)}, which is no list of extents.")
    if any(n < least or n >= 1 << 63 for n in listed):
        raise InputError(f"{path} has the {what} {_short(value)}, out of range.")
    return tuple(listed)


def _require_rank(shape: tuple[int, ...], chunks: tuple[int, ...], path: Path) -> None:
    if len(shape) != len(chunks):
        raise InputError(f"{path} has shape {shape} but chunks {chunks}.")


def _object(value: Any, what: str, path: Path) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InputError(f"{path} has a {what} that is no JSON object.")
    return value


def _require_attributes(document: Mapping[str, Any], folder: Path, version: int) -> None:
    """Require an object, which zarr believes attributes to be until they are asked for."""
    if version == 3:
        if document.get("attributes") is not None:
            _object(document["attributes"], "attributes", folder / "zarr.json")
    elif os.path.lexists(folder / ".zattrs"):
        _parsed(folder / ".zattrs")


def _require_codecs(document: Mapping[str, Any], path: Path) -> None:
    """Let known codecs through, wherever in the metadata they are named."""
    names = list(_codec_names(document))
    for name in names:
        if "pickle" in name.lower():
            raise SafetyError(
                f"{path} contains a pickle codec ({_short(name)}); normcli never loads pickles.",
                "Store the numbers as a plain numeric array.",
            )
    for name in names:
        if name.removeprefix("numcodecs.") not in _CODECS:
            raise InputError(
                f"{path} asks for the codec {_short(name)}, which normcli does not know.",
                "Rewrite it with a common codec, such as zstd.",
            )


def _codec_names(document: Mapping[str, Any]) -> Iterator[str]:
    for key in ("codecs", "filters", "compressor", "index_codecs"):
        value = document.get(key)
        for codec in value if isinstance(value, list) else [value]:
            if codec is None:
                continue
            if not isinstance(codec, Mapping):
                yield codec_name(codec)
            else:
                # Format 2 looks at the one and format 3 at the other.
                yield from (codec_name({k: codec[k]}) for k in ("id", "name") if k in codec)
                configuration = codec.get("configuration")
                if isinstance(configuration, Mapping):
                    yield from _codec_names(configuration)


def codec_name(codec: Any) -> str:
    """Return what a codec of the metadata is called."""
    if isinstance(codec, Mapping):
        codec = codec.get("id", codec.get("name"))
    return codec if isinstance(codec, str) else repr(codec)[:40]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:80] + "…"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200].rstrip(".")
