"""learn against numpy, and against itself with other storages, chunks, workers and endings."""

from __future__ import annotations

import itertools
import tracemalloc
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import normcli
from normcli.api.learning import learn_arrays
from normcli.api.learning_options import LearnOptions
from normcli.api.options import RunOptions
from normcli.bundles.formats import read_bundle
from normcli.bundles.parameter_file import read_affine
from normcli.engine.events import Observer
from normcli.errors import DataPolicyError, PlanError
from tests.examples import examples

from .stores import STORAGES, hold_groups, load, store

SHAPE = (12, 3, 8, 10)
RANDOM = np.random.default_rng(12)
X = RANDOM.normal(5, 2, SHAPE).astype("f4")
T = (X * 1.5 + RANDOM.normal(20, 1, SHAPE) + np.arange(3)[:, None, None] * 7).astype("f4")


@contextmanager
def small_blocks(elements: int = 64):
    """Cut small arrays into many blocks; by the shape alone, as ever."""
    with ExitStack() as stack:
        for name, size in (("UNIT_BYTES", 8 * elements), ("FUSED_BYTES", 32 * elements)):
            stack.enter_context(mock.patch(f"normcli.planning.learning.{name}", size))
        yield


def normalized(x: np.ndarray, aggregated: tuple[int, ...], epsilon: float = 1e-5) -> np.ndarray:
    x = x.astype("f8")
    return (x - x.mean(aggregated, keepdims=True)) / np.sqrt(
        x.var(aggregated, keepdims=True) + epsilon
    )


def least_squares(z: np.ndarray, t: np.ndarray, axes: tuple[int, ...]):
    """Return scale and bias of each cell by numpy's least squares."""
    shape = tuple(z.shape[a] for a in axes)
    scale, bias = np.empty(shape), np.empty(shape)
    for cell in np.ndindex(shape):
        index: list = [slice(None)] * z.ndim
        for axis, i in zip(axes, cell, strict=True):
            index[axis] = i
        zs, ts = z[tuple(index)].ravel(), t[tuple(index)].ravel().astype("f8")
        ok = np.isfinite(zs) & np.isfinite(ts)
        design = np.stack([zs[ok], np.ones(ok.sum())], 1)
        (scale[cell], bias[cell]), *_ = np.linalg.lstsq(design, ts[ok], rcond=None)
    return scale, bias


