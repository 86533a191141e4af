"""NPY through a pipe: read and written once, in order."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from typing import Any, BinaryIO, NoReturn, cast

import numpy as np

from normcli.arrays.access import StoredPart, WholeSource
from normcli.arrays.buffers import BlockBuffer, block_array
from normcli.arrays.npy_format import read_header, require_numbers, write_header
from normcli.arrays.runs import byte_view
from normcli.domain.array_info import ArrayInfo
from normcli.domain.grid import Block
from normcli.errors import InputError, UsageError
from normcli.publishing import output_error

_HINT = "Write it to a file, or use threads on one machine: leave out --scheduler."


class _Ordered:
    """Keeps blocks in order along axis 0, whole in all other axes."""

    def __init__(self, shape: tuple[int, ...], name: str) -> None:
        self._shape = shape
        self._name = name
        self._next = 0

    def advance(self, block: Block) -> None:
        whole = all(a == 0 for a in block.start[1:]) and block.stop[1:] == self._shape[1:]
        if not whole or (block.start and block.start[0] != self._next):
            raise RuntimeError(
                f"{self._name}: block {block.start}-{block.stop} is out of order; "
                f"the next starts at row {self._next} and is whole in all other axes"
            )
        self._next = block.stop[0] if block.stop else 1


class NpyStreamSource(WholeSource):
    """An NPY array that comes through a pipe, in C order.

    Parameters
    ----------
    file : binary file
        Such as ``sys.stdin.buffer``.
    name : str
        What messages call it.
    """

    def __init__(self, file: BinaryIO, name: str = "stdin") -> None:
        self.name = name
        self._file = file
        header = read_header(cast(BinaryIO, _Whole(file)), name)
        require_numbers(header, name)
        if header.fortran_order and len(header.shape) > 1:
            raise InputError(
                f"{name} is in Fortran order, which cannot be read in order of its first axis.",
                "Write it to a file, or send np.ascontiguousarray(x).",
            )
        self.info = ArrayInfo(header.shape, header.dtype, storage="stream")
        self._order = _Ordered(header.shape, name)
        self._done = 0

    def read(self, block: Block, buffer: BlockBuffer | None = None) -> np.ndarray:
        """Return the elements of `block`, which starts where the last one ended.

        Raises
        ------
        RuntimeError
            When blocks are asked for out of order.
        """
        self._order.advance(block)
        values = block_array(block.shape, self.info.dtype, buffer)
        view = byte_view(values)
        done = 0
        while done < len(view):
            try:
                count = self._file.readinto(view[done:])  # type: ignore[attr-defined]
            except OSError as error:
                raise InputError(f"{self.name} could not be read: {error.strerror}.") from error
            if not count:
                raise InputError(
                    f"{self.name} ended after {self._done + done} of {self.info.nbytes} bytes.",
                    "Did the command before the pipe fail?",
                )
            done += count
        self._done += done
        if not values.dtype.isnative:
            values = values.byteswap(inplace=True).view(values.dtype.newbyteorder("="))
        return values

    def identity(self) -> tuple[Mapping[str, Any], ...]:
        """Return the name and the size; nothing else is known of a pipe."""
        return (
            {
                "path": "-",
                "array": "",
                "size": self.info.nbytes,
                "mtime_ns": None,
                "fingerprint": None,
            },
        )

    def close(self) -> None:
        """Leave the pipe open: it belongs to the caller."""

    def __reduce__(self) -> NoReturn:
        raise UsageError(f"{self.name} is a pipe, which other processes cannot read.", _HINT)


class _Whole:
    """Reads as many bytes as asked for, which a pipe does only piece by piece."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, count: int) -> bytes:
        pieces = io.BytesIO()
        while pieces.tell() < count:
            piece = self._file.read(count - pieces.tell())
            if not piece:
                break
            pieces.write(piece)
        return pieces.getvalue()


class NpyStreamSink:
    """An NPY array that goes into a pipe.

    Parameters
    ----------
    file : binary file
        Such as ``sys.stdout.buffer``.
    arrays : mapping
        One array under any key.
    name : str
        What messages call it.
    """

    resumable = False
    container = "npy"

    def __init__(
        self, file: BinaryIO, arrays: Mapping[str, ArrayInfo], name: str = "stdout"
    ) -> None:
        self.name = name
        self.arrays: Mapping[str, ArrayInfo] = dict(arrays)
        (self._info,) = self.arrays.values()
        self.inside: Mapping[str, ArrayInfo] = {"": self._info}
        self._file = file
        self._header = write_header(self._info, name)
        self._order = _Ordered(self._info.shape, name)

    @property
    def draft(self) -> NoReturn:
        """Raise AssertionError: what goes into a pipe has no draft."""
        raise AssertionError(f"{self.name} is a pipe")

    def create(self) -> None:
        """Send the header."""
        self._send(memoryview(self._header))

    def resume(self, parts: Iterable[StoredPart]) -> bool:
        """Return False: what was sent cannot be continued."""
        return False

    def write(self, array: str, block: Block, values: np.ndarray) -> tuple[StoredPart, ...]:
        """Send the elements of `block`, which starts where the last one ended.

        Raises
        ------
        BrokenPipeError
            When nobody reads any more.
        """
        self.arrays[array]
        self._order.advance(block)
        data = np.ascontiguousarray(values, self._info.dtype)
        self._send(byte_view(data))
        return ()

    def sync(self, parts: Iterable[StoredPart]) -> None:
        """Do nothing: a pipe keeps nothing."""

    def annotate(self, attrs: Mapping[str, Any]) -> None:
        """Do nothing: NPY has no attributes."""

    def seal(self) -> tuple[StoredPart, ...]:
        """Flush; what was sent is already on its way."""
        try:
            self._file.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise output_error(self.name, error) from error
        return ()

    def publish(self) -> None:
        """Do nothing: what was sent has its readers."""

    def close(self) -> None:
        """Leave the pipe open: it belongs to the caller."""

    def discard(self) -> None:
        """Do nothing: what was sent cannot be called back."""

    def __reduce__(self) -> NoReturn:
        raise UsageError(f"{self.name} is a pipe, which other processes cannot write.", _HINT)

    def _send(self, view: memoryview) -> None:
        done = 0
        try:
            while done < len(view):
                done += self._file.write(view[done:]) or 0
        except BrokenPipeError:
            raise
        except OSError as error:
            raise output_error(self.name, error) from error
