"""What one apply will do, settled before anything is read or written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from normcli.api.continuing import digest
from normcli.api.drift import refuse_changed
from normcli.api.lost_results import refuse_damped
from normcli.api.options import ApplyOptions, RunOptions
from normcli.api.parameters import (
    Known,
    affine_for,
    known_statistics,
    require_fit,
    supplied_statistics,
    warn_of_epsilon,
)
from normcli.api.preparing import (
    batch_sizes,
    check_expectations,
    describe,
    fitted_spec,
    input_state,
    new_spec,
    provenance,
    require_sketches,
    resolve_layout,
)
from normcli.api.sidecars import check_sidecar, default_sidecar, refuse_shared
from normcli.arrays.access import ArraySink, ArraySource
from normcli.arrays.decoding import is_slow_to_decode
from normcli.arrays.manifest import manifest_path
from normcli.arrays.opening import make_sink, output_info
from normcli.arrays.paths import parse_path
from normcli.arrays.replacing import refuse_other_than_manifest
from normcli.bundles.statistics_attributes import statistics_attrs
from normcli.domain.affine import Affine
from normcli.domain.dtypes import is_float, output_dtype, parse_dtype
from normcli.domain.geometry import bind, bind_example, is_example
from normcli.engine.events import Observer
from normcli.errors import UsageError
from normcli.planning.memory import method_cost
from normcli.planning.plan import Plan
from normcli.planning.planner import GROUPS_IN_MEMORY, Resources, plan_apply


class ApplySetup:
    """One apply, settled: its statistics, its parameters and its outputs.

    Everything that can be refused before an element is read is refused here.

    Parameters
    ----------
    source : ArraySource
        The input.
    input_name, output : str
        Names as the user wrote them.
    options : ApplyOptions
        What to normalize with.
    run : RunOptions
        Whether outputs may be replaced.
    observer : Observer
        Hears which layout was taken.

    Attributes
    ----------
    spec, geometry : NormSpec, Geometry
        Axes and formula, bound to the input.
    known : Known or None
        Statistics that need not be measured.
    affine : Affine
        Scale and bias in the shape of the scale axes.
    applied : Affine
        The same, with what the method adds before them.
    dtype : numpy.dtype
        Of the output.
    sink : ArraySink
        The output, not yet laid out.
    sidecar : str or None
        Name of the statistics that are written beside it.
    by_block : bool
        Whether statistics outgrow memory.
    state : tuple
        State of the input before it is read.
    """

    def __init__(
        self,
        source: ArraySource,
        input_name: str,
        output: str,
        options: ApplyOptions,
        run: RunOptions,
        observer: Observer,
    ) -> None:
        self.source, self.output, self.options = source, output, options
        self.overwrite, self.observer = run.overwrite, observer
        self.state = input_state(source)
        info = source.info
        known = known_statistics(options)
        example = (
            known is not None
            and not options.training
            and is_example(known.statistics.spec, options.layout, info.ndim)
        )
        if known is not None:
            given = replace(options, layout=None) if example else options
            self.spec = fitted_spec(given, known.statistics.spec)
            layout = self.spec.layout.of_example() if example else self.spec.layout
        else:
            layout = resolve_layout(options, source, observer)
            self.spec = new_spec(options, layout, info)
        recorded = known.statistics.affine if known is not None else Affine()
        check_expectations(options, source, layout)
        self._check_training()
        if options.overflow not in (None, "error", "saturate"):
            raise UsageError(f"--overflow {options.overflow} is none of error and saturate.")
        if options.training:
            sizes = batch_sizes(options.batch_size)
            assert sizes is not None
            if self.spec.mode == "instance" and self.spec.per_dataset:
                raise UsageError(
                    "--training normalizes batches; with --mode instance each observation is "
                    "normalized by its own statistics anyway.",
                    "Leave --training, --batch-size and --stats out: apply INPUT --mode instance",
                )
            self.spec = self.spec.by_batches(sizes[0])
            known = None
        self.geometry = (bind_example if example else bind)(self.spec, info.shape)
        described = describe(source)
        if known is None and not options.training:
            supplied = supplied_statistics(options, self.spec, self.geometry, described)
            known = Known(supplied) if supplied is not None else None
            warn_of_epsilon(options, self.spec, observer)
        if known is not None:
            require_fit(known, self.geometry, source.name)
            # What is undone was normalized: it is not what the statistics were taken from.
            if not options.inverse:
                refuse_changed(
                    known.statistics, described, input_name, options, run, observer, options.force
                )
        elif options.inverse:
            raise UsageError(
                "--inverse needs the statistics that the data were normalized with.",
                "Give --stats OUTPUT.stats.json, or --mean and --variance.",
            )
        elif options.estimate is not None:
            raise UsageError("--estimate chooses among the statistics of --stats; give --stats.")
        self.known: Known | None = known
        self.described = described
        self.affine = affine_for(options, self.geometry, self.spec, recorded)
        self.applied = self.affine.after(self.spec.offset, self.geometry.scale_shape)
        self.dtype = self._dtype()
        self.sink_info = output_info(info, self.dtype, output)
        groups = self.geometry.group_count
        self.by_block = (
            known.stored is not None
            if known is not None
            else not self.spec.per_dataset and groups > GROUPS_IN_MEMORY
        )
        self.sidecar = self._sidecar_name(groups)
        self.sink: ArraySink = make_sink(
            output, {"": self.sink_info}, run.overwrite, hdf5_version=options.hdf5_version
        )
        if output != "-":
            refuse_other_than_manifest(manifest_path(self.sink.name), run.overwrite)
        if self.sidecar is not None:
            refuse_shared(self.sidecar, [input_name], output)
            method = self.spec.method
            check_sidecar(self.sidecar, run.overwrite, groups, self.by_block, method=method)
        if known is not None and known.stored is None:
            refuse_damped(self.spec, self.options, known.statistics)

    def _check_training(self) -> None:
        options = self.options
        sizes = batch_sizes(options.batch_size)
        if not options.training:
            if sizes is not None:
                raise UsageError("--batch-size of an apply needs --training.")
            return
        if sizes is None or len(sizes) != 1:
            raise UsageError("--training needs one --batch-size.", "For example --batch-size 32.")
        if options.mean is not None or options.variance is not None or options.estimate:
            raise UsageError(
                "--training normalizes each batch by its own statistics; leave --mean, "
                "--variance and --estimate out."
            )

    def _dtype(self) -> np.dtype:
        if self.options.dtype is None:
            return output_dtype(self.source.info.dtype)
        dtype = parse_dtype(self.options.dtype)
        if not is_float(dtype) and not self.options.inverse:
            raise UsageError(
                f"Normalized values are no integers; --dtype {dtype} would lose them.",
                "Use float32, float64 or float16; integers go with --inverse.",
            )
        return dtype

    def _sidecar_name(self, groups: int) -> str | None:
        wanted = self.options.stats_out
        if self.known is not None and self.known.stored is not None:
            if isinstance(wanted, str | Path):
                raise UsageError(
                    f"The statistics of {groups} groups stay where they are, in "
                    f"{self.options.stats}.",
                    "Leave --stats-out out.",
                )
            return None
        if wanted is False:
            return None
        if wanted is not True:
            return str(wanted)
        if self.output == "-":
            return None
        container = parse_path(self.output, "output").container
        return default_sidecar(str(container), groups, self.spec.method)

    def plan(self, given: Resources, kernel: str, may_keep: bool) -> Plan:
        """Return what will be read and written, in which blocks."""
        info = self.source.info
        plan = plan_apply(
            info,
            self.sink_info,
            self.geometry,
            given,
            kernel,
            groups_held=0 if self.by_block else self.geometry.group_count,
            known=self.known is not None,
            per_dataset=self.spec.per_dataset,
            affine_bytes=self.applied.nbytes,
            method=method_cost(self.spec, self.geometry, False, info.dtype),
            may_keep=may_keep and is_slow_to_decode(info),
        )
        require_sketches(self.spec, self.geometry, plan.passes[0], merged=False)
        return plan

    def settings(self) -> dict[str, object]:
        """Return everything that decides the bits of the outcome."""
        attrs = statistics_attrs(self.spec, self.described)
        affine = (self.affine.scale, self.affine.bias)
        return {
            "command": "apply",
            "version": provenance()["version"],
            "input": list(self.described.inputs),
            "normalization": {k: v for k, v in attrs.items() if k not in ("source", "created")},
            "statistics": None if self.known is None else self.known.identity(),
            "estimate": self.options.estimate,
            "inverse": self.options.inverse,
            "missing": self.options.missing,
            "overflow": self.options.overflow or "error",
            "affine": [None if a is None else digest(a.tolist()) for a in affine],
            "output": [self.output, repr(self.sink_info)],
            "sidecar": self.sidecar,
        }
