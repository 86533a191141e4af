"""What one fit will do, settled before an element is read."""

from __future__ import annotations

from dataclasses import replace

from normcli.api.continuing import digest
from normcli.api.moving import moving_rule
from normcli.api.options import FitOptions, RunOptions
from normcli.api.parts import make_part
from normcli.api.preparing import (
    check_expectations,
    describe,
    input_state,
    new_spec,
    provenance,
    require_sketches,
)
from normcli.api.sidecars import check_sidecar
from normcli.api.updating import require_same, warn_of_repeats
from normcli.arrays.access import ArraySource
from normcli.bundles.statistics_attributes import statistics_attrs
from normcli.bundles.statistics_bundle import statistics_document
from normcli.domain.geometry import bind
from normcli.domain.layout import Layout
from normcli.domain.moving_average import MovingRule
from normcli.domain.quantile_sketches import sketch_bytes
from normcli.domain.statistics import (
    Statistics,
    keeps_exact,
)
from normcli.engine.events import Observer
from normcli.errors import DataPolicyError, UsageError
from normcli.planning.memory import method_cost
from normcli.planning.parts import part_boxes
from normcli.planning.plan import Plan
from normcli.planning.planner import GROUPS_IN_MEMORY, Resources, plan_fit, plan_part


class FitSetup:
    """One fit, settled: what is measured, over which groups, and what becomes of it.

    Everything that can be refused before an element is read is refused here.

    Parameters
    ----------
    source : ArraySource
        The input.
    layout : Layout
        The meaning of its axes.
    output : str or None
        Sidecar to write, or None.
    options : FitOptions
        What to compute.
    run : RunOptions
        Whether an earlier sidecar may be replaced.
    observer : Observer
        Who is told.
    earlier : Statistics or None
        What is continued; `options` have its settings where no others were given.

    Attributes
    ----------
    spec, geometry : NormSpec, Geometry
        Axes and formula, bound to the input.
    measured : Geometry
        The groups that are measured: those of `geometry`, or those of batches that are folded.
    rule : MovingRule or None
        How moving statistics are folded.
    part : Part or None
        The part of the input that is read.
    exact : bool
        Whether exact sums are kept.
    by_block : bool
        Whether statistics outgrow memory.
    state : tuple
        State of the input before it is read.
    """

    def __init__(
        self,
        source: ArraySource,
        layout: Layout,
        output: str | None,
        options: FitOptions,
        run: RunOptions,
        observer: Observer,
        earlier: Statistics | None,
    ) -> None:
        self.options = options
        check_expectations(options, source, layout)
        self.source, self.layout, self.output = source, layout, output
        self.overwrite, self.observer = run.overwrite, observer
        self.state = input_state(source)
        self.described = describe(source)
        self.spec = new_spec(options, layout, source.info)
        self.earlier = earlier
        self.rule: MovingRule | None = moving_rule(options, earlier)
        if self.rule is not None and self.rule.instances:
            self.spec = self.spec.of_dataset()
        self.geometry = bind(self.spec, source.info.shape, source.name)
        if earlier is not None:
            path = str(options.update)
            require_same(earlier, self.described, self.spec, self.geometry, path)
        warn_of_repeats(None if earlier is None else earlier.source, self.described, observer)
        if self.rule is not None and self.spec.divides_by:
            raise UsageError(
                f"Moving statistics are a mean and a variance; --method {self.spec.method} "
                f"divides by {self.spec.divides_by}.",
                "Leave --momentum and --batch-size out.",
            )
        self.measured = self.geometry
        if self.rule is not None:
            by_batches = self.spec.by_batches(self.rule.segment)
            self.measured = bind(by_batches, source.info.shape)
        if self.spec.ddof and self.geometry.group_size == 1:
            raise DataPolicyError(
                f"Each group of {source.name} has one element, whose variance with divisor "
                "n - 1 is undefined.",
                "Use --ddof 0, or aggregate more axes.",
            )
        groups = self.geometry.group_count
        self.by_block = not self.spec.per_dataset and groups > GROUPS_IN_MEMORY
        self.part = make_part(options, source, self.geometry, self.by_block)
        self.exact = self.part is not None or keeps_exact(self.spec, groups)
        if output is not None:
            needed = None if self.part is None else source.info.dtype
            method, sketch = self.spec.method, 0
            if method == "robust":
                sketch = sketch_bytes(groups, self.geometry.group_size)
            check_sidecar(output, run.overwrite, groups, self.by_block, needed, method, sketch)
        elif self.by_block and not run.dry_run:
            raise UsageError(
                f"The statistics of {groups} groups are written by block, so they need an output.",
                "Give -o STATS.zarr.",
            )

    def plan(self, resources: Resources, kernel: str) -> Plan:
        """Return what will be read, in which blocks."""
        info = self.source.info
        held = 0 if self.by_block else self.geometry.group_count
        method = method_cost(self.spec, self.geometry, self.exact, info.dtype)
        moving_axis = self.layout.batch_axis if self.rule is not None else None
        sums = held if self.exact else 0
        if self.part is not None:
            boxes = part_boxes(info, self.part)
            plan = plan_part(info, self.geometry, resources, kernel, held, boxes, method)
        else:
            plan = plan_fit(info, self.measured, resources, kernel, held, moving_axis, sums, method)
        if plan.passes:
            require_sketches(self.spec, self.geometry, plan.passes[0], self.exact)
        return plan

    def settings(self) -> dict[str, object]:
        """Return everything that decides the bits of the outcome."""
        earlier = None
        if self.earlier is not None:
            earlier = digest(statistics_document(replace(self.earlier, provenance={})))
        attrs = statistics_attrs(self.spec, self.described)
        return {
            "command": "fit",
            "version": provenance()["version"],
            "input": list(self.described.inputs),
            "normalization": {k: v for k, v in attrs.items() if k not in ("source", "created")},
            "momentum": [
                self.options.momentum,
                self.options.batch_size,
                self.options.moving_variance,
                self.options.moving_start,
                self.options.rate_factor,
            ],
            "update": earlier,
            "missing": self.options.missing,
            "part": None if self.part is None else str(self.part),
            "exact": self.exact,
            "output": str(self.output),
        }
