"""What each axis of an array means: one letter an axis, and names where the file has them."""

from __future__ import annotations

from dataclasses import dataclass

from normcli.errors import UsageError

SPATIAL = frozenset("SDHWL")
LETTERS = frozenset("NBCTU") | SPATIAL

# Names that files use for their dimensions, and the letter each one means.
_NAMES = {
    "N": "n b batch sample samples observation observations obs record",
    "C": "c channel channels band bands feature features variable measurement",
    "T": "t time times frame frames step week",
    "S": "s x y z h w d l lat lon latitude longitude lev level plev height width depth "
    "row rows column columns",
}
_LETTER_OF_NAME = {name: letter for letter, names in _NAMES.items() for name in names.split()}


@dataclass(frozen=True)
class Layout:
    """The meaning of each axis.

    Attributes
    ----------
    letters : str
        One letter an axis: N (or MATLAB's B) batch, C channel, S D H W L spatial, T time,
        U unspecified. At most one axis is N and at most one is C.
    names : tuple of str or None
        Dimension names, where they are known.
    """

    letters: str
    names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        unknown = [letter for letter in self.letters if letter not in LETTERS]
        if unknown:
            raise UsageError(
                f"Layout {self.letters!r} has the unknown letter {unknown[0]!r}.",
                "Letters: N (or B) batch, C channel, S D H W L spatial, T time, U unspecified.",
            )
        object.__setattr__(self, "letters", self.letters.replace("B", "N"))
        for letter in sorted(set(self.letters) - {"S", "U", "T"}):
            if self.letters.count(letter) > 1:
                raise UsageError(
                    f"Layout {self.letters!r} has {letter} more than once.",
                    "Only S, T and U may repeat; N and B both mean the batch axis.",
                )

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.letters)

    @property
    def batch_axis(self) -> int | None:
        """Axis of the observations, or None."""
        return self.letters.index("N") if "N" in self.letters else None

    @property
    def channel_axis(self) -> int | None:
        """Axis of the channels, or None."""
        return self.letters.index("C") if "C" in self.letters else None

    def of_example(self) -> Layout:
        """Return the layout of one observation, without the batch axis."""
        axis = self.batch_axis
        if axis is None:
            return self
        names = None if self.names is None else (*self.names[:axis], *self.names[axis + 1 :])
        return Layout(self.letters[:axis] + self.letters[axis + 1 :], names)

    def axis_label(self, axis: int) -> str:
        """Return the name of an axis, or its letter, for messages and tables."""
        if self.names and self.names[axis]:
            return self.names[axis]
        return self.letters[axis]

    def __str__(self) -> str:
        return self.letters


def parse_layout(text: str, ndim: int, dims: tuple[str, ...] | None = None) -> Layout:
    """Return the layout that a user wrote for an array with `ndim` axes.

    Parameters
    ----------
    text : str
        Letters (``NCHW``), or one dimension name an axis, separated by commas (``time,lat,lon``).
    ndim : int
        Number of axes of the array.
    dims : tuple of str, optional
        Dimension names of the array itself, kept where `text` is letters.

    Raises
    ------
    UsageError
        When letters are unknown or their number is not `ndim`.
    """
    if "," in text or (text.lower() in _LETTER_OF_NAME and len(text) > 1):
        names = tuple(part.strip() for part in text.split(","))
        layout = Layout("".join(letter_of(name) for name in names), names)
    else:
        keep = dims if dims is not None and any(dims) and len(dims) == len(text) else None
        layout = Layout(text.upper(), keep)
    if layout.ndim != ndim:
        raise UsageError(
            f"Layout {text!r} names {layout.ndim} axes, but the array has {ndim}.",
            "Give one letter an axis, such as NCHW for four axes.",
        )
    return layout


def infer_layout(ndim: int, dims: tuple[str, ...] | None) -> tuple[Layout, str]:
    """Return a layout for an array whose user gave none, and the reason for it.

    Dimension names decide where every one of them is known; otherwise the rank does:
    N, NC, NCS, NCSS and so on.
    """
    if dims and len(dims) == ndim and all(name.lower() in _LETTER_OF_NAME for name in dims):
        letters = "".join(letter_of(name) for name in dims)
        if letters.count("N") <= 1 and letters.count("C") <= 1:
            return Layout(letters, dims), "from the dimension names " + ", ".join(dims)
    letters = "NC"[:ndim] + "S" * (ndim - 2)
    names = dims if dims and any(dims) and len(dims) == ndim else None
    return Layout(letters, names), f"by rank, for {ndim} {'axis' if ndim == 1 else 'axes'}"


def letter_of(name: str) -> str:
    """Return the letter that a dimension name means; U where nothing is known of it."""
    if len(name) == 1 and name in LETTERS:
        return name
    return _LETTER_OF_NAME.get(name.lower(), "U")
