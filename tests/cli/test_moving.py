"""Moving statistics as each system keeps them: commands, against the formulas written out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.cli.terminal import Ended, call

X = np.random.default_rng(12).normal(3, 2, (23, 3, 4)).astype("f4")
SIZE = 5
CUTS = [slice(i, min(i + SIZE, 23)) for i in range(0, 23, SIZE)]


@pytest.fixture(autouse=True)
def x(folder):
    np.save("x.npy", X)
    return X


def ok(*words: object) -> Ended:
    ended = call(*words)
    assert ended.code == 0, ended.err
    return ended


def fit(*words: object, output: str = "s.json", source: str = "x.npy") -> tuple:
    ok("fit", source, "-o", output, "--layout", "NCT", "--overwrite", "-q", *words)
    return moving(output)


def moving(path: str) -> tuple[np.ndarray, np.ndarray]:
    held = json.loads(Path(path).read_text())["arrays"]
    return tuple(np.array(held[name]["data"]) for name in ("moving_mean", "moving_variance"))


def batches(ddof: int) -> list[tuple[np.ndarray, np.ndarray]]:
    wide = X.astype("f8")
    return [(wide[c].mean((0, 2)), wide[c].var((0, 2), ddof=ddof)) for c in CUTS]


def folded(old: float, ddof: int, start: tuple = (0.0, 1.0), skip: int = 0) -> tuple:
    mean, variance = np.broadcast_to(start[0], 3), np.broadcast_to(start[1], 3)
    for m, v in batches(ddof)[skip:]:
        mean, variance = old * mean + (1 - old) * m, old * variance + (1 - old) * v
    return mean, variance


def same(ours: tuple, truth: tuple, tolerance: float = 1e-13) -> None:
    for a, b in zip(ours, truth, strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


# What each system does when it is told a momentum: the weight of the old value, and the divisor.
KEPT = {
    "normcli": ([], 0.7, 0),
    "wolfram": (["--convention", "wolfram"], 0.7, 0),
    "keras": (["--convention", "keras"], 0.7, 0),
    "onnx": (["--convention", "onnx"], 0.7, 0),
    "matlab": (["--convention", "matlab"], 0.3, 0),
    "torch": (["--convention", "torch"], 0.3, 1),
}


@pytest.mark.parametrize("divisor", [None, "biased", "unbiased"])
@pytest.mark.parametrize("system", KEPT)
def test_momentum_and_divisor(system, divisor):
    words, old, ddof = KEPT[system]
    if divisor is not None:
        words, ddof = [*words, "--moving-variance", divisor], int(divisor == "unbiased")
    same(fit("--momentum", 0.7, "--batch-size", SIZE, *words), folded(old, ddof))
    assert float(ok("extract", "s.json", "momentum").text) == pytest.approx(old)


@pytest.mark.parametrize(
    ("system", "old"),
    [("wolfram", 0.9), ("keras", 0.99), ("onnx", 0.9), ("matlab", 0.9), ("torch", 0.9)],
)
def test_the_default_of_a_system(system, old):
    same(fit("--convention", system, "--batch-size", SIZE), folded(old, int(system == "torch")))


@pytest.mark.parametrize(("divisor", "ddof"), [("biased", 0), ("unbiased", 1)])
def test_the_plain_average(divisor, ddof):
    words = ("--momentum", "cumulative", "--batch-size", SIZE, "--moving-variance", divisor)
    each = batches(ddof)
    same(fit(*words), tuple(np.mean([b[i] for b in each], axis=0) for i in (0, 1)))


def test_pooled_are_neither():
    fit("--momentum", 0.9, "--batch-size", SIZE)
    held = json.loads(Path("s.json").read_text())["arrays"]
    wide = X.astype("f8")
    same(
        (np.array(held["mean"]["data"]), np.array(held["variance"]["data"])),
        (wide.mean((0, 2)), wide.var((0, 2))),
    )


def test_start_values():
    words = ("--momentum", 0.6, "--batch-size", SIZE)
    same(fit(*words, "--moving-start", "zeros-ones"), folded(0.6, 0))
    same(fit(*words, "--moving-start", "first-batch"), folded(0.6, 0, batches(0)[0], skip=1))
    first = fit(*words, output="first.json")
    same(fit(*words, "--moving-start", "first.json"), folded(0.6, 0, first))


@pytest.mark.parametrize(
    "words",
    [
        ["--momentum", 1],
        ["--momentum", 0, "--convention", "torch"],
        ["--momentum", 0.6, "--rate-factor", 0],
        ["--momentum", "cumulative", "--rate-factor", 0],
        ["--convention", "wolfram", "--rate-factor", 0],
    ],
    ids=str,
)
def test_frozen(words):
    same(fit("--batch-size", SIZE, *words), (np.zeros(3), np.ones(3)), 0)
    start = fit("--momentum", 0.5, "--batch-size", SIZE, output="start.json")
    same(fit("--batch-size", SIZE, *words, "--moving-start", "start.json"), start, 0)
    # What is pooled has seen the data all the same.
    assert ok("extract", "s.json", "count", "--json").text == "[92, 92, 92]\n"


def test_frozen_for_one_fit():
    """A factor of 0 holds what is continued, NaN or not, and the next fit goes on."""
    words = ("--momentum", 0.6, "--batch-size", SIZE, "--nonfinite", "propagate")
    start = fit(*words, output="a.json")
    np.save("nan.npy", np.full((4, 3, 4), np.nan, "f4"))
    held = fit("--update", "a.json", "--rate-factor", 0, output="b.json", source="nan.npy")
    same(held, start, 0)
    same(fit("--update", "b.json"), folded(0.6, 0, start))
    same(fit(*words, "--rate-factor", 0.5), folded(0.6, 0))


@pytest.mark.parametrize("momentum", ["0.6", "cumulative"])
@pytest.mark.parametrize("start", ["zeros-ones", "first-batch"])
def test_fits_that_continue_one_another(momentum, start):
    words = ("--momentum", momentum, "--batch-size", SIZE)
    words += () if momentum == "cumulative" else ("--moving-start", start)
    whole = fit(*words, "--epsilon", 0.25, "--moving-variance", "unbiased")
    update: tuple = (*words, "--epsilon", 0.25, "--moving-variance", "unbiased")
    for i, cut in enumerate(CUTS):
        np.save("part.npy", X[cut])
        ended = fit(*update, output=f"{i}.json", source="part.npy")
        update = ("--update", f"{i}.json")
    same(ended, whole, 0)
    for name in ("epsilon", "moving-variance-divisor", "batches", "mean", "m2", "count"):
        assert ok("extract", f"{i}.json", name).text == ok("extract", "s.json", name).text, name


def evaluated(mean: np.ndarray, variance: np.ndarray, x: np.ndarray, epsilon: float) -> np.ndarray:
    return (x - mean[:, None]) / np.sqrt(variance[:, None] + epsilon)


def test_evaluation_and_training():
    """Evaluation takes the moving statistics, training each batch's own with the divisor n."""
    kept = fit("--convention", "torch", "--batch-size", SIZE)
    wide = X.astype("f8")
    as64 = ("--dtype", "float64", "--overwrite")
    ok("apply", "x.npy", "-o", "y.npy", "--stats", "s.json", *as64)
    truth = evaluated(*kept, wide, 1e-5)
    np.testing.assert_allclose(np.load("y.npy"), truth, 1e-12, 1e-12)
    ok("apply", "x.npy", "-o", "y.npy", "--stats", "s.json", "--estimate", "pooled", *as64)
    truth = evaluated(wide.mean((0, 2)), wide.var((0, 2)), wide, 1e-5)
    np.testing.assert_allclose(np.load("y.npy"), truth, 1e-12, 1e-12)
    for given in (["--stats", "s.json"], ["--layout", "NCT", "--convention", "torch"]):
        ok("apply", "x.npy", "-o", "y.npy", "--training", "--batch-size", SIZE, *given, *as64)
        own = [evaluated(*b, wide[cut], 1e-5) for b, cut in zip(batches(0), CUTS, strict=True)]
        np.testing.assert_allclose(np.load("y.npy"), np.concatenate(own), 1e-12, 1e-12)
    # Neither changes what is stored.
    same(moving("s.json"), kept, 0)


