"""What every plan promises, whatever the array, the axes and the budget."""

from __future__ import annotations

import re
from dataclasses import replace
from math import prod

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from normcli.domain.array_info import ArrayInfo
from normcli.domain.geometry import bind
from normcli.domain.grid import Grid
from normcli.domain.layout import Layout
from normcli.domain.presets import make_spec
from normcli.errors import PlanError
from normcli.planning import blocks
from normcli.planning.memory import MIB
from normcli.planning.passes import MOVING_UNIT_BYTES
from normcli.planning.planner import Resources, plan_apply, plan_fit
from tests.examples import examples

DTYPES = [np.dtype(t) for t in ("u1", "f2", "f4", "f8")]
GIB = 1024 * MIB


@st.composite
def arrays(draw, small: bool = False, storages=("npy", "hdf5", "zarr")) -> ArrayInfo:
    """An array that nobody needs to hold: plans read no element."""
    ndim = draw(st.integers(1, 4))
    largest = 7 if small else [10**7, 5000, 600, 200][ndim - 1]
    shape = tuple(draw(st.integers(1, largest)) for _ in range(ndim))
    storage = draw(st.sampled_from(storages))
    dtype = draw(st.sampled_from(DTYPES))
    chunks = shards = None
    if storage == "zarr" or (storage == "hdf5" and draw(st.booleans())):
        chunks = tuple(draw(st.integers(1, n)) for n in shape)
        assume(prod(chunks) * dtype.itemsize < 64 * MIB)
    if storage == "zarr" and chunks and draw(st.booleans()):
        shards = tuple(c * draw(st.integers(1, 3)) for c in chunks)
        assume(prod(shards) * dtype.itemsize < 64 * MIB)
    fortran = storage == "npy" and draw(st.booleans())
    return ArrayInfo(shape, dtype, chunks, shards, storage=storage, fortran_order=fortran)


@st.composite
def geometries(draw, info: ArrayInfo):
    """Any choice of kept axes, sometimes with one of them in segments."""
    letters = "NCSS"[: info.ndim]
    axes = draw(
        st.lists(st.integers(0, info.ndim - 1), unique=True, min_size=1, max_size=info.ndim)
    )
    spec = make_spec(Layout(letters), info.dtype, mode="custom", aggregate=",".join(map(str, axes)))
    if 0 in axes and draw(st.booleans()):
        spec = spec.by_batches(draw(st.integers(1, 40)))
    elif 1 not in axes and info.ndim > 1 and draw(st.booleans()):
        extent = info.shape[1]
        divisors = [g for g in range(1, min(extent, 50) + 1) if extent % g == 0]
        spec = replace(spec, divided_axis=1, groups=draw(st.sampled_from(divisors)))
    return bind(spec, info.shape), 0 in spec.aggregated


def sink_for(info: ArrayInfo, draw) -> ArrayInfo:
    if draw(st.booleans()):
        return replace(info, dtype=np.dtype("f4"))
    chunks = tuple(draw(st.integers(1, n)) for n in info.shape)
    assume(prod(chunks) * 4 < 64 * MIB)
    return ArrayInfo(info.shape, np.dtype("f4"), chunks, storage="zarr")


def check_grid(grid: Grid, unit: tuple[int, ...] | None) -> None:
    """Each element lies in one block, because blocks tile each axis; blocks hold whole units."""
    for axis, (n, b, count) in enumerate(
        zip(grid.shape, grid.block_shape, grid.counts, strict=True)
    ):
        assert 1 <= b <= n
        assert (count - 1) * b < n <= count * b
        if unit is not None:
            assert b % unit[axis] == 0 or b == n, f"axis {axis}: {b} cuts units of {unit[axis]}"


