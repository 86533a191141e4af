"""From the options of a learning run to what is minimized and how."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf, isfinite, isnan
from typing import Any

import numpy as np

from normcli.api.learning_options import LearnOptions
from normcli.domain.affine import Affine
from normcli.domain.learning import L2_CONVENTIONS, Objective, Term
from normcli.domain.learning_sgd import Descent
from normcli.domain.projections import Projection, parse_projection
from normcli.errors import UsageError

SOLVERS = ("exact", "sgd")
INITIALIZERS = ("ones", "zeros", "narrow-normal")
NARROW = 0.01
LEARNING_RATE, EPOCHS = 0.01, 100

# What only gradient steps have.
STEPS_ONLY = (
    "l1_scale",
    "l1_bias",
    "learning_rate",
    "momentum",
    "scale_rate_factor",
    "bias_rate_factor",
    "epochs",
    "shuffle",
    "batch_size",
)
# What belongs to one term, and does nothing unless that is learned.
OF_LEARNED = {
    name: (
        f"l2_{name}",
        f"{name}_l2_factor",
        f"l1_{name}",
        f"{name}_bounds",
        f"{name}_constraint",
        f"{name}_rate_factor",
    )
    for name in ("scale", "bias")
}


@dataclass(frozen=True)
class LearnRule:
    """The options, checked; only the starts are missing, whose shape the arrays decide.

    Attributes
    ----------
    solver : {"exact", "sgd"}
        Which solver.
    convention : str
        Whose loss.
    scale, bias : Term
        Both terms, with empty starts.
    descent : Descent
        Steps of the solver ``sgd``.
    """

    solver: str
    convention: str
    scale: Term
    bias: Term
    descent: Descent

    @property
    def learned(self) -> tuple[str, ...]:
        """Names of the terms that are learned."""
        return tuple(n for n in ("scale", "bias") if getattr(self, n).learned)


def learn_rule(options: LearnOptions) -> LearnRule:
    """Return what the options mean.

    Raises
    ------
    UsageError
        When one is out of range, contradicts another, or would do nothing.
    """
    solver = options.solver or "exact"
    _choice("--solver", solver, SOLVERS)
    convention = options.l2_convention or ("sum" if solver == "exact" else "keras")
    _choice("--l2-convention", convention, L2_CONVENTIONS)
    if options.freeze is not None:
        _choice("--freeze", options.freeze, ("scale", "bias"))
    if solver == "exact":
        for name in STEPS_ONLY:
            if _given(options, name):
                hint = "Add --solver sgd."
                if name.endswith("rate_factor") and getattr(options, name) == 0:
                    hint = f"--freeze {name.split('_')[0]} keeps it, with the exact solver too."
                raise UsageError(f"{_spelled(name)} needs --solver sgd.", hint)
    scale, bias = (_term(options, name, solver) for name in ("scale", "bias"))
    if not scale.learned and not bias.learned:
        raise UsageError(
            "Neither scale nor bias is left to be learned.", "Freeze or drop one of them at most."
        )
    _check_seed(options)
    return LearnRule(solver, convention, scale, bias, _descent(options))


def _term(options: LearnOptions, name: str, solver: str) -> Term:
    present = str(getattr(options, name)) != "none"
    factor = _number(options, f"{name}_rate_factor", 1.0)
    frozen = options.freeze == name or factor == 0
    if options.freeze == name and not present:
        raise UsageError(f"--freeze {name} and --{name} none exclude each other.")
    if not present or frozen:
        for other in OF_LEARNED[name]:
            if _given(options, other) and getattr(options, other) != 0:
                what = "dropped" if not present else "frozen"
                raise UsageError(
                    f"{_spelled(other)} does nothing, because the {name} is {what}.",
                    "Leave it out.",
                )
    init = getattr(options, f"{name}_init")
    if init is not None:
        _choice(f"--{name}-init", init, INITIALIZERS)
        for other in (name, "affine"):
            if getattr(options, other) is not None:
                raise UsageError(
                    f"--{name}-init and --{other} both say where the {name} begins.",
                    "Leave one out.",
                )
    low, high = _bounds(options, name)
    projection = None
    constraint = getattr(options, f"{name}_constraint")
    if constraint is not None:
        projection = parse_projection(constraint, f"--{name}-constraint")
        if (low, high) != (-inf, inf):
            raise UsageError(f"--{name}-constraint and --{name}-bounds exclude each other.")
        if solver == "exact":
            _refuse_norms(projection, name)
            projection, low = None, 0.0
    return Term(
        np.empty(0),
        present,
        present and not frozen,
        _number(options, f"l1_{name}", 0.0),
        _l2(options, name),
        low,
        high,
        projection,
        factor,
    )


def _refuse_norms(projection: Projection, name: str) -> None:
    if projection.kind != "nonneg":
        raise UsageError(
            f"--{name}-constraint {projection.kind} needs --solver sgd.",
            "The exact solver takes nonneg, and bounds.",
        )


def _l2(options: LearnOptions, name: str) -> float:
    both = _number(options, "l2", 0.0)
    weight = _number(options, f"l2_{name}", both)
    factor = _number(options, f"{name}_l2_factor", 1.0)
    if _given(options, f"{name}_l2_factor") and weight == 0:
        raise UsageError(
            f"--{name}-l2-factor does nothing while the L2 penalty is 0.", "Add --l2 L."
        )
    return weight * factor


def _bounds(options: LearnOptions, name: str) -> tuple[float, float]:
    given, option = getattr(options, f"{name}_bounds"), f"--{name}-bounds"
    if given is None:
        return -inf, inf
    sides = str(given).split(",") if isinstance(given, str) else list(given)
    try:
        values = [
            infinite if side is None or not str(side).strip() else float(side)
            for side, infinite in zip(sides, (-inf, inf), strict=True)
        ]
    except ValueError:
        values = [float("nan")] * 2
    if any(isnan(value) for value in values):
        raise UsageError(
            f"{option} {given!r} is no pair of bounds.", "Like 0,2; either side may be empty: 0,"
        )
    low, high = values
    if low > high or low == inf or high == -inf:
        raise UsageError(f"{option}: the lower bound {low:g} exceeds the upper bound {high:g}.")
    if (low, high) == (-inf, inf):
        raise UsageError(f"{option} {given!r} bounds nothing.", "Leave it out.")
    return low, high


def _descent(options: LearnOptions) -> Descent:
    rate = _number(options, "learning_rate", LEARNING_RATE)
    if rate == 0:
        raise UsageError("--learning-rate 0 learns nothing.", "Give a number above 0.")
    momentum = _number(options, "momentum", 0.0)
    if momentum >= 1:
        raise UsageError(f"--momentum {momentum:g} must be from 0 to below 1.")
    epochs = EPOCHS if options.epochs is None else options.epochs
    if epochs < 1:
        raise UsageError(f"--epochs {epochs} must be 1 or more.")
    return Descent(rate, momentum, epochs, options.seed if options.shuffle else None)


def _check_seed(options: LearnOptions) -> None:
    narrow = [n for n in ("scale", "bias") if getattr(options, f"{n}_init") == "narrow-normal"]
    draws = [f"--{n}-init narrow-normal" for n in narrow] + ["--shuffle"] * options.shuffle
    if options.shuffle and options.batch_size is None:
        raise UsageError(
            "--shuffle has nothing to shuffle: without --batch-size all data are one batch.",
            "Add --batch-size B.",
        )
    if draws and options.seed is None:
        raise UsageError(f"{draws[0]} draws random numbers, so it needs --seed.", "Like --seed 0.")
    if options.seed is not None and not draws:
        raise UsageError(
            "--seed does nothing: no random number is drawn.",
            "It belongs to --shuffle and to the initializer narrow-normal.",
        )
    if options.seed is not None and options.seed < 0:
        raise UsageError(f"--seed {options.seed} must be 0 or more.")


def starts(options: LearnOptions, supplied: Affine, shape: tuple[int, ...]) -> Affine:
    """Return where learning begins: what was supplied, else what the initializers give.

    Parameters
    ----------
    options : LearnOptions
        Initializers and seed.
    supplied : Affine
        Supplied parts, in the shape of the scale axes.
    shape : tuple of int
        Extents of the scale axes.
    """
    # One generator for both, so that their numbers differ.
    random = np.random.default_rng(options.seed)
    made: dict[str, np.ndarray] = {}
    for name, usual in (("scale", "ones"), ("bias", "zeros")):
        given = getattr(supplied, name)
        init = getattr(options, f"{name}_init")
        if given is not None and init is None:
            made[name] = given
        elif init == "narrow-normal":
            made[name] = random.normal(0.0, NARROW, shape)
        else:
            # An absent scale multiplies by 1, an absent bias adds 0.
            made[name] = np.ones(shape) if (init or usual) == "ones" else np.zeros(shape)
    return Affine(np.asarray(made["scale"]), np.asarray(made["bias"]))


def objective(rule: LearnRule, begin: Affine) -> Objective:
    """Return what is minimized, from its start."""
    assert begin.scale is not None
    assert begin.bias is not None
    return Objective(
        rule.convention,
        replace(rule.scale, start=begin.scale),
        replace(rule.bias, start=begin.bias),
    )


def recorded(options: LearnOptions, rule: LearnRule) -> dict[str, Any]:
    """Return the settings as JSON can hold them, for the file of what is learned."""
    found: dict[str, Any] = {"solver": rule.solver, "l2_convention": rule.convention}
    for name in ("scale", "bias"):
        term = getattr(rule, name)
        state = "learned" if term.learned else "frozen" if term.present else "none"
        about: dict[str, Any] = {"state": state}
        if term.learned:
            about |= {"l2": term.l2, "l1": term.l1}
            about["bounds"] = [v if isfinite(v) else None for v in (term.low, term.high)]
            about["constraint"] = getattr(options, f"{name}_constraint")
            about["rate_factor"] = term.rate_factor
        about["init"] = getattr(options, f"{name}_init")
        found[name] = about
    if rule.solver == "sgd":
        found |= {
            "learning_rate": rule.descent.rate,
            "momentum": rule.descent.momentum,
            "epochs": rule.descent.epochs,
            "shuffle": options.shuffle,
            "batch_size": options.batch_size,
        }
    return {**found, "seed": options.seed}


def _number(options: LearnOptions, name: str, default: float) -> float:
    value = getattr(options, name)
    if value is None:
        return default
    if not (isfinite(value) and value >= 0):
        raise UsageError(f"{_spelled(name)} {value:g} must be a finite number, 0 or more.")
    return float(value)


def _given(options: LearnOptions, name: str) -> bool:
    value = getattr(options, name)
    return value is not None and value is not False


def _spelled(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _choice(option: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UsageError(f"{option} {value!r} is none.", f"Choose from {', '.join(allowed)}.")