@pytest.mark.parametrize("estimate", ["moving", "pooled"])
def test_the_sidecar_undoes_what_it_was_written_beside(estimate):
    fit("--momentum", 0.6, "--batch-size", SIZE)
    ok("apply", "x.npy", "-o", "y.npy", "--stats", "s.json", "--estimate", estimate)
    ok("apply", "y.npy", "-o", "z.npy", "--inverse", "--stats", "y.npy.stats.json")
    np.testing.assert_allclose(np.load("z.npy"), X, rtol=2e-6, atol=2e-6)
    held = json.loads(Path("y.npy.stats.json").read_text())
    assert ("moving_mean" in held["arrays"]) == (held["moving"] is not None) == (
        estimate == "moving"
    )  # fmt: skip


@pytest.mark.parametrize("placement", ["inside", "outside", "floor"])
@pytest.mark.parametrize("estimate", ["moving", "pooled"])
def test_where_epsilon_goes(placement, estimate):
    kept = fit("--momentum", 0.6, "--batch-size", SIZE, "--epsilon", 1.5,
               "--epsilon-placement", placement)  # fmt: skip
    wide = X.astype("f8")
    mean, variance = kept if estimate == "moving" else (wide.mean((0, 2)), wide.var((0, 2)))
    deviation = np.sqrt(variance)
    divisor = {
        "inside": np.sqrt(variance + 1.5),
        "outside": deviation + 1.5,
        "floor": np.maximum(deviation, 1.5),
    }[placement]
    ok("apply", "x.npy", "-o", "y.npy", "--stats", "s.json", "--estimate", estimate, "--dtype",
       "float64")  # fmt: skip
    truth = (wide - mean[:, None]) / divisor[:, None]
    np.testing.assert_allclose(np.load("y.npy"), truth, 1e-12, 1e-12)


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--momentum", 1.5, "--batch-size", 5], 2, "from 0 to 1"),
        (["--momentum", -0.1, "--batch-size", 5], 2, "from 0 to 1"),
        (["--momentum", "nan", "--batch-size", 5], 2, "from 0 to 1"),
        (["--momentum", "most", "--batch-size", 5], 2, "from 0 to 1"),
        (["--momentum", 0.9], 2, "needs --batch-size"),
        (["--batch-size", 5], 2, "needs --momentum"),
        (["--momentum", 0.9, "--batch-size", 0], 2, "must be 1 or more"),
        (["--rate-factor", 0], 2, "--rate-factor needs --batch-size"),
        (["--momentum", 0.9, "--batch-size", 5, "--rate-factor", -1], 2, "0 or more"),
        (["--momentum", 0.9, "--batch-size", 5, "--rate-factor", "nan"], 2, "0 or more"),
        (["--momentum", 0.9, "--batch-size", 5, "--moving-start", "gone.json"], 3, "gone.json"),
        (["--update", "a.json", "--momentum", 0.5, "--batch-size", 5], 2, "Continue with the same"),
        (["--update", "a.json", "--moving-start", "zeros-ones"], 2, "go on from where"),
        (["--update", "a.json", "--ddof", 1], 3, "was fitted with ddof 0"),
        (["--update", "a.json", "--mode", "instance"], 2, "each observation"),
    ],
    ids=str,
)
def test_what_is_refused(words, code, says):
    fit("--momentum", 0.9, "--batch-size", SIZE, output="a.json")
    ended = call("fit", "x.npy", "-o", "no.json", "--layout", "NCT", *words)
    assert ended.code == code, ended.err
    assert ended.err.startswith("normcli: error: ")
    assert says in ended.err.replace("\n", " ")
    assert not Path("no.json").exists()