@given(st.data())
@settings(max_examples=examples(150), deadline=None)
def test_apply_plans(data):
    source = data.draw(arrays())
    sink = sink_for(source, data.draw)
    geometry, per_dataset = data.draw(geometries(source))
    known = data.draw(st.booleans())
    budget = data.draw(st.integers(MIB, 2 * GIB))
    held = data.draw(st.sampled_from([0, geometry.group_count]))

    def plan(memory: int, workers: int = 4):
        return plan_apply(
            source, sink, geometry, Resources(workers, memory), "numpy", held, known, per_dataset
        )

    try:
        made = plan(budget)
    except PlanError as error:
        budget = followed(error)
        made = plan(budget)
    assert made.peak_memory <= budget
    assert made.workers >= 1
    assert made.bytes_read == len(made.passes) * source.nbytes
    assert made.bytes_written == sink.nbytes
    kinds = [p.kind for p in made.passes]
    assert kinds in (["apply"], ["fused"], ["measure", "apply"])
    assert (kinds == ["apply"]) is known
    assert made.fused is (kinds == ["fused"])
    if per_dataset and not known:
        assert len(kinds) == 2
    for work in made.passes:
        check_grid(work.grid, sink.write_unit if work.kind != "measure" else None)
    if made.fused:
        block = made.passes[0].grid.block_shape
        assert all(block[axis] == source.shape[axis] for axis in geometry.aggregated)
        for axis in geometry.kept:
            segment = geometry.segments[axis]
            assert block[axis] % segment == 0 or block[axis] == source.shape[axis]
    for workers in (1, 2, 64):
        other = plan(budget, workers)
        assert [p.grid for p in other.passes] == [p.grid for p in made.passes]
        assert [p.kind for p in other.passes] == kinds
        assert other.workers <= workers


@given(st.data())
@settings(max_examples=examples(100), deadline=None)
def test_fit_plans(data):
    source = data.draw(arrays())
    geometry, _ = data.draw(geometries(source))
    budget = data.draw(st.integers(MIB, 2 * GIB))

    def plan(memory: int, workers: int = 4):
        return plan_fit(source, geometry, Resources(workers, memory), "numpy", geometry.group_count)

    try:
        made = plan(budget)
    except PlanError as error:
        budget = followed(error)
        made = plan(budget)
    assert made.peak_memory <= budget
    (work,) = made.passes
    assert (work.kind, made.bytes_read, made.bytes_written) == ("measure", source.nbytes, 0)
    check_grid(work.grid, None)
    for axis in geometry.kept:
        b = work.grid.block_shape[axis]
        assert b % geometry.segments[axis] == 0 or b == source.shape[axis]
    assert plan(budget, 1).passes == plan(budget, 32).passes == made.passes


def followed(error: PlanError) -> int:
    """The budget that the hint of an error says would do."""
    found = re.fullmatch(r"--memory (\d+)MiB would do\.", error.hint or "")
    assert found, error.hint
    return int(found[1]) * MIB


@given(arrays(small=True))
@settings(max_examples=examples(50), deadline=None)
def test_each_element_lies_in_exactly_one_block(info):
    geometry = bind(
        make_spec(Layout("NCSS"[: info.ndim]), info.dtype, mode="custom", aggregate="0"), info.shape
    )
    plan = plan_apply(info, info, geometry, Resources(2, GIB), "numpy", 0, True, False)
    unit = blocks.unit_shape(info, (info.write_unit,))
    # The planner makes one block of so small an array; the grid of single units is the hard one.
    for grid in (plan.passes[0].grid, Grid(info.shape, unit)):
        seen = np.zeros(info.shape, int)
        for number, block in enumerate(grid):
            assert block.number == number
            assert grid.block(number) == block
            assert block.size == prod(block.shape)
            seen[block.slices] += 1
        assert (seen == 1).all()
        assert len(grid) == prod(grid.counts)


@given(st.data())
@settings(max_examples=examples(100), deadline=None)
def test_moving_plans_follow_the_shape_alone(data):
    shape = tuple(data.draw(st.integers(1, n)) for n in (3000, 40, 120))
    dtype = data.draw(st.sampled_from(DTYPES))
    size = data.draw(st.integers(1, 500))
    spec = make_spec(Layout("NCS"), dtype).by_batches(size)
    geometry = bind(spec, shape)

    def plan(info: ArrayInfo, memory: int, workers: int = 2):
        return plan_fit(
            info, geometry, Resources(workers, memory), "numpy", shape[1], moving_axis=0
        ).passes[0]

    plain = ArrayInfo(shape, dtype)
    chunks = tuple(data.draw(st.integers(1, n)) for n in shape)
    stored = [
        plain,
        replace(plain, fortran_order=True),
        replace(plain, storage="hdf5"),
        replace(plain, storage="hdf5", chunks=chunks),
        replace(plain, storage="zarr", chunks=chunks),
        replace(plain, storage="zarr", chunks=chunks, shards=tuple(2 * c for c in chunks)),
    ]
    grids = {plan(info, 4 * GIB).grid for info in stored}
    assert len(grids) == 1
    (grid,) = grids
    # A block is whole along the batch: batches are never cut, only what lies beside them.
    assert grid.block_shape[0] % geometry.segments[0] == 0 or grid.block_shape[0] == shape[0]
    assert plan(plain, 4 * GIB, 1).grid == plan(plain, 4 * GIB, 64).grid == grid
    try:
        tight = plan(plain, 5 * MIB).grid
    except PlanError as error:
        tight = plan(plain, followed(error)).grid
    # A budget may only change how many whole batches share a block.
    assert tight.block_shape[1:] == grid.block_shape[1:]
    assert tight.block_shape[0] % geometry.segments[0] == 0 or tight == grid


