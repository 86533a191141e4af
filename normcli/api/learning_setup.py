"""What one learning run will do, settled before anything is read or written."""

from __future__ import annotations

from dataclasses import fields
from hashlib import sha256

import numpy as np

from normcli.api.drift import refuse_changed
from normcli.api.learning_options import LearnOptions
from normcli.api.learning_terms import LearnRule, objective, recorded, starts
from normcli.api.options import ApplyOptions, NormOptions, RunOptions
from normcli.api.parameters import (
    Known,
    affine_for,
    known_statistics,
    require_fit,
    supplied_statistics,
)
from normcli.api.preparing import (
    batch_sizes,
    check_expectations,
    describe,
    fitted_spec,
    input_state,
    new_spec,
    provenance,
    require_unchanged,
    resolve_layout,
)
from normcli.arrays.access import ArraySource
from normcli.bundles.statistics_attributes import statistics_attrs
from normcli.domain.affine import Affine
from normcli.domain.geometry import Geometry, bind
from normcli.engine.events import Observer
from normcli.errors import DataPolicyError, InputError, UsageError


class LearnSetup:
    """One learning run, settled: its statistics, its cells, and where it begins.

    Parameters
    ----------
    source, target : ArraySource
        Input and target.
    options : LearnOptions
        What is learned.
    rule : LearnRule
        The same, checked.
    name : str
        The input as the user wrote it.
    run : RunOptions
        Where an input that was written to since its statistics were taken is measured again.
    observer : Observer
        Hears which layout was taken.

    Attributes
    ----------
    spec, geometry : NormSpec, Geometry
        Axes and formula, bound to the input.
    cells : Geometry
        Axes of the sums: the scale axes, and the batch axis by batches.
    batch_axis : int or None
        The axis of `cells` that counts batches, as an axis of the array; None for one batch.
    known : Known or None
        Statistics that need not be measured.
    objective : Objective
        What is minimized, from its start.
    """

    def __init__(
        self,
        source: ArraySource,
        target: ArraySource,
        options: LearnOptions,
        rule: LearnRule,
        name: str,
        run: RunOptions,
        observer: Observer,
    ) -> None:
        self.source, self.target = source, target
        self._states = [(array, input_state(array)) for array in (source, target)]
        self.options, self.rule, self.observer = options, rule, observer
        apply = _as_apply(options)
        known = known_statistics(apply)
        if known is not None:
            self.spec = fitted_spec(options, known.statistics.spec)
            layout = self.spec.layout
        else:
            layout = resolve_layout(options, source, observer)
            self.spec = new_spec(options, layout, source.info)
        check_expectations(options, source, layout)
        _require_same_shape(source, target, observer)
        self.geometry = bind(self.spec, source.info.shape, source.name)
        self.described, self.target_described = describe(source), describe(target)
        if known is None:
            supplied = supplied_statistics(apply, self.spec, self.geometry, self.described)
            known = Known(supplied) if supplied is not None else None
        if known is not None:
            require_fit(known, self.geometry, source.name)
            refuse_changed(
                known.statistics, self.described, name, options, run, observer, options.force
            )
        elif options.estimate is not None:
            raise UsageError("--estimate chooses among the statistics of --stats; give --stats.")
        elif self.spec.method in ("robust", "lp"):
            raise UsageError(
                f"learn does not measure what --method {self.spec.method} divides by.",
                f"Fit first: normcli fit INPUT --method {self.spec.method} -o STATS, then --stats.",
            )
        elif self.spec.ddof and self.geometry.group_size == 1:
            raise DataPolicyError(
                f"Each group of {source.name} has one element, whose variance with divisor "
                "n - 1 is undefined.",
                "Use --ddof 0, or aggregate more axes.",
            )
        self.known: Known | None = known
        recorded_affine = known.statistics.affine if known is not None else Affine()
        supplied_affine = affine_for(apply, self.geometry, self.spec, recorded_affine)
        begin = starts(options, supplied_affine, self.geometry.scale_shape)
        self.objective = objective(rule, begin)
        self.batch_axis, self.cells = self._cells()

    def require_unchanged(self) -> None:
        """Refuse what was learned from arrays that changed meanwhile."""
        for array, state in self._states:
            require_unchanged(array, state)

    @property
    def observations(self) -> int:
        """Extent of the batch axis; 1 without one."""
        batch = self.spec.layout.batch_axis
        return 1 if batch is None else self.source.info.shape[batch]

    @property
    def batches(self) -> tuple[int, ...]:
        """Observations of each batch."""
        if self.batch_axis is None:
            return (self.observations,)
        size = self.cells.segments[self.batch_axis]
        return tuple(min(size, self.observations - i) for i in range(0, self.observations, size))

    def _cells(self) -> tuple[int | None, Geometry]:
        shape, axes = self.source.info.shape, self.geometry.scale_axes
        sizes = batch_sizes(self.options.batch_size)
        batch = self.spec.layout.batch_axis
        if sizes is not None:
            if len(sizes) > 1:
                raise UsageError(
                    f"--batch-size {','.join(map(str, sizes))}: steps take one size.",
                    "The last batch may be short.",
                )
            if batch is None:
                raise UsageError(
                    f"--batch-size needs a layout with a batch axis; {self.spec.layout} has no N.",
                    "Without it, all data are one batch.",
                )
            if batch in axes:
                raise UsageError(
                    "--batch-size does not go with scale axes that include the batch axis.",
                    "Each of these cells would be in one batch only; leave --batch-size out.",
                )
        batched = sizes is not None and sizes[0] < self.observations
        own = tuple(sorted((*axes, batch))) if batched and batch is not None else axes
        segments = [1 if axis in axes else extent for axis, extent in enumerate(shape)]
        if batched and batch is not None and sizes is not None:
            segments[batch] = sizes[0]
        return (batch if batched else None), Geometry(shape, own, (), tuple(segments))

    def record(self) -> dict[str, object]:
        """Return the settings of learning, as JSON can hold them."""
        return recorded(self.options, self.rule)

    def learned_affine(self, scale: np.ndarray, bias: np.ndarray) -> Affine:
        """Return what is written: an absent term is left out."""
        rule = self.rule
        return Affine(scale if rule.scale.present else None, bias if rule.bias.present else None)

    def settings(self, output: str) -> dict[str, object]:
        """Return everything that decides the bits of the outcome."""
        attrs = statistics_attrs(self.spec, self.described)
        start = (self.objective.scale.start, self.objective.bias.start)
        return {
            "command": "learn",
            "version": provenance()["version"],
            "input": list(self.described.inputs),
            "target": list(self.target_described.inputs),
            "normalization": {k: v for k, v in attrs.items() if k not in ("source", "created")},
            "statistics": None if self.known is None else self.known.identity(),
            "estimate": self.options.estimate,
            "missing": self.options.missing,
            "learning": self.record(),
            "start": [sha256(values.tobytes()).hexdigest() for values in start],
            "output": output,
        }


def _as_apply(options: LearnOptions) -> ApplyOptions:
    """Return the statistics and parameters that are given, as an apply takes them."""
    names = {f.name for f in fields(NormOptions)}
    names |= {"stats", "mean", "variance", "estimate", "affine", "scale", "bias"}
    return ApplyOptions(**{name: getattr(options, name) for name in names})


def _require_same_shape(source: ArraySource, target: ArraySource, observer: Observer) -> None:
    if source.info.shape != target.info.shape:
        raise InputError(
            f"The input {source.name} has shape {source.info.shape}, but the target "
            f"{target.name} has {target.info.shape}.",
            "Each element of the input needs one of the target.",
        )
    ours, theirs = source.info.dims, target.info.dims
    if ours and theirs and all(ours) and all(theirs) and ours != theirs:
        observer.warn(
            f"The dimensions of {source.name} are {', '.join(ours)}, but those of {target.name} "
            f"are {', '.join(theirs)}; they are paired by position."
        )