CASES = {
    "batch": ({}, (0, 2, 3), (1,)),
    "batch, a scalar": ({"scale_axes": "none"}, (0, 2, 3), ()),
    "batch, per element": ({"scale_axes": "CHW"}, (0, 2, 3), (1, 2, 3)),
    "instance": ({"mode": "instance"}, (2, 3), (1,)),
    "layer": ({"mode": "layer", "aggregate": "CHW"}, (1, 2, 3), (1, 2, 3)),
    "overlapping partly": (
        {"mode": "custom", "aggregate": "NH", "scale_axes": "HW"}, (0, 2), (2, 3)
    ),
    "per observation": ({"mode": "custom", "aggregate": "CHW", "scale_axes": "N"}, (1, 2, 3), (0,)),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("elements", [1 << 20, 60])
def test_numpy_least_squares_for_any_axes(tmp_path, case, elements):
    options, aggregated, axes = CASES[case]
    x, t = store(tmp_path, "x", X), store(tmp_path, "t", T, "zarr3")
    with small_blocks(elements):
        found = normcli.learn(x, t, layout="NCHW", **options)
    scale, bias = least_squares(normalized(X, aggregated), T, axes)
    assert found.affine.scale.shape == scale.shape
    np.testing.assert_allclose(found.affine.scale, scale, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(found.affine.bias, bias, rtol=1e-11)
    assert found.report.learned["pairs"] == X.size


def test_groups_of_channels(tmp_path):
    x = RANDOM.normal(2, 3, (5, 6, 4, 4))
    t = x * 2 + 1 + RANDOM.normal(size=x.shape)
    names = store(tmp_path, "x", x), store(tmp_path, "t", t)
    z = normalized(x.reshape(5, 2, 3, 4, 4), (2, 3, 4)).reshape(x.shape)
    scale, bias = least_squares(z, t, (1,))
    for elements in (1 << 20, 40):
        with small_blocks(elements):
            found = normcli.learn(*names, layout="NCHW", mode="group", groups=2)
        np.testing.assert_allclose(found.affine.scale, scale, rtol=1e-11)
        np.testing.assert_allclose(found.affine.bias, bias, rtol=1e-11)


LEARNED = {
    "batch": {},
    "instance": {"mode": "instance", "l2": 0.5},
    "layer": {"mode": "layer", "aggregate": "CHW", "bias_bounds": "0,5"},
    "sgd": {"solver": "sgd", "batch_size": 5, "epochs": 3, "momentum": 0.5, "learning_rate": 0.1},
    "sgd, instance": {"solver": "sgd", "mode": "instance", "batch_size": 4, "epochs": 2},
}


@settings(max_examples=examples(25), deadline=None)
@given(
    storages=st.tuples(*[st.sampled_from(STORAGES)] * 2),
    chunks=st.tuples(*[st.tuples(*(st.integers(1, n) for n in SHAPE))] * 2),
    workers=st.integers(1, 4),
    memory=st.sampled_from(["9MiB", "3GiB"]),
    kind=st.sampled_from(sorted(LEARNED)),
    elements=st.sampled_from([64, 300]),
)
def test_the_same_bits_for_any_storage_chunks_workers_and_memory(
    storages, chunks, workers, memory, kind, elements
):
    with TemporaryDirectory() as folder, small_blocks(elements):
        plain = [store(Path(folder), name, v) for name, v in (("x0", X), ("t0", T))]
        names = [
            store(Path(folder), name, v, storage, chunk)
            for name, v, storage, chunk in zip("xt", (X, T), storages, chunks, strict=True)
        ]
        options = {"layout": "NCHW", **LEARNED[kind]}
        expected = normcli.learn(*plain, workers=1, **options)
        found = normcli.learn(*names, workers=workers, memory=memory, **options)
    assert len(expected.plan.passes[-1].grid) > 4
    for name in ("scale", "bias"):
        ours, theirs = (getattr(o.affine, name) for o in (found, expected))
        assert ours.tobytes() == theirs.tobytes()
    assert found.report.learned == expected.report.learned


def test_many_real_blocks(tmp_path):
    """Three blocks and a bit of a million elements, with types that differ."""
    x = np.random.default_rng(1).integers(0, 255, (3300, 1000), np.uint8)
    t = (x * 0.25 + 1000).astype("f8")
    names = store(tmp_path, "x", x, "zarr3", (700, 130)), store(tmp_path, "t", t)
    found = normcli.learn(*names, layout="NC", epsilon=0, workers=2)
    assert len(found.plan.passes[-1].grid) == 4
    z = normalized(x, (0,), 0)
    np.testing.assert_allclose(found.affine.scale, 0.25 * x.std(0, dtype="f8"), rtol=1e-13)
    np.testing.assert_allclose(found.affine.bias, t.mean(0), rtol=1e-14)
    assert found.report.learned["losses"][1] < 1e-18 * found.report.learned["losses"][0]
    assert z.shape == t.shape


@pytest.mark.parametrize("kind", ["stats", "moving", "mean"])
def test_given_statistics_are_those_that_are_used(tmp_path, kind):
    x, t = store(tmp_path, "x", X), store(tmp_path, "t", T)
    fit = {"momentum": "0.9", "batch_size": 4} if kind == "moving" else {}
    stats = normcli.fit(X_OTHER(tmp_path), tmp_path / "s.json", layout="NCHW", **fit)
    mean = stats.moving_mean if kind == "moving" else stats.mean
    variance = stats.moving_variance if kind == "moving" else stats.variance
    options = {"stats": tmp_path / "s.json"}
    if kind == "mean":
        np.save(tmp_path / "mean.npy", mean)
        np.save(tmp_path / "var.npy", variance)
        options = {"mean": tmp_path / "mean.npy", "variance": tmp_path / "var.npy"}
        options["layout"] = "NCHW"
    found = normcli.learn(x, t, **options)
    z = (X.astype("f8") - mean[:, None, None]) / np.sqrt(variance[:, None, None] + 1e-5)
    scale, bias = least_squares(z, T, (1,))
    np.testing.assert_allclose(found.affine.scale, scale, rtol=1e-10)
    np.testing.assert_allclose(found.affine.bias, bias, rtol=1e-10)
    assert len(found.plan.passes) == 1


def X_OTHER(folder: Path) -> str:
    return store(folder, "other", X * 2 - 1)


def test_more_groups_than_memory_holds_are_read_by_block(tmp_path, monkeypatch):
    # A million by itself: test_properties.py.
    hold_groups(monkeypatch, 150_000)
    x = np.random.default_rng(3).normal(size=(150_100, 2)).astype("f4")
    t = np.arange(2, dtype="f4") + 3 * x
    names = store(tmp_path, "x", x), store(tmp_path, "t", t)
    normcli.fit(names[0], tmp_path / "s.zarr", layout="NC", mode="layer")
    options = {"scale_axes": "none"}
    stored = normcli.learn(*names, tmp_path / "a.json", stats=tmp_path / "s.zarr", **options)
    fused = normcli.learn(*names, layout="NC", mode="layer", **options)
    np.testing.assert_allclose(stored.affine.scale, fused.affine.scale, rtol=1e-12)
    assert len(stored.plan.passes) == len(fused.plan.passes) == 1


def test_apply_with_what_was_learned_comes_as_close_as_the_loss_says(tmp_path):
    x, t = store(tmp_path, "x", X.astype("f8")), store(tmp_path, "t", T)
    found = normcli.learn(x, t, tmp_path / "a.npz", layout="NCHW", mode="instance")
    normcli.apply(x, tmp_path / "y.npy", layout="NCHW", mode="instance", affine=tmp_path / "a.npz")
    error = np.square(np.load(tmp_path / "y.npy") - T).sum()
    start, end = found.report.learned["losses"]
    assert error == pytest.approx(end, rel=1e-10)
    assert start == pytest.approx(np.square(normalized(X, (2, 3)) - T).sum(), rel=1e-10)
    assert end < start


@pytest.mark.parametrize("suffix", ["json", "npz", "h5", "zarr", "safetensors"])
def test_every_format_holds_the_same_bits_and_how_they_were_learned(tmp_path, suffix):
    x, t = store(tmp_path, "x", X), store(tmp_path, "t", T)
    place = tmp_path / f"a.{suffix}"
    found = normcli.learn(x, t, place, layout="NCHW", l2_scale=0.5, scale_l2_factor=2)
    back = read_affine(str(place))
    assert back.scale.tobytes() == found.affine.scale.tobytes()
    assert back.bias.tobytes() == found.affine.bias.tobytes()
    attrs = read_bundle(str(place)).attrs
    assert attrs["learning"]["scale"]["l2"] == 1
    assert attrs["learning"]["loss"] == found.report.learned["losses"][1]
    assert attrs["learning"]["target"][0]["path"].endswith("t.npy")
    assert attrs["normalization"]["spec"]["mode"] == "batch"
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["x.npy", "t.npy", place.name])


def test_one_term_goes_into_an_npy(tmp_path):
    x, t = store(tmp_path, "x", X), store(tmp_path, "t", T)
    found = normcli.learn(x, t, tmp_path / "b.npy", layout="NCHW", scale="none")
    assert found.affine.scale is None
    z = normalized(X, (0, 2, 3))
    np.testing.assert_allclose(np.load(tmp_path / "b.npy"), (T - z).mean((0, 2, 3)), rtol=1e-10)


def test_a_supplied_start_is_kept_where_it_is_frozen(tmp_path):
    x, t = store(tmp_path, "x", X), store(tmp_path, "t", T)
    np.save(tmp_path / "s.npy", np.array([[[2.0]], [[3]], [[4]]]))  # as MATLAB writes C x 1 x 1
    z = normalized(X, (0, 2, 3))
    for options in ({}, {"solver": "sgd", "epochs": 2000, "learning_rate": 0.7}):
        found = normcli.learn(
            x, t, layout="NCHW", scale=tmp_path / "s.npy", freeze="scale", **options
        )
        assert found.affine.scale.tolist() == [2, 3, 4]
        expected = (T - z * np.array([2.0, 3, 4])[:, None, None]).mean((0, 2, 3))
        np.testing.assert_allclose(found.affine.bias, expected, rtol=1e-10)


def test_initializers(tmp_path):
    x, t = store(tmp_path, "x", X), store(tmp_path, "t", T)
    options = {"layout": "NCHW", "solver": "sgd", "epochs": 1, "learning_rate": 1e-300}
    found = normcli.learn(
        x, t, scale_init="narrow-normal", bias_init="narrow-normal", seed=3, **options
    )
    again = normcli.learn(
        x, t, scale_init="narrow-normal", bias_init="narrow-normal", seed=3, **options
    )
    expected = np.random.default_rng(3).normal(0, 0.01, (2, 3))
    np.testing.assert_array_equal([found.affine.scale, found.affine.bias], expected)
    assert again.affine.scale.tolist() == found.affine.scale.tolist()
    found = normcli.learn(x, t, scale_init="zeros", bias_init="ones", **options)
    assert np.abs(found.affine.scale).max() < 1e-290
    assert found.affine.bias.tolist() == [1, 1, 1]


def test_pairs_without_two_finite_values_are_left_out(tmp_path):
    x, t = X.copy(), T.copy()
    x[0, 1, 2, :3] = np.nan
    t[3, :, 4, 4] = np.inf
    names = store(tmp_path, "x", x), store(tmp_path, "t", t)
    found = normcli.learn(*names, layout="NCHW", mode="batch")
    wide = x.astype("f8")
    mean, std = np.nanmean(wide, (0, 2, 3)), np.nanstd(wide, (0, 2, 3))
    z = (x.astype("f8") - mean[:, None, None]) / np.sqrt(std[:, None, None] ** 2 + 1e-5)
    scale, bias = least_squares(z, t, (1,))
    np.testing.assert_allclose(found.affine.scale, scale, rtol=1e-10)
    np.testing.assert_allclose(found.affine.bias, bias, rtol=1e-10)
    assert found.report.learned["skipped"] == 6
    with pytest.raises(DataPolicyError, match=r"t\.npy holds 3 NaN or infinite"):
        normcli.learn(store(tmp_path, "x2", X), names[1], layout="NCHW", nonfinite="error")
    with pytest.raises(DataPolicyError, match=r"x\.npy holds 3 NaN or infinite"):
        normcli.learn(names[0], store(tmp_path, "t2", T), layout="NCHW", nonfinite="error")
    with pytest.raises(DataPolicyError, match="scale and bias of 3 of 3 cells NaN"):
        normcli.learn(*names, layout="NCHW", nonfinite="propagate")


def test_a_constant_channel_keeps_its_scale_and_learns_its_bias(tmp_path):
    x = X.copy()
    x[:, 1] = 4.25
    told = []

    class Listener(Observer):
        def warn(self, message, hint=None):
            told.append(message)

    found = normcli.learn(
        store(tmp_path, "x", x), store(tmp_path, "t", T), layout="NCHW", observer=Listener()
    )
    assert found.affine.scale[1] == 1
    assert found.affine.bias[1] == pytest.approx(T[:, 1].mean(dtype="f8"), rel=1e-12)
    assert found.report.learned["undetermined"] == 1
    assert any("do not determine 1 of 3 cells" in message for message in told)


def test_the_loss_falls_and_is_told(tmp_path):
    x, t = store(tmp_path, "x", X), store(tmp_path, "t", T)
    told = []

    class Listener(Observer):
        def note(self, message):
            told.append(message)

    found = normcli.learn(
        x, t, layout="NCHW", solver="sgd", epochs=30, learning_rate=0.3, observer=Listener()
    )
    losses = found.report.learned["losses"]
    assert len(losses) == 31
    assert all(a > b for a, b in itertools.pairwise(losses[:10]))
    epochs = [int(m.split(" after ")[1].split()[0]) for m in told if m.startswith("loss ")]
    assert epochs == [0, 1, 2, 5, 10, 20, 30]


def test_steps_by_torch_on_the_elements(tmp_path):
    torch = pytest.importorskip("torch")
    x, t = store(tmp_path, "x", X), store(tmp_path, "t", T)
    options = {"batch_size": 5, "epochs": 4, "learning_rate": 0.05, "momentum": 0.9, "l2": 0.01}
    found = normcli.learn(x, t, layout="NCHW", solver="sgd", l2_convention="torch", **options)
    z, targets = (torch.from_numpy(v) for v in (normalized(X, (0, 2, 3)), T.astype("f8")))
    s, b = (torch.full((3, 1, 1), v, dtype=torch.float64, requires_grad=True) for v in (1.0, 0.0))
    optimizer = torch.optim.SGD([s, b], lr=0.05, momentum=0.9, weight_decay=0.01)
    for _ in range(4):
        for i in range(0, len(z), 5):
            optimizer.zero_grad()
            torch.nn.functional.mse_loss(s * z[i : i + 5] + b, targets[i : i + 5]).backward()
            optimizer.step()
    np.testing.assert_allclose(found.affine.scale, s.detach().numpy().ravel(), rtol=1e-10)
    np.testing.assert_allclose(found.affine.bias, b.detach().numpy().ravel(), rtol=1e-10)


class Stopping(Observer):
    """Ends the run after some tasks, as a signal would."""

    def __init__(self, after: int) -> None:
        self.left, self.resumed, self.kept_blocks = after, 0, None

    def advanced(self, progress):
        self.resumed += progress.blocks if progress.resumed else 0
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt

    def kept(self, blocks, total):
        self.kept_blocks = blocks


@pytest.mark.parametrize("kind", ["batch", "instance", "sgd"])
@pytest.mark.parametrize("after", [1, 6, 20])
def test_an_interrupted_run_goes_on_with_the_same_bits(tmp_path, kind, after):
    names = store(tmp_path, "x", X), store(tmp_path, "t", T)
    options = LearnOptions(layout="NCHW", **LEARNED[kind])
    place = str(tmp_path / "a.json")
    with small_blocks(64):
        whole = learn_arrays(*names, None, options, RunOptions(workers=1), Observer())
        first = Stopping(after)
        with pytest.raises(KeyboardInterrupt):
            learn_arrays(*names, place, options, RunOptions(workers=1), first)
        assert not Path(place).exists()
        assert first.kept_blocks
        second = Stopping(-1)
        found = learn_arrays(*names, place, options, RunOptions(workers=2), second)
    assert second.resumed == first.kept_blocks
    for name in ("scale", "bias"):
        expected = getattr(whole.affine, name).tobytes()
        assert getattr(found.affine, name).tobytes() == expected
        assert getattr(read_affine(place), name).tobytes() == expected
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.json", "t.npy", "x.npy"]


def test_an_interrupted_run_with_other_settings_begins_afresh(tmp_path):
    names = store(tmp_path, "x", X), store(tmp_path, "t", T)
    place = str(tmp_path / "a.json")
    with small_blocks(64):
        with pytest.raises(KeyboardInterrupt):
            learn_arrays(
                *names, place, LearnOptions(layout="NCHW"), RunOptions(workers=1), Stopping(20)
            )
        second = Stopping(-1)
        other = LearnOptions(layout="NCHW", l2=3.0)
        found = learn_arrays(*names, place, other, RunOptions(), second)
        afresh = learn_arrays(*names, None, other, RunOptions(), Observer())
    assert second.resumed == 0
    assert found.affine.scale.tobytes() == afresh.affine.scale.tobytes()


def test_a_dry_run_writes_nothing_and_agrees_with_the_run(tmp_path):
    names = store(tmp_path, "x", X), store(tmp_path, "t", T)
    dry = learn_arrays(
        *names,
        str(tmp_path / "a.json"),
        LearnOptions(layout="NCHW"),
        RunOptions(dry_run=True),
        Observer(),
    )
    assert dry.affine is None
    assert dry.report is None
    assert sorted(p.name for p in tmp_path.iterdir()) == ["t.npy", "x.npy"]
    real = normcli.learn(*names, tmp_path / "a.json", layout="NCHW")
    assert real.plan.passes == dry.plan.passes


@pytest.mark.parametrize(
    ("kind", "storage"),
    [
        ("instance", "npy-fortran"),
        ("batch", "zarr3"),
        pytest.param("batch", "npy", marks=pytest.mark.slow),
        pytest.param("instance", "h5-chunked", marks=pytest.mark.slow),
        pytest.param("instance", "npy", marks=pytest.mark.slow),
        pytest.param("batch", "npy-fortran", marks=pytest.mark.slow),
        pytest.param("instance", "zarr3", marks=pytest.mark.slow),
        pytest.param("batch", "h5-chunked", marks=pytest.mark.slow),
    ],
)
def test_memory_stays_within_the_plan(tmp_path, storage, kind):
    shape = (60, 3, 150, 200)
    x = np.random.default_rng(0).normal(size=shape).astype("f4")
    chunks = (8, 3, 50, 100)
    names = [store(tmp_path, name, x, storage, chunks) for name in "xt"]
    # What is imported by a first run is not of the blocks.
    few = [store(tmp_path, f"few-{name}", x[:8], storage, chunks) for name in "xt"]
    normcli.learn(*few, layout="NCHW", mode=kind, workers=1)
    tracemalloc.start()
    try:
        found = normcli.learn(*names, layout="NCHW", mode=kind, workers=1)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(found.plan.passes[-1].grid) > 4
    # Beside the blocks: what Python, zarr and the scheduler hold.
    assert peak < found.plan.peak_memory + 2 * 1024 * 1024
    assert peak > 8 * 1024 * 1024


def test_sums_that_outgrow_the_budget_are_refused_with_the_budget_that_would_do(tmp_path):
    x = np.zeros((4000, 300), "f4")
    x[::2] = 1
    names = store(tmp_path, "x", x), store(tmp_path, "t", x)
    options = {"layout": "NC", "solver": "sgd", "batch_size": 1, "epochs": 1}
    with pytest.raises(PlanError, match="sums of 1200000 cells") as caught:
        normcli.learn(*names, memory="64MiB", **options)
    would = caught.value.hint.split("--memory ")[1].split()[0]
    normcli.learn(*names, memory=would, **options)


def test_nothing_is_left_where_learning_fails(tmp_path):
    names = store(tmp_path, "x", X), store(tmp_path, "t", T)
    with pytest.raises(DataPolicyError, match="left float64"):
        normcli.learn(
            *names, tmp_path / "a.json", layout="NCHW", solver="sgd", learning_rate=1e9, epochs=99
        )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["t.npy", "x.npy"]
    assert load(names[0]).tobytes() == X.tobytes()


@pytest.mark.parametrize("kind", ["many cells", "journaled", "batches"])
def test_memory_of_the_sums_stays_within_the_plan(tmp_path, kind):
    """What was learned of each block is let go, also by the scheduler."""
    shape = {"many cells": (30, 300_000), "journaled": (40, 200_000), "batches": (20_000, 30)}
    x = np.random.default_rng(0).standard_normal(shape[kind], dtype="f4")
    names = store(tmp_path, "x", x), store(tmp_path, "t", x)
    options = {"layout": "NC", "mode": "layer", "workers": 1}
    if kind == "batches":
        options |= {"mode": "batch", "solver": "sgd", "batch_size": 2, "epochs": 1}
    tracemalloc.start()
    try:
        found = normcli.learn(*names, tmp_path / "a.npz", **options)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < found.plan.peak_memory + 2 * 1024 * 1024
    assert peak > 16 * 1024 * 1024


def test_a_run_that_was_complete_but_for_its_name_is_finished(tmp_path, monkeypatch):
    from normcli.publishing import Handover

    names = store(tmp_path, "x", X), store(tmp_path, "t", T)
    whole = normcli.learn(*names, layout="NCHW", bias="none")
    for suffix in ("json", "npy"):
        place = tmp_path / f"a.{suffix}"

        def stopped(self):
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(Handover, "carry_out", stopped)
            with pytest.raises(KeyboardInterrupt):
                normcli.learn(*names, place, layout="NCHW", bias="none")
        assert not place.exists()
        found = normcli.learn(*names, place, layout="NCHW", bias="none")
        assert place.exists()
        assert found.affine.bias is None
        assert found.affine.scale.tobytes() == whole.affine.scale.tobytes()
        assert found.report.learned == whole.report.learned
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.json", "a.npy", "t.npy", "x.npy"]


def test_sums_too_large_for_a_journal_leave_nothing_and_begin_afresh(tmp_path):
    names = store(tmp_path, "x", X), store(tmp_path, "t", T)
    options, place = LearnOptions(layout="NCHW"), str(tmp_path / "a.json")
    with small_blocks(64), mock.patch("normcli.planning.learning.JOURNALED_BYTES", 0):
        first = Stopping(20)
        with pytest.raises(KeyboardInterrupt):
            learn_arrays(*names, place, options, RunOptions(workers=1), first)
        assert first.kept_blocks is None
        assert sorted(p.name for p in tmp_path.iterdir()) == ["t.npy", "x.npy"]
        second = Stopping(-1)
        found = learn_arrays(*names, place, options, RunOptions(), second)
        whole = learn_arrays(*names, None, options, RunOptions(), Observer())
    assert second.resumed == 0
    assert found.affine.scale.tobytes() == whole.affine.scale.tobytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.json", "t.npy", "x.npy"]


@pytest.mark.parametrize("mode", ["batch", "instance"])
def test_missing_chunks_are_left_out_of_the_pairs_where_asked(tmp_path, mode):
    import zarr

    present = np.ones(SHAPE, bool)
    present[4:8, :, :, 5:] = False
    also = np.ones(SHAPE, bool)
    also[:, :, :4] = False
    names = []
    for name, values, kept, chunks in (
        ("x", X, present, (4, 3, 8, 5)), ("t", T, also, (12, 3, 4, 10))
    ):  # fmt: skip
        array = zarr.create_array(
            tmp_path / f"{name}.zarr", shape=SHAPE, chunks=chunks, dtype="f4", fill_value=9
        )
        array[...] = np.where(kept, values, 9)
        names.append(str(tmp_path / f"{name}.zarr"))
    axes = (0, 2, 3) if mode == "batch" else (2, 3)
    wide = np.where(present, X.astype("f8"), np.nan)
    z = wide - np.nanmean(wide, axes, keepdims=True)
    z /= np.sqrt(np.nanvar(wide, axes, keepdims=True) + 1e-5)
    scale, bias = least_squares(np.where(also, z, np.nan), T, (1,))
    with small_blocks(200):
        found = normcli.learn(*names, layout="NCHW", mode=mode, missing="omit")
        filled = normcli.learn(*names, layout="NCHW", mode=mode)
    np.testing.assert_allclose(found.affine.scale, scale, rtol=1e-10)
    np.testing.assert_allclose(found.affine.bias, bias, rtol=1e-10)
    assert found.report.learned["pairs"] == int((present & also).sum())
    assert filled.report.learned["pairs"] == X.size