def test_a_huge_batch_is_cut_beside_the_batch_axis():
    shape = (64, 3, 4096, 4096)
    spec = make_spec(Layout("NCHW"), np.dtype("f4")).by_batches(32)
    info = ArrayInfo(shape, np.dtype("f4"), (1, 1, 512, 512), storage="zarr")
    plan = plan_fit(info, bind(spec, shape), Resources(2, 8 * GIB), "numba", 3, moving_axis=0)
    block = plan.passes[0].grid.block_shape
    assert block[0] == 32
    assert prod(block) * 4 <= MOVING_UNIT_BYTES


def test_a_stream_is_read_once_and_in_order():
    info = ArrayInfo((1000, 8, 32, 32), np.dtype("f4"), storage="stream")
    sink = replace(info, storage="npy")
    instance = bind(make_spec(Layout("NCHW"), info.dtype, mode="instance"), info.shape)
    plan = plan_apply(info, sink, instance, Resources(8, GIB), "numpy", 8000, False, False)
    assert (plan.fused, plan.workers) == (True, 1)
    assert plan.passes[0].grid.block_shape[1:] == info.shape[1:]
    batch = bind(make_spec(Layout("NCHW"), info.dtype), info.shape)
    with pytest.raises(PlanError, match="a pipe can be read only once") as caught:
        plan_apply(info, sink, batch, Resources(8, GIB), "numpy", 8, False, True)
    assert "--stats" in caught.value.hint
    fit = plan_fit(info, batch, Resources(8, GIB), "numpy", 8)
    assert fit.workers == 1
    assert fit.passes[0].grid.block_shape[1:] == info.shape[1:]
    known = plan_apply(info, sink, batch, Resources(8, GIB), "numpy", 8, True, True)
    assert known.workers == 1


def test_two_passes_where_one_group_outgrows_a_block():
    info = ArrayInfo((4, 2**22), np.dtype("f4"))
    geometry = bind(make_spec(Layout("NS"), info.dtype, mode="instance"), info.shape)
    ample = plan_apply(info, info, geometry, Resources(2, GIB), "numpy", 4, False, False)
    assert ample.fused
    tight = plan_apply(info, info, geometry, Resources(2, 16 * MIB), "numpy", 4, False, False)
    assert [p.kind for p in tight.passes] == ["measure", "apply"]
    assert "one group of 16 MiB outgrows a block" in tight.reason
    assert tight.peak_memory <= 16 * MIB


def test_the_error_names_sizes():
    info = ArrayInfo((10, 4096, 4096), np.dtype("f4"), (1, 4096, 4096), storage="zarr")
    geometry = bind(make_spec(Layout("CSS"), info.dtype), info.shape)
    with pytest.raises(PlanError) as caught:
        plan_apply(info, info, geometry, Resources(2, 10 * MIB), "numpy", 10, True, True)
    assert "1x4096x4096 float32" in caught.value.message
    assert "10 MiB" in caught.value.message


def test_blocks_are_about_as_large_as_meant():
    info = ArrayInfo((100000, 64, 64), np.dtype("f4"))
    assert blocks.grow(info, (1, 1, 1)) == (1024, 64, 64)
    fortran = replace(info, fortran_order=True)
    assert blocks.grow(fortran, (1, 1, 1)) == (100000, 41, 1)
    assert blocks.shrink(info, (100000, 64, 64), {0}, MOVING_UNIT_BYTES) == (100000, 2, 64)
    chunked = replace(info, chunks=(10, 64, 5), storage="zarr")
    unit = blocks.unit_shape(chunked, (chunked.chunks, (4, 1, 1)))
    assert unit == (20, 64, 5)
    grown = blocks.grow(chunked, unit)
    assert grown == (1020, 64, 64)
