"""Gradient steps on sums of batches, against autograd and Keras on the elements themselves."""

from __future__ import annotations

import itertools
import os
from dataclasses import replace

import numpy as np
import pytest

from normcli.domain.learning import Objective, Term
from normcli.domain.learning_exact import solve_exact
from normcli.domain.learning_sgd import Descent, descend
from normcli.domain.pair_moments import PairMoments
from normcli.domain.projections import Projection, parse_projection
from normcli.errors import DataPolicyError, UsageError
from normcli.kernels.numpy_pairs import tile_pairs

CELLS, BATCHES, SIZE = 3, 4, 5


def data(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return z and t of shape (observations, cells), the last batch short."""
    random = np.random.default_rng(seed)
    z = random.normal(0.2, 1, size=(BATCHES * SIZE - 2, CELLS))
    return z, 2 * z - 1 + random.normal(size=z.shape)


def batches_of(z: np.ndarray, t: np.ndarray, size: int = SIZE) -> tuple[PairMoments, tuple]:
    parts = [
        tile_pairs(np.ascontiguousarray(z[i : i + size].T), np.ascontiguousarray(t[i : i + size].T))
        for i in range(0, len(z), size)
    ]
    names = PairMoments.__dataclass_fields__
    stacked = PairMoments(*(np.stack([getattr(p, n) for p in parts]) for n in names))
    return stacked, tuple(len(z[i : i + size]) for i in range(0, len(z), size))


SETTINGS = [
    {},
    {"momentum": 0.9},
    {"l2": (0.3, 0.1)},
    {"l1": (0.05, 0.2)},
    {"momentum": 0.5, "l1": (0.05, 0.02), "l2": (0.1, 0.4)},
    {"factors": (0.5, 3.0)},
    {"factors": (0.0, 1.0)},
    {"kind": "nonneg"},
]


def _terms(setting: dict, start: tuple[np.ndarray, np.ndarray]) -> tuple[Term, Term]:
    kind = setting.get("kind")
    return tuple(
        Term(
            start[i],
            l1=setting.get("l1", (0, 0))[i],
            l2=setting.get("l2", (0, 0))[i],
            rate_factor=setting.get("factors", (1, 1))[i],
            projection=None if kind is None else Projection(kind, 0.5, 1.5, 0.7),
        )
        for i in (0, 1)
    )


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
@pytest.mark.parametrize("convention", ["torch", "keras", "sum", "matlab"])
def test_torch_takes_the_same_steps(setting: dict, convention: str):
    torch = pytest.importorskip("torch")
    z, t = data()
    start = (np.array([1.0, -0.5, 0.0]), np.array([0.0, 0.1, -2.0]))
    scale, bias = _terms(setting, start)
    rate, momentum = (1e-3 if convention == "sum" else 0.05), setting.get("momentum", 0.0)
    found = descend(
        Objective(convention, scale, bias), *batches_of(z, t), Descent(rate, momentum, epochs=3)
    )
    s, b = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in start)
    # torch's own weight decay where that is the convention, autograd on the penalty elsewhere.
    decay = convention == "torch"
    optimizer = torch.optim.SGD(
        [
            {
                "params": [p],
                "lr": rate * term.rate_factor,
                "weight_decay": term.l2 if decay else 0.0,
            }
            for p, term in ((s, scale), (b, bias))
        ],
        momentum=momentum,
    )
    losses = []
    for epoch in range(4):
        with torch.no_grad():
            losses.append(float(_loss(torch, convention, scale, bias, s, b, z, t)))
        if epoch == 3:
            break
        for i in range(0, len(z), SIZE):
            optimizer.zero_grad()
            loss = _loss(
                torch, convention, scale, bias, s, b, z[i : i + SIZE], t[i : i + SIZE], not decay
            )
            loss.backward()
            optimizer.step()
            if setting.get("kind") == "nonneg":
                with torch.no_grad():
                    s.clamp_(min=0)
                    b.clamp_(min=0)
    np.testing.assert_allclose(found.scale, s.detach().numpy(), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(found.bias, b.detach().numpy(), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(found.losses, losses, rtol=1e-12)


def _loss(torch, convention, scale, bias, s, b, z, t, penalized=True):
    error = (s * torch.from_numpy(z) + b - torch.from_numpy(t)).square()
    loss = {
        "sum": error.sum(),
        "keras": error.mean(),
        "torch": error.mean(),
        "matlab": error.sum() / (2 * len(z)),
    }[convention]
    half = 0.5 if convention in ("torch", "matlab") else 1.0
    for p, term in ((s, scale), (b, bias)):
        loss = loss + term.l1 * p.abs().sum()
        if penalized:
            loss = loss + half * term.l2 * p.square().sum()
    return loss


@pytest.fixture(scope="module")
def keras():
    os.environ.setdefault("KERAS_BACKEND", "torch")
    module = pytest.importorskip("keras")
    before = module.config.floatx()
    module.config.set_floatx("float64")  # or its learning rate and velocities are float32
    yield module
    module.config.set_floatx(before)


KERAS = [
    {},
    {"momentum": 0.9},
    {"l1": (0.01, 0.02), "l2": (0.1, 0.3)},
    {"kind": "nonneg"},
    {"kind": "max-norm"},
    {"kind": "unit-norm"},
    {"kind": "min-max-norm", "momentum": 0.9},
]


@pytest.mark.parametrize("setting", KERAS, ids=str)
def test_keras_takes_the_same_steps(keras, setting: dict):
    torch = pytest.importorskip("torch")
    z, t = data(1)
    start = (np.array([1.0, -0.5, 0.3]), np.array([0.2, 0.1, -2.0]))
    scale, bias = _terms(setting, start)
    momentum = setting.get("momentum", 0.0)
    found = descend(
        Objective("keras", scale, bias), *batches_of(z, t), Descent(0.0625, momentum, epochs=2)
    )
    constraint = {
        None: lambda: None,
        "nonneg": keras.constraints.NonNeg,
        "max-norm": lambda: keras.constraints.MaxNorm(1.5),
        "unit-norm": keras.constraints.UnitNorm,
        "min-max-norm": lambda: keras.constraints.MinMaxNorm(0.5, 1.5, 0.7),
    }[setting.get("kind")]
    variables = [keras.Variable(value, dtype="float64") for value in start]
    for variable in variables:
        variable.constraint = constraint()
    penalties = [keras.regularizers.L1L2(term.l1, term.l2) for term in (scale, bias)]
    # Keras keeps the learning rate in float32 first, so it is a power of two here.
    optimizer = keras.optimizers.SGD(0.0625, momentum=momentum)
    optimizer.build(variables)
    for _ in range(2):
        for i in range(0, len(z), SIZE):
            s, b = (v.value for v in variables)
            # Keras' own loss passes through float32 on this backend.
            zs, ts = (torch.from_numpy(v[i : i + SIZE]) for v in (z, t))
            loss = (s * zs + b - ts).square().mean()
            for variable, penalty in zip(variables, penalties, strict=True):
                loss = loss + penalty(variable)
            gradients = torch.autograd.grad(loss, [s, b])
            optimizer.apply(list(gradients), variables)
    for own, theirs in zip((found.scale, found.bias), variables, strict=True):
        # On this backend NonNeg passes through float32.
        close = 5e-7 if setting.get("kind") == "nonneg" else 1e-12
        np.testing.assert_allclose(own, theirs.value.detach().numpy(), rtol=close)


def test_enough_full_steps_reach_the_exact_solution():
    z, t = data(2)
    sums, observations = batches_of(z, t, len(z))
    made = Objective(
        "keras", Term(np.ones(CELLS), l2=0.1, low=0.0), Term(np.zeros(CELLS), l2=0.02, low=-0.8)
    )
    found = descend(made, sums, observations, Descent(0.5, epochs=4000))
    exact = solve_exact(made, sums[0], len(z))
    np.testing.assert_allclose(found.scale, exact.scale, rtol=1e-12)
    np.testing.assert_allclose(found.bias, exact.bias, rtol=1e-12)
    assert all(a >= b - 1e-14 for a, b in itertools.pairwise(found.losses))


def test_the_order_of_batches_belongs_to_the_seed():
    z, t = data(3)
    made = Objective("keras", Term(np.ones(CELLS)), Term(np.zeros(CELLS)))
    sums = batches_of(z, t)
    runs = [
        descend(made, *sums, Descent(0.1, epochs=3, shuffle=seed)).scale.tolist()
        for seed in (None, 1, 1, 2)
    ]
    assert runs[1] == runs[2]
    assert len({tuple(run) for run in runs}) == 3


def test_frozen_and_absent_terms_stay():
    z, t = data(4)
    frozen = Term(np.full(CELLS, 7.0), learned=False, l2=1.0)
    made = Objective("keras", frozen, Term(np.zeros(CELLS)))
    found = descend(made, *batches_of(z, t), Descent(0.1, epochs=2))
    assert found.scale.tolist() == [7.0] * CELLS
    assert (found.bias != 0).all()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_rate_that_is_too_large_is_told_and_the_one_in_the_hint_converges(momentum: float):
    z, t = data(5)
    made = Objective("keras", Term(np.ones(CELLS)), Term(np.zeros(CELLS)))
    sums = batches_of(z, t, len(z))
    with pytest.raises(DataPolicyError, match="left float64 in epoch") as caught:
        descend(made, *sums, Descent(1e3, momentum, epochs=500))
    hinted = float(caught.value.hint.split("--learning-rate ")[1].split()[0])
    found = descend(made, *sums, Descent(0.95 * hinted, momentum, epochs=500))
    assert found.losses[-1] < found.losses[0]
    with pytest.raises(DataPolicyError):
        descend(made, *sums, Descent(1.3 * hinted, momentum, epochs=50_000))


def test_a_batch_without_pairs_moves_nothing_but_penalties():
    z, t = data(6)
    empty = z.copy()
    empty[SIZE : 2 * SIZE] = np.nan
    made = Objective("keras", Term(np.ones(CELLS)), Term(np.zeros(CELLS)))
    rest = [i for i in range(len(z)) if not SIZE <= i < 2 * SIZE]
    with_gap = descend(made, *batches_of(empty, t), Descent(0.1, epochs=2))
    without = descend(made, *batches_of(z[rest], t[rest]), Descent(0.1, epochs=2))
    np.testing.assert_allclose(with_gap.scale, without.scale, rtol=1e-13)
    np.testing.assert_allclose(with_gap.bias, without.bias, rtol=1e-13)


def test_projections_of_matrices_and_scalars():
    values = np.array([[3.0, 0.1], [4.0, 0.1]])
    longest = Projection("max-norm", 0, 2.0)(values)
    np.testing.assert_allclose(np.sqrt((longest**2).sum(0)), [2, 0.1 * 2**0.5], rtol=1e-6)
    unit = Projection("unit-norm")(np.array(-3.0))
    assert unit.shape == ()
    assert unit == pytest.approx(-1, rel=1e-6)
    assert Projection("nonneg")(np.array([-1.0, 2])).tolist() == [0, 2]
    assert np.isnan(Projection("nonneg")(np.array([np.nan]))).all()
    nothing = Projection("min-max-norm", 1.0, 2.0)(np.zeros(3))
    assert nothing.tolist() == [0, 0, 0]  # a norm of 0 has no direction


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nonneg", Projection("nonneg")),
        ("unit-norm", Projection("unit-norm")),
        ("max-norm", Projection("max-norm", 0, 2)),
        ("max-norm:3.5", Projection("max-norm", 0, 3.5)),
        ("min-max-norm", Projection("min-max-norm", 0, 1, 1)),
        ("min-max-norm:1,2", Projection("min-max-norm", 1, 2, 1)),
        ("min-max-norm:1,2,0.5", Projection("min-max-norm", 1, 2, 0.5)),
    ],
)
def test_the_spelling_of_constraints(text: str, expected: Projection):
    assert parse_projection(text, "--scale-constraint") == expected


@pytest.mark.parametrize(
    "text",
    ["", "norm", "max-norm:-1", "max-norm:1,2", "nonneg:1", "unit-norm:2", "max-norm:inf",
     "min-max-norm:2,1", "min-max-norm:1", "min-max-norm:0,1,2", "min-max-norm:0,1,1,1"],
)  # fmt: skip
def test_what_is_no_constraint_is_refused(text: str):
    with pytest.raises(UsageError, match="--scale-constraint"):
        parse_projection(text, "--scale-constraint")


def test_a_start_is_not_changed_in_place():
    z, t = data(7)
    start = np.ones(CELLS)
    made = Objective("keras", Term(start), Term(np.zeros(CELLS)))
    descend(made, *batches_of(z, t), Descent(0.1, epochs=2))
    assert start.tolist() == [1.0] * CELLS
    assert replace(made.scale, l1=1).l1 == 1
