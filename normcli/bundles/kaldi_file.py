"""Kaldi's CMVN statistics as text: sums and sums of squares of each feature, with a count.

::

    [
      sum_0 … sum_{D-1} count
      square_0 … square_{D-1} 0 ]

An archive puts a key before the bracket. ``apply-cmvn --norm-vars=true`` computes
``(x - s/n) / sqrt(max(q/n - (s/n)^2, 1e-20))``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from normcli.bundles.formats import publish_file
from normcli.bundles.guards import reading, require_file
from normcli.bundles.replacing import refuse_foreign
from normcli.domain.channel_norm import MOST_ROUNDING
from normcli.errors import DataPolicyError, InputError

SUFFIXES = (".txt", ".ark")
_FLOOR = 1e-20
_MAX_BYTES = 256 * 2**20


def read_cmvn(path: str) -> tuple[np.ndarray, np.ndarray, float]:
    """Return mean, variance and count of a text file of CMVN statistics.

    Raises
    ------
    InputError
        When the file is malformed, binary, or holds several matrices.
    """
    size = require_file(path)
    if size > _MAX_BYTES:
        raise InputError(f"{path} has {size:,} bytes, more than CMVN statistics.")
    with reading(path, "a text of CMVN statistics"):
        data = Path(path).read_bytes()
        if b"\0B" in data[:200]:
            raise InputError(f"{path} is binary.", "Make text: copy-matrix --binary=false IN OUT")
        text = data.decode("utf-8")
        if text.count("[") != 1 or text.count("]") != 1:
            raise InputError(f"{path} holds {text.count('[')} matrices; give one.")
        inner = text[text.index("[") + 1 : text.index("]")]
        rows = [[float(word) for word in line.split()] for line in inner.splitlines()]
        rows = [row for row in rows if row]
        if len(rows) != 2 or len(rows[0]) != len(rows[1]) or len(rows[0]) < 2:
            raise InputError(f"{path} has no two rows of the same length, as CMVN statistics do.")
        table = np.array(rows)
        count = float(table[0, -1])
        if not np.all(np.isfinite(table)) or count <= 0:
            raise InputError(f"{path} has a count of {count:g}, or numbers that are not finite.")
        mean = table[0, :-1] / count
        return mean, np.maximum(table[1, :-1] / count - mean * mean, _FLOOR), count


def write_cmvn(
    path: str, shift: np.ndarray, divisor: np.ndarray, count: int, overwrite: bool
) -> None:
    """Write statistics by which Kaldi subtracts `shift` and divides by `divisor`.

    Raises
    ------
    DataPolicyError
        When a divisor is negative, or sums of squares cannot hold it beside the shift.
    """
    if np.any(divisor < 0):
        raise DataPolicyError("A scale is negative, which Kaldi's CMVN cannot hold.")
    sums = shift * count
    squares = (divisor * divisor + shift * shift) * count
    # What Kaldi will make of it: a large mean leaves few digits of the variance.
    mean = sums / count
    back = np.sqrt(np.maximum(squares / count - mean * mean, _FLOOR))
    worst = float(np.max(np.abs(back / divisor - 1)))
    if worst > MOST_ROUNDING:
        raise DataPolicyError(
            f"Sums of squares would change the divisor by {worst:.2g} of its size: the mean is "
            "too large beside the deviation.",
            "Subtract an offset from the data before fitting.",
        )
    rows = ([*sums, float(count)], [*squares, 0.0])
    lines = [" ".join(f"{float(value):.17g}" for value in row) for row in rows]
    refuse_foreign(path, overwrite, "CMVN statistics", _is_cmvn)
    publish_file(path, f" [\n  {lines[0]}\n  {lines[1]} ]\n".encode("ascii"), overwrite)


def _is_cmvn(path: str) -> bool:
    read_cmvn(path)
    # That passes over what stands around the brackets; ours has nothing there.
    text = Path(path).read_text("ascii").strip()
    return text.startswith("[") and text.endswith("]")
