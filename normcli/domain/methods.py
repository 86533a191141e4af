"""The methods: what each divides by, and which settings are its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from normcli.errors import UsageError

METHODS = ("zscore", "rms", "center", "std", "minmax", "maxabs", "robust", "lp")
# What these divide by, in place of a standard deviation; it has no ddof.
DIVISORS = {"minmax": "extremes", "maxabs": "extremes", "robust": "quantiles", "lp": "a norm"}
# Data spread over 1e-140 to 1e154 (their squares stay within float64), so neither quotient of
# a spread and a range overflows.
MOST_BOUND = 1e100


def require_settings(method: str, settings: Mapping[str, object]) -> None:
    """Refuse settings that are those of another method, and values that they cannot have.

    Parameters
    ----------
    method : str
        One of `METHODS`.
    settings : mapping
        ``range``, ``quantiles`` and ``p``; None where one is not given.

    Raises
    ------
    UsageError
        When a method lacks its own setting, has another's, or its value is none.
    """
    for name, (owner, example, require) in _OWN.items():
        value = settings[name]
        if (value is not None) != (method == owner):
            raise UsageError(
                f"--{name} belongs to --method {owner}, and it alone.",
                f"For example: --method {owner} --{name} {example}",
            )
        if value is not None:
            require(value)


def require_terms(method: str, epsilon: float, placement: str, ddof: int) -> None:
    """Refuse epsilon and ddof where nothing has them.

    Raises
    ------
    UsageError
        When a method divides by something else than a deviation.
    """
    if method == "lp":
        if (placement, ddof) != ("floor", 0):
            raise UsageError(
                "Method lp divides by max(norm, E), which has no ddof and no other placement of "
                "epsilon.",
                "Leave --epsilon-placement and --ddof out.",
            )
    elif method in DIVISORS and (epsilon, placement, ddof) != (0, "inside", 0):
        raise UsageError(
            f"Epsilon and ddof do not go with --method {method}, which divides by "
            f"{DIVISORS[method]}.",
            "Leave --epsilon, --epsilon-placement and --ddof out.",
        )


def _require_range(bounds: tuple[float, ...]) -> None:
    if not (
        len(bounds) == 2
        and all(abs(bound) <= MOST_BOUND for bound in bounds)
        and bounds[1] - bounds[0] >= 1 / MOST_BOUND
    ):
        raise UsageError(
            f"The range {','.join(f'{bound:g}' for bound in bounds)} is none.",
            "Give two finite numbers, the lower one first: --range 0,1 or --range -1,1",
        )


def _require_quantiles(percent: tuple[float, ...]) -> None:
    if not (len(percent) == 2 and 0 <= percent[0] < percent[1] <= 100):
        raise UsageError(
            f"The quantiles {','.join(f'{level:g}' for level in percent)} are none.",
            "Give two percentages, the lower one first: --quantiles 25,75",
        )


def _require_norm(p: float) -> None:
    if not p >= 1:
        raise UsageError(
            f"--p {p:g} makes no norm; it must be 1 or more, or inf.", "For example: --p 2"
        )


# The method that a setting belongs to, an example of it, and what refuses its value.
_OWN: dict[str, tuple[str, str, Callable[..., None]]] = {
    "range": ("minmax", "0,1", _require_range),
    "quantiles": ("robust", "25,75", _require_quantiles),
    "p": ("lp", "2", _require_norm),
}
