"""Scale and bias to begin with: constants, narrow-normal numbers, or a file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from normcli.api.options import NormOptions
from normcli.api.preparing import fitted_spec, new_spec, provenance, resolve_layout
from normcli.arrays.opening import open_source
from normcli.bundles.formats import split_path
from normcli.bundles.parameter_file import read_term, write_affine
from normcli.bundles.statistics_file import read_statistics_header
from normcli.domain.affine import Affine
from normcli.domain.norm_spec import NormSpec
from normcli.engine.events import Observer
from normcli.errors import InputError, UsageError

INITIALIZERS = ("ones", "zeros", "narrow-normal", "none")

# MATLAB's narrow-normal, which has mean 0 for the scale too.
NARROW = 0.01


@dataclass(frozen=True, kw_only=True)
class InitOptions(NormOptions):
    """What scale and bias begin as, and which extents they have.

    Attributes
    ----------
    scale, bias : str
        ``ones``, ``zeros``, ``narrow-normal`` (mean 0, standard deviation 0.01), ``none`` for an
        absent term, or a file of numbers.
    seed : int, optional
        Of the random numbers; narrow-normal needs one, and it is recorded.
    shape : str, optional
        Extents of the scale axes (``64`` or ``20,30``), in place of an array or a sidecar.
    """

    scale: str = "ones"
    bias: str = "zeros"
    seed: int | None = None
    shape: str | None = None


def initial_affine(
    like: str | None, options: InitOptions, observer: Observer
) -> tuple[Affine, dict[str, Any]]:
    """Return scale and bias to begin with, and how they were made.

    Parameters
    ----------
    like : str, optional
        An array, or statistics, whose scale axes they shall fit.
    options : InitOptions
        Initializers, and the axes.
    observer : Observer
        Hears which layout was taken.

    Raises
    ------
    UsageError
        When the shape is given twice or not at all, or narrow-normal has no seed.
    InputError
        When a scale axis has no elements, or a file does not fit.
    """
    shape, axes, groups = _shape(like, options, observer)
    random = "narrow-normal" in (options.scale, options.bias)
    if random and options.seed is None:
        raise UsageError("narrow-normal needs --seed.", "For example --seed 0; it is recorded.")
    if options.seed is not None and not random:
        raise UsageError("--seed goes with narrow-normal only.", "Leave it out.")
    parts = {
        name: _part(name, getattr(options, name), shape, groups, stream, options.seed)
        for stream, name in enumerate(("scale", "bias"))
    }
    if parts["scale"] is None and parts["bias"] is None:
        raise UsageError("Scale and bias are both none.", "Leave --affine out of the apply then.")
    made = {
        "initializer": {"scale": options.scale, "bias": options.bias},
        "shape": list(shape),
        **({"seed": options.seed} if options.seed is not None else {}),
        "provenance": provenance(),
    }
    return Affine(parts["scale"], parts["bias"]).fitted(shape, axes), made


def write_initial(path: str, affine: Affine, made: dict[str, Any], overwrite: bool) -> None:
    """Write them; an .npy file, which takes no attributes, holds the only one of the two."""
    plain = Path(path).suffix.lower() == ".npy"
    if plain and "seed" in made:
        raise UsageError("An .npy file cannot record the seed.", "Use .npz, .json or .safetensors.")
    write_affine(path, affine, overwrite, None if plain else made)


def _part(
    name: str,
    wanted: str,
    shape: tuple[int, ...],
    groups: int | None,
    stream: int,
    seed: int | None,
) -> np.ndarray | None:
    if wanted == "none":
        return None
    if wanted in ("ones", "zeros"):
        return np.full(shape, 1.0 if wanted == "ones" else 0.0)
    if wanted == "narrow-normal":
        # A stream of its own for each term: leaving one out does not change the other.
        return np.random.default_rng([stream, seed or 0]).normal(0.0, NARROW, shape)
    if not Path(split_path(wanted)[0]).exists():
        raise InputError(
            f"--{name} {wanted} is neither a file nor one of {', '.join(INITIALIZERS)}."
        )
    term = read_term(wanted, name).of_channels(groups, shape[0] if groups else 0)
    return term.scale if name == "scale" else term.bias


def _shape(
    like: str | None, options: InitOptions, observer: Observer
) -> tuple[tuple[int, ...], str, int | None]:
    """Return the extents of the scale axes, the axes in words, and groups of channels."""
    if (like is None) == (options.shape is None):
        raise UsageError(
            "init needs one thing that tells the shape: an array, statistics, or --shape.",
            "For example: normcli init --shape 64 -o affine.npz",
        )
    if like is None:
        assert options.shape is not None
        for name in ("mode", "layout", "aggregate", "scale_axes", "groups", "group_axis"):
            if getattr(options, name) is not None:
                raise UsageError(
                    f"--{name.replace('_', '-')} says nothing beside --shape.", "Leave it out."
                )
        return _parsed(options.shape), f"of --shape {options.shape}", None
    spec, extents = _described(like, options, observer)
    shape = tuple(extents[axis] for axis in spec.scale_axes)
    for axis in spec.scale_axes:
        if extents[axis] == 0:
            raise InputError(
                f"{like} does not tell the extent of the scale axis {axis} "
                f"({spec.layout.axis_label(axis)}) of shape {extents}.",
                "Give --shape.",
            )
    axes = ", ".join(spec.layout.axis_label(axis) for axis in spec.scale_axes) or "none"
    return shape, axes, spec.groups if spec.scale_axes == (spec.divided_axis,) else None


def _described(
    like: str, options: InitOptions, observer: Observer
) -> tuple[NormSpec, tuple[int, ...]]:
    statistics = None
    suffix = Path(like).suffix.lower()
    if suffix in (".json", ".safetensors"):
        statistics = read_statistics_header(like)
        if statistics is None:
            raise InputError(f"{like} holds no normcli statistics.", "Give --shape.")
    elif suffix in (".npz", ".h5", ".hdf5", ".zarr") and Path(like).exists():
        try:
            statistics = read_statistics_header(like)
        except InputError:
            statistics = None  # A container of arrays that no sidecar would hold.
    if statistics is not None:
        return fitted_spec(options, statistics.spec), statistics.source.shape
    source = open_source(like)
    try:
        layout = resolve_layout(options, source, observer)
        return new_spec(options, layout, source.info), source.info.shape
    finally:
        source.close()


def _parsed(text: str) -> tuple[int, ...]:
    words = [word.strip() for word in text.split(",")] if text.strip() != "none" else []
    if not all(re.fullmatch(r"[0-9]{1,18}", word) and int(word) > 0 for word in words):
        raise UsageError(f"--shape {text!r} is no shape.", "Like 64, or 20,30; none is a scalar.")
    return tuple(int(word) for word in words)
