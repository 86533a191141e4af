"""Keras models: .keras, .weights.h5 and the older .h5, by h5py alone; Keras is never asked.

Keras 3 numbers the variables of a layer; their names come from the layer's class and from which
of them its configuration leaves out. Layers bear the names that the model gave them.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np

from normcli.bundles import hdf5_file
from normcli.bundles.bundle import Bundle
from normcli.bundles.guards import Allowance, reading, require_file
from normcli.bundles.selection import Choose, everything
from normcli.errors import InputError

WEIGHTS_SUFFIX = ".weights.h5"
# The members of a .keras archive.
METADATA, CONFIG, WEIGHTS = "metadata.json", "config.json", "model.weights.h5"
_MAX_CONFIG = 64 * 2**20
_MOST_RATIO = 20
# Classes by the names of their groups: which parameters may be left out, and what follows them.
_CLASSES = {
    "batch_normalization": (("gamma", "beta"), ("moving_mean", "moving_variance")),
    "layer_normalization": (("gamma", "beta"), ()),
    "group_normalization": (("gamma", "beta"), ()),
    "rms_normalization": ((), ("scale",)),
    "normalization": ((), ("mean", "variance", "count")),
}
_SWITCH = {"gamma": "scale", "beta": "center"}
_NUMBERS = ("epsilon", "momentum")
_VARIABLE = re.compile(r"(?:(.*)/)?([^/]+)/vars/(\d+)\Z")
_COUNTER = re.compile(r"_\d+\Z")


def read(path: str, choose: Choose = everything) -> Bundle:
    """Read the chosen variables of a Keras model or of its weights.

    Attributes are ``layers``: the configurations of the normalization layers, where the file has
    any; their epsilon and momentum are among the arrays.

    Raises
    ------
    InputError
        When the file is malformed.
    SafetyError
        When a variable lies in another file.
    """
    size = require_file(path)
    if path.lower().endswith(".keras"):
        with reading(path, "a Keras model"), zipfile.ZipFile(path) as archive:
            configs = _configs(_config(archive, path))
            with tempfile.TemporaryFile() as copy:
                _unpack(archive, copy, path, size)
                return _read(copy, path, size, configs, choose)
    return _read(path, path, size, {}, choose)


def _read(
    opened: str | IO[bytes], path: str, size: int, configs: dict[str, Any], choose: Choose
) -> Bundle:
    with reading(path, "a Keras file"), hdf5_file.opened(opened) as file:
        if "model_config" in file.attrs:
            configs = _configs(json.loads(file.attrs["model_config"]))
        own: dict[str, str] = {}
        numbers: dict[str, np.ndarray] = {}

        def named(found: tuple[str, ...]) -> list[str]:
            own.update(_variables(file, found, configs))
            layers = {_parent(name) for name in own}
            for layer in layers:
                about = configs.get(layer.rpartition("/")[2], {})
                for key in _NUMBERS:
                    if isinstance(about.get(key), int | float):
                        numbers[f"{layer}/{key}"] = np.array(float(about[key]))
            chosen = set(choose((*own, *numbers)))
            for held in (own, numbers):
                for name in [n for n in held if n not in chosen]:
                    del held[name]
            return list(own.values())

        bundle = hdf5_file.read_open(file, path, Allowance(path, size), named)
        arrays = {name: bundle.arrays[full] for name, full in own.items()}
        return Bundle(arrays | numbers, {"layers": configs} if configs else {})


def _variables(
    file: Any, names: tuple[str, ...], configs: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    """Yield names that say what a variable is, and the names of their datasets."""
    groups: dict[str, list[str]] = {}
    for name in names:
        matched = _VARIABLE.match(name)
        if matched is None:
            yield name, name
        else:
            groups.setdefault(name.rpartition("/")[0], []).append(name)
    titles = {group: _title(file, group) for group in groups}
    for group, members in groups.items():
        members.sort(key=lambda name: int(name.rpartition("/")[2]))
        title = titles[group]
        path = group.removesuffix("/vars")
        unique = title and list(titles.values()).count(title) == 1
        roles = _roles(path.rpartition("/")[2], len(members), configs.get(title))
        if roles is None:
            yield from ((name, name) for name in members)
            continue
        for role, name in zip(roles, members, strict=True):
            yield f"{title if unique else path}/{role}", name


def _roles(group: str, count: int, config: Mapping[str, Any] | None) -> list[str] | None:
    """Return what the variables of a layer are, or None where that cannot be told."""
    known = _CLASSES.get(_COUNTER.sub("", group))
    if known is None:
        return None
    optional, fixed = known
    if config is not None:
        chosen = [name for name in optional if config.get(_SWITCH[name], True)]
        if config.get("rms_scaling"):
            chosen = ["gamma"]
    elif count == len(optional) + len(fixed):
        chosen = list(optional)
    elif count == len(fixed):
        chosen = []
    else:
        return None
    roles = [*chosen, *fixed]
    return roles if len(roles) == count else None


def _title(file: Any, group: str) -> str:
    title = file[group].attrs.get("name", "")
    return title if isinstance(title, str) else ""


def _parent(name: str) -> str:
    return name.rpartition("/")[0]


def _configs(document: Any) -> dict[str, dict[str, Any]]:
    """Return the configurations of normalization layers, by the name of the layer."""
    found: dict[str, dict[str, Any]] = {}
    waiting = [document]
    while waiting:
        item = waiting.pop()
        if isinstance(item, Mapping):
            config, kind = item.get("config"), item.get("class_name")
            if isinstance(config, Mapping) and str(kind).endswith("Normalization"):
                plain = {
                    key: value
                    for key, value in config.items()
                    if isinstance(value, str | int | float) or key == "axis"
                }
                found[str(config.get("name"))] = {"class_name": str(kind), **plain}
            waiting += item.values()
        elif isinstance(item, list):
            waiting += item
    return found


def _config(archive: zipfile.ZipFile, path: str) -> Any:
    info = archive.getinfo(CONFIG)
    if info.file_size > _MAX_CONFIG:
        raise InputError(f"{path}: {CONFIG} has {info.file_size:,} bytes.")
    return json.loads(archive.read(info))


def _unpack(archive: zipfile.ZipFile, copy: IO[bytes], path: str, size: int) -> None:
    if WEIGHTS not in archive.namelist():
        raise InputError(f"{path} holds no {WEIGHTS}.")
    info = archive.getinfo(WEIGHTS)
    # Keras does not compress it; who zips a model again gains little.
    if info.file_size > _MOST_RATIO * size + _MAX_CONFIG:
        raise InputError(f"{path}: {WEIGHTS} promises {info.file_size:,} bytes of {size:,}.")
    # Reading to the end is what checks the CRC.
    with archive.open(info) as stream:
        shutil.copyfileobj(stream, copy, 2**20)
    copy.seek(0)


def is_keras(path: str) -> bool:
    """Whether the name of a file says that Keras wrote it."""
    return Path(path).name.lower().endswith((".keras", WEIGHTS_SUFFIX))


def is_model(path: str) -> bool:
    """Whether an HDF5 file is a whole model, as Keras 2 saved it: with its configuration."""
    if not Path(path).is_file():
        return False
    with suppress(InputError), reading(path, "an HDF5 file"), hdf5_file.opened(path) as file:
        return "model_config" in file.attrs
    return False  # Reading it will say why.
