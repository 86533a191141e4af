"""NPZ: arrays under their names, attributes as JSON text in the member ``normcli``."""

from __future__ import annotations

import zipfile

import numpy as np

from normcli.bundles.attributes import ATTRIBUTES, attributes_from_text, attributes_text
from normcli.bundles.bundle import Bundle
from normcli.bundles.guards import Allowance, pickle_error, reading, require_file
from normcli.bundles.npy_file import read_stream, write_stream
from normcli.bundles.selection import Choose, everything
from normcli.errors import InputError, UsageError

_SUFFIX = ".npy"
# One date for all members, so that the same arrays make the same bytes.
_EPOCH = (1980, 1, 1, 0, 0, 0)


def read(path: str, choose: Choose = everything) -> Bundle:
    """Read an NPZ file.

    Raises
    ------
    InputError
        When the archive or a member is malformed.
    SafetyError
        When a member holds Python objects.
    """
    size = require_file(path)
    with reading(path, "an NPZ file"), zipfile.ZipFile(path) as archive:
        members = _members(archive, path)
        allowance = Allowance(path, size)

        def load(name: str) -> np.ndarray:
            with archive.open(members[name]) as stream:
                values = read_stream(
                    stream, members[name].file_size, f"{path}: {name!r}", allowance
                )
                stream.read(1)  # Reading to the end is what checks the CRC.
            return values

        attrs = {}
        if ATTRIBUTES in members:
            attrs = attributes_from_text(load(ATTRIBUTES).tobytes(), path)
        names = tuple(name for name in members if name != ATTRIBUTES)
        return Bundle({name: load(name) for name in choose(names)}, attrs)


def write(path: str, bundle: Bundle) -> None:
    """Write arrays and, where there are any, attributes to an NPZ file.

    Raises
    ------
    UsageError
        When an array bears the name of the attributes.
    """
    if ATTRIBUTES in bundle.arrays:
        raise UsageError(f"No array of an .npz file may be called {ATTRIBUTES!r}.")
    members = dict(bundle.arrays)
    if bundle.attrs:
        text = attributes_text(bundle.attrs).encode("ascii")
        members[ATTRIBUTES] = np.frombuffer(text, dtype=np.uint8)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, values in members.items():
            member = zipfile.ZipInfo(name + _SUFFIX, _EPOCH)
            member.external_attr = 0o644 << 16
            with archive.open(member, "w", force_zip64=True) as stream:
                write_stream(stream, values)


def _members(archive: zipfile.ZipFile, path: str) -> dict[str, zipfile.ZipInfo]:
    members: dict[str, zipfile.ZipInfo] = {}
    for member in archive.infolist():
        if member.filename.endswith((".pkl", ".pickle")):
            raise pickle_error(f"{path}: {member.filename!r}")
        if not member.filename.endswith(_SUFFIX):
            raise InputError(f"{path}: the member {member.filename!r} is no array.")
        if member.flag_bits & 1:
            raise InputError(f"{path} is encrypted.")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise InputError(f"{path}: {member.filename!r} is compressed as numpy never does.")
        name = member.filename[: -len(_SUFFIX)]
        if name in members:
            raise InputError(f"{path} holds the array {name!r} twice.")
        members[name] = member
    return members
