"""The options of learn."""

from __future__ import annotations

from typing import Any

import click

from normcli.cli.options import compose, statistics_options
from normcli.cli.sections import option_of

_start = option_of("Scale and bias")
_learning = option_of("Learning")


def _one_term(_context: click.Context, _option: click.Parameter, terms: tuple[str, ...]) -> Any:
    """Return the one term that is frozen; of two, click alone would take the last."""
    if len(set(terms)) > 1:
        raise click.UsageError("--freeze scale and --freeze bias leave nothing to be learned.")
    return terms[0] if terms else None


_START = (
    _start("--affine", metavar="FILE", help="Scale and bias to begin with."),
    _start("--scale", metavar="FILE|none", help="The scale to begin with; none drops it."),
    _start("--bias", metavar="FILE|none", help="The bias to begin with; none drops it."),
    _start(
        "--freeze",
        type=click.Choice(["scale", "bias"]),
        multiple=True,
        callback=_one_term,
        help="The term that keeps its start.",
    ),
    _start(
        "--scale-init",
        type=click.Choice(["ones", "zeros", "narrow-normal"]),
        help="Where the scale begins; the last draws from N(0, 0.01^2).  [default: ones]",
    ),
    _start(
        "--bias-init",
        type=click.Choice(["ones", "zeros", "narrow-normal"]),
        help="Where the bias begins.  [default: zeros]",
    ),
    _start("--seed", type=int, metavar="S", help="Of narrow-normal and --shuffle."),
)

_PENALTIES = (
    _learning("--l2", type=float, metavar="L", help="L2 penalty of both.  [default: 0]"),
    _learning("--l2-scale", type=float, metavar="L", help="L2 penalty of the scale."),
    _learning("--l2-bias", type=float, metavar="L", help="L2 penalty of the bias."),
    _learning("--scale-l2-factor", type=float, metavar="F", help="Multiplies it.  [default: 1]"),
    _learning("--bias-l2-factor", type=float, metavar="F", help="Multiplies it.  [default: 1]"),
    _learning(
        "--l2-convention",
        type=click.Choice(["sum", "keras", "torch", "matlab"]),
        help="Whose loss and L2: sum of squares + L p^2; mean + L p^2; mean + L p^2 / 2; half the "
        "squares an observation + L p^2 / 2.  [default: sum; keras with sgd]",
    ),
    _learning("--l1-scale", type=float, metavar="L", help="L1 penalty of the scale (sgd)."),
    _learning("--l1-bias", type=float, metavar="L", help="L1 penalty of the bias (sgd)."),
)

_CONSTRAINTS = (
    _learning("--scale-bounds", metavar="LO,HI", help="Bounds; either side may be empty, as in 0,"),
    _learning("--bias-bounds", metavar="LO,HI", help="Bounds of the bias."),
    _learning(
        "--scale-constraint",
        metavar="KIND",
        help="nonneg; with sgd also max-norm:M, unit-norm, min-max-norm:LO,HI,RATE.",
    ),
    _learning("--bias-constraint", metavar="KIND", help="Likewise of the bias."),
)

_STEPS = (
    _learning(
        "--solver",
        type=click.Choice(["exact", "sgd"]),
        help="The minimum itself, or gradient steps.  [default: exact]",
    ),
    _learning("--learning-rate", type=float, metavar="R", help="Of the steps.  [default: 0.01]"),
    _learning("--momentum", type=float, metavar="M", help="Weight of the old step.  [default: 0]"),
    _learning(
        "--scale-rate-factor",
        type=float,
        metavar="F",
        help="Multiplies the learning rate; 0 freezes.  [default: 1]",
    ),
    _learning("--bias-rate-factor", type=float, metavar="F", help="Likewise of the bias."),
    _learning("--epochs", type=int, metavar="E", help="Walks over all batches.  [default: 100]"),
    _learning("--shuffle", is_flag=True, help="Another order of the batches each epoch."),
)

learn_options = compose(statistics_options, *_STEPS, *_START, *_PENALTIES, *_CONSTRAINTS)
