"""PyTorch checkpoints (.pt, .pth): tensors by name, read without running anything; state dicts.

A checkpoint is a zip archive with one pickle. ``torch.load(weights_only=True)`` reads that pickle
with a machine that only knows tensors and containers; anything else in it is refused, not run.
"""

from __future__ import annotations

import io
import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from normcli.bundles.bundle import Bundle
from normcli.bundles.guards import Allowance, reading, require_file
from normcli.bundles.selection import Choose, everything
from normcli.errors import InputError, SafetyError, missing_package

# Older versions could be made to run code by weights_only=True as well (CVE-2025-32434, and
# CVE-2026-24747 up to 2.9).
_LEAST = (2, 10)
_DEEPEST = 32
_RESAVE = "Save numbers only: torch.save(model.state_dict(), FILE), or safetensors."
_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")


def read(path: str, choose: Choose = everything) -> Bundle:
    """Read the chosen tensors of a checkpoint; nested dictionaries have names such as ``a.b``.

    bfloat16 and 8-bit floats come as float32, which holds all of their values.

    Raises
    ------
    InputError
        When the file is damaged or no checkpoint, or torch is missing or too old.
    SafetyError
        When loading it would run code.
    """
    size = require_file(path)
    _require_archive(path)
    torch = _torch(path)
    with reading(path, "a PyTorch checkpoint"):
        try:
            loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except pickle.UnpicklingError as error:
            raise _refusal(path, error) from error
        tensors = dict(_tensors(loaded, "", 0, torch))
        if not tensors:
            raise InputError(f"{path} holds no tensors.")
        allowance = Allowance(path, size)
        return Bundle(
            {name: _array(tensors[name], name, path, allowance) for name in choose(tuple(tensors))}
        )


def state_dict(path: str, arrays: Mapping[str, np.ndarray]) -> bytes:
    """Return a checkpoint of these tensors, as ``torch.save(layer.state_dict(), path)`` writes it.

    Raises
    ------
    InputError
        When torch is missing or too old.
    """
    torch = _torch(path)
    held = io.BytesIO()
    torch.save({name: torch.from_numpy(values) for name, values in arrays.items()}, held)
    return held.getvalue()


def _require_archive(path: str) -> None:
    with Path(path).open("rb") as file:
        start = file.read(2)
    if start[:1] == b"\x80":
        raise SafetyError(
            f"{path} is a bare pickle, which can run code when it is loaded; PyTorch wrote such "
            "files before version 1.6.",
            _RESAVE,
        )
    with reading(path, "a PyTorch checkpoint"), zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        names = [member.filename.partition("/")[2] for member in members]
        if "constants.pkl" in names or any(name.startswith("code/") for name in names):
            raise SafetyError(f"{path} is a TorchScript program, which is not run.", _RESAVE)
        if names.count("data.pkl") != 1:
            raise InputError(f"{path} is no PyTorch checkpoint: it has no data.pkl.")
        packed = [m.filename for m in members if m.compress_type != zipfile.ZIP_STORED]
        if packed:
            raise InputError(f"{path}: {packed[0]!r} is compressed, as PyTorch never does.")
        # torch itself does not compare checksums, and would load damaged numbers.
        damaged = archive.testzip()
        if damaged is not None:
            raise InputError(f"{path} is damaged: the checksum of {damaged!r} does not fit.")


def _torch(path: str) -> Any:
    try:
        import torch
    except ImportError as error:
        raise missing_package(path, "torch", "torch", "2.10") from error
    version = tuple(int(part) for part in re.findall(r"\d+", torch.__version__)[:2])
    if version < _LEAST:
        raise missing_package(path, "torch", "torch", "2.10")
    return torch


def _refusal(path: str, error: Exception) -> SafetyError:
    named = _GLOBAL.search(str(error))
    what = f"it names {named[1]}" if named else "it holds more than tensors"
    return SafetyError(
        f"{path} would run code when it is loaded ({what}); nothing was run.", _RESAVE
    )


def _tensors(value: Any, name: str, depth: int, torch: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, torch.Tensor):
        yield name, value
        return
    if depth == _DEEPEST:
        # Pickles can hold themselves.
        raise InputError(f"the checkpoint is nested more than {_DEEPEST} deep at {name[:60]!r}")
    items: Any = ()
    if isinstance(value, Mapping):
        items = value.items()
    elif isinstance(value, list | tuple):
        items = enumerate(value)
    for key, item in items:
        yield from _tensors(item, f"{name}.{key}" if name else str(key), depth + 1, torch)


def _array(tensor: Any, name: str, path: str, allowance: Allowance) -> np.ndarray:
    where = f"{path}: {name!r}"
    if tensor.layout != _torch(path).strided or tensor.is_quantized or tensor.is_meta:
        raise InputError(f"{where} is a sparse, quantized or empty tensor, which is not read.")
    allowance.take(name, tensor.numel() * tensor.element_size())
    plain = tensor.detach().resolve_neg()
    if plain.is_floating_point() and str(plain.dtype) not in (
        "torch.float16",
        "torch.float32",
        "torch.float64",
    ):
        plain = plain.to(_torch(path).float32)
    return np.array(plain.numpy(), order="C", copy=True)
