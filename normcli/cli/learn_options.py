"""The options of learn."""

from __future__ import annotations

import click

from normcli.cli.options import compose

_STATISTICS = (
    click.option("--stats", metavar="STATS", help="Statistics and all settings of a fit."),
    click.option("--mean", metavar="FILE", help="The mean from a plain array."),
    click.option("--variance", metavar="FILE", help="The variance from a plain array."),
    click.option(
        "--estimate",
        type=click.Choice(["pooled", "moving"]),
        help="Which statistics.  [default: moving where the fit kept them]",
    ),
)

_START = (
    click.option("--affine", metavar="FILE", help="Scale and bias to begin with."),
    click.option("--scale", metavar="FILE|none", help="The scale to begin with; none drops it."),
    click.option("--bias", metavar="FILE|none", help="The bias to begin with; none drops it."),
    click.option(
        "--freeze", type=click.Choice(["scale", "bias"]), help="The term that keeps its start."
    ),
    click.option(
        "--scale-init",
        type=click.Choice(["ones", "zeros", "narrow-normal"]),
        help="Where the scale begins; the last draws from N(0, 0.01^2).  [default: ones]",
    ),
    click.option(
        "--bias-init",
        type=click.Choice(["ones", "zeros", "narrow-normal"]),
        help="Where the bias begins.  [default: zeros]",
    ),
    click.option("--seed", type=int, metavar="S", help="Of narrow-normal and --shuffle."),
)

_PENALTIES = (
    click.option("--l2", type=float, metavar="L", help="L2 penalty of both.  [default: 0]"),
    click.option("--l2-scale", type=float, metavar="L", help="L2 penalty of the scale."),
    click.option("--l2-bias", type=float, metavar="L", help="L2 penalty of the bias."),
    click.option("--scale-l2-factor", type=float, metavar="F", help="Multiplies it.  [default: 1]"),
    click.option("--bias-l2-factor", type=float, metavar="F", help="Multiplies it.  [default: 1]"),
    click.option(
        "--l2-convention",
        type=click.Choice(["sum", "keras", "torch", "matlab"]),
        help="Whose loss and L2: sum of squares + L p^2; mean + L p^2; mean + L p^2 / 2; half the "
        "squares an observation + L p^2 / 2.  [default: sum; keras with sgd]",
    ),
    click.option("--l1-scale", type=float, metavar="L", help="L1 penalty of the scale (sgd)."),
    click.option("--l1-bias", type=float, metavar="L", help="L1 penalty of the bias (sgd)."),
)

_CONSTRAINTS = (
    click.option(
        "--scale-bounds", metavar="LO,HI", help="Bounds; either side may be empty, as in 0,"
    ),
    click.option("--bias-bounds", metavar="LO,HI", help="Bounds of the bias."),
    click.option(
        "--scale-constraint",
        metavar="KIND",
        help="nonneg; with sgd also max-norm:M, unit-norm, min-max-norm:LO,HI,RATE.",
    ),
    click.option("--bias-constraint", metavar="KIND", help="Likewise of the bias."),
)

_STEPS = (
    click.option(
        "--solver",
        type=click.Choice(["exact", "sgd"]),
        help="The minimum itself, or gradient steps.  [default: exact]",
    ),
    click.option("--learning-rate", type=float, metavar="R", help="Of the steps.  [default: 0.01]"),
    click.option(
        "--momentum", type=float, metavar="M", help="Weight of the old step.  [default: 0]"
    ),
    click.option(
        "--scale-rate-factor",
        type=float,
        metavar="F",
        help="Multiplies the learning rate; 0 freezes.  [default: 1]",
    ),
    click.option("--bias-rate-factor", type=float, metavar="F", help="Likewise of the bias."),
    click.option("--epochs", type=int, metavar="E", help="Walks over all batches.  [default: 100]"),
    click.option("--shuffle", is_flag=True, help="Another order of the batches each epoch."),
)

learn_options = compose(*_STATISTICS, *_STEPS, *_START, *_PENALTIES, *_CONSTRAINTS)
