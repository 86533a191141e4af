"""Draw inputs, keep cases and write them: what every family needs."""

import io
import json
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from formula import DEFAULTS, HERE, Arrays


class Store:
    """Collects cases and their arrays, and writes them."""

    def __init__(self) -> None:
        self.files: dict[str, Arrays] = {}
        self.cases: list[dict[str, Any]] = []

    def add(self, file: str, case: str, arrays: dict[str, Any], **fields: Any) -> None:
        """Keep one case; array names become ``<case>/<name>``, None arrays are left out."""
        named = {name: np.asarray(value) for name, value in arrays.items() if value is not None}
        dtype = named["input"].dtype
        if dtype == np.float64:
            named = {k: v for k, v in named.items() if not k.endswith("_native")}
        error = None
        if "output_native" in named:
            error = float(np.nanmax(np.abs(named["output_native"] - named["output"])))
        found = {"dtype": dtype.name, "native_max_error": error, "arrays": list(named)}
        row = DEFAULTS | {"file": f"{file}.npz", "case": case} | fields | found
        if unknown := row.keys() - DEFAULTS.keys():
            raise KeyError(f"fields without a default: {unknown}")
        kept = self.files.setdefault(row["file"], {})
        if f"{case}/input" in kept:
            raise KeyError(f"case {case} is there already")
        kept.update({f"{case}/{name}": value for name, value in named.items()})
        self.cases.append(row)

    def write(self, versions: dict[str, str]) -> None:
        """Write one archive a family and the list of cases."""
        for file, arrays in self.files.items():
            save_npz(HERE / file, arrays)
        shorter = [
            {field: value for field, value in row.items() if value != DEFAULTS[field]}
            for row in self.cases
        ]
        rows = ",\n".join(json.dumps(row) for row in shorter)
        head = f'"versions": {json.dumps(versions)},\n"defaults": {json.dumps(DEFAULTS)}'
        (HERE / "cases.json").write_text(f'{{{head},\n"cases": [\n{rows}\n]}}\n')


def save_npz(path: Path, arrays: Arrays) -> None:
    """As ``np.savez_compressed``, but without time stamps: equal arrays give equal bytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, array in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            member.compress_type = zipfile.ZIP_DEFLATED
            stream = io.BytesIO()
            np.lib.format.write_array(stream, array, allow_pickle=False)
            archive.writestr(member, stream.getvalue())


def rng_of(name: str) -> np.random.Generator:
    """Give a generator that depends on nothing but the name."""
    return np.random.default_rng(zlib.crc32(name.encode()))


def draw(name: str, shape: Iterable[int], dtype: str = "float32", axis: int = 1) -> np.ndarray:
    """Draw an input whose mean and spread differ along ``axis``, so that no mix-up goes unseen."""
    shape = tuple(shape)
    rng = rng_of(name)
    along = [1] * len(shape)
    along[axis] = shape[axis]
    centre = rng.uniform(-6, 6, along)
    spread = rng.uniform(0.3, 3, along)
    return (centre + spread * rng.standard_normal(shape)).astype(dtype)


def draw_affine(name: str, shape: Iterable[int], dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Draw scale (also negative) and bias, exact in float16 and so in every wider dtype."""
    rng = rng_of(name + " affine")
    shape = tuple(shape)
    scale = rng.uniform(0.5, 2, shape) * rng.choice([-1, 1], shape, p=[0.25, 0.75])
    bias = rng.uniform(-2, 2, shape)
    return scale.astype("float16").astype(dtype), bias.astype("float16").astype(dtype)
