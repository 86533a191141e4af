"""What the plan says a block costs, against what reading and writing it takes."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from math import prod
from typing import Any

import h5py
import numpy as np
import pytest

from normcli.arrays.access import StoredPart
from normcli.arrays.hdf5 import _cache_bytes
from normcli.arrays.joined import JoinedSource
from normcli.arrays.manifest import Manifest
from normcli.arrays.opening import make_sink, open_source
from normcli.domain.array_info import ArrayInfo
from normcli.domain.exact_moments import most_limbs
from normcli.domain.geometry import Geometry, bind
from normcli.domain.grid import Block
from normcli.domain.layout import Layout
from normcli.domain.presets import make_spec
from normcli.domain.wide_moments import WideMoments
from normcli.engine.collectors import HeldMoments, HeldSums
from normcli.engine.run import RegionTrees
from normcli.engine.tasks import MeasureJob, measure_run
from normcli.engine.walk import Walk
from normcli.kernels.numba_memory import Memory
from normcli.kernels.numba_sums import new_sums, widths_of
from normcli.kernels.select import kernels
from normcli.planning.memory import (
    EXACT_COPIES,
    KEPT_COPIES,
    MIB,
    MOMENTS_BYTES,
    TILE_BYTES,
    cache_cost,
    exact_bytes,
    method_cost,
    parts_cost,
    read_cost,
    write_cost,
)
from normcli.planning.planner import Resources, plan_fit, plan_part
from tests.benchmarks.harness import run_process
from tests.examples import pairs

SHAPE = (64, 512, 64)  # 8 MiB of float32
CHUNK = (32, 512, 32)  # 2 MiB
ROOM = 256 * 1024  # what Python and h5py hold besides elements

FILTERS = {
    "none": {},
    "gzip": {"compression": "gzip", "compression_opts": 1},
    "shuffle": {"shuffle": True},
    "all": {"shuffle": True, "compression": "gzip", "compression_opts": 1, "fletcher32": True},
    "lzf": {"shuffle": True, "compression": "lzf", "fletcher32": True},
    "zstd": None,
    "blosc": None,
    "bitshuffle": None,
}


def options(name):
    found = FILTERS[name]
    if found is None:
        plugin = pytest.importorskip("hdf5plugin")
        kind = {"zstd": plugin.Zstd, "blosc": plugin.Blosc, "bitshuffle": plugin.Bitshuffle}[name]
        return {**kind(), "shuffle": name == "zstd"}
    return found


def peak(work):
    """Bytes that `work` had allocated at most, by Python and numpy."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def values():
    # Noise of the low bits makes the stored chunks nearly as large as the decoded ones.
    return np.random.default_rng(0).standard_normal(SHAPE, dtype=np.float32)


BLOCKS = {
    "whole chunks": ((0, 0, 0), (32, 512, 64)),
    "parts of chunks": ((16, 0, 16), (48, 512, 48)),
    "a sliver of each": ((31, 0, 31), (33, 512, 33)),
}


@pytest.mark.parametrize(("filters", "part"), pairs(FILTERS, BLOCKS))
def test_reading_hdf5_takes_no_more_than_declared(tmp_path, filters, part):
    if filters == "bitshuffle":
        # Without the package, HDF5's own plugin reads these, and no chunk is decoded around it.
        pytest.importorskip("bitshuffle")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("a", data=values(), chunks=CHUNK, **options(filters))
    source = open_source(str(tmp_path / "x.h5"))
    source.read(Block(0, (63, 0, 0), (64, 512, 32)))  # opens the file and imports the decoders
    source._handle.get().direct._kept.clear()
    block = Block(0, *BLOCKS[part])
    direct = source._handle.get().direct
    assert direct is not None
    taken = peak(lambda: source.read(block))
    kept = sum(chunk.nbytes for chunk in direct._kept.values())
    assert kept <= cache_cost(source.info) == 4 * 2 * MIB
    assert taken - kept <= read_cost(source.info, block.shape) + ROOM


@pytest.mark.parametrize("chunk", [(1, 8, 8), (64, 512, 8), (64, 512, 64)])
@pytest.mark.parametrize("copies", [1, 20])
def test_kept_chunks_are_declared(chunk, copies):
    info = ArrayInfo((64 * copies, *SHAPE[1:]), np.dtype("f8"), (chunk[0] * copies, *chunk[1:]))
    kept = _cache_bytes(info)
    assert cache_cost(replace(info, storage="hdf5")) == (kept if kept > MIB else 0)
    assert cache_cost(replace(info, storage="zarr")) == 0
    assert cache_cost(replace(info, storage="hdf5", chunks=None)) == 0


@pytest.mark.parametrize("filters", ["none", "gzip", "shuffle", "all"])
def test_writing_hdf5_takes_no_more_than_declared(tmp_path, filters):
    info = ArrayInfo(SHAPE, np.dtype("f4"), CHUNK, storage="hdf5", codecs=options(filters))
    sink = make_sink(str(tmp_path / "x.h5/a"), {"": info})
    sink.create()
    block = Block(0, (0, 0, 0), (32, 512, 64))
    given = values()[block.slices].copy()
    # The block is there already.
    taken = peak(lambda: sink.write("", block, given)) + given.nbytes
    assert taken <= write_cost(info, block.shape) + ROOM
    sink.discard()


@pytest.mark.parametrize("orders", ["CC", "CF", "FC", "FF"])
def test_joined_inputs_take_no_more_than_declared(tmp_path, orders):
    for number, order in enumerate(orders):
        np.save(tmp_path / f"{number}.npy", np.asarray(values(), order=order))
    names = [str(tmp_path / f"{number}.npy") for number in range(2)]
    source = JoinedSource([open_source(name) for name in names], 0)
    block = Block(0, (8, 0, 0), (120, 512, 64))
    declared = read_cost(source.info, block.shape) + TILE_BYTES
    taken = peak(lambda: source.read(block))
    assert taken <= declared + ROOM
    assert taken > declared // 2  # it would not do without the parts


@pytest.mark.parametrize("orders", ["C", "F", "CF", "FF"])
def test_measuring_batches_takes_no_more_than_declared(tmp_path, orders):
    for number, order in enumerate(orders):
        np.save(tmp_path / f"{number}.npy", np.asarray(values(), order=order))
    sources = [open_source(str(tmp_path / f"{number}.npy")) for number in range(len(orders))]
    source = sources[0] if len(sources) == 1 else JoinedSource(sources, 0)
    spec = make_spec(Layout("NSC"), np.dtype("f4"), mode="batch").by_batches(48)
    geometry = bind(spec, source.info.shape)
    plan = plan_fit(source.info, geometry, Resources(1, 1 << 30), "numpy", 64, moving_axis=0)
    (work,) = plan.passes
    walk = Walk(work.grid, (0, *(axis for axis in geometry.kept if axis)))
    for run in list(walk.runs())[:2]:
        job = MeasureJob(source, geometry, walk, "numpy", merged=True)
        taken = peak(lambda job=job, run=run: measure_run(job, run))
        assert taken <= work.block_memory + ROOM


@pytest.mark.parametrize("kernel", ["numpy", "numba"])
@pytest.mark.parametrize(
    ("dtype", "shape"),
    [
        ("u1", (64, 300_000)),
        ("f4", (64, 300_000)),
        ("f8", (3, 300_000)),
        pytest.param("u1", (3, 300_000), marks=pytest.mark.slow),
        pytest.param("f4", (3, 300_000), marks=pytest.mark.slow),
        pytest.param("f8", (64, 300_000), marks=pytest.mark.slow),
    ],
)
def test_measuring_many_groups_takes_no_more_than_declared(tmp_path, shape, dtype, kernel):
    x = np.random.default_rng(0).normal(100, 20, shape).astype(dtype)
    np.save(tmp_path / "x.npy", x)
    source = open_source(str(tmp_path / "x.npy"))
    geometry = bind(make_spec(Layout("NC"), x.dtype, mode="batch"), shape)
    plan = plan_fit(source.info, geometry, Resources(1, 1 << 30), kernel, geometry.group_count)
    (work,) = plan.passes
    assert len(work.grid) > 1
    walk = Walk(work.grid, geometry.kept)
    # A block of the height of the array: its groups are whole, and none waits for its neighbours.
    assert walk.ranks == 1
    job = MeasureJob(source, geometry, walk, kernel)
    measure_run(job, next(walk.runs()))  # compiles
    for run in list(walk.runs())[:2]:
        taken = peak(lambda job=job, run=run: measure_run(job, run))
        results = run.count * prod(work.grid.block_shape[1:]) * MOMENTS_BYTES
        assert taken <= work.block_memory + results + ROOM


@pytest.mark.parametrize("dtype", ["u1", "i4", "i8", "f2", "f4", "f8"])
def test_the_limbs_of_a_group_are_declared(dtype):
    dtype = np.dtype(dtype)
    memory = Memory.of(np.zeros(1, dtype))
    sums = new_sums(1000, widths_of(memory.flat.dtype, memory.half)[0], memory.wide)
    arrays = (sums.count, sums.bad, sums.low, sums.high, sums.base, sums.total, sums.squares)
    assert exact_bytes(dtype) * 1000 == sum(array.nbytes for array in arrays)


@pytest.mark.parametrize("kernel", ["numpy", "numba"])
@pytest.mark.parametrize(("dtype", "pieces"), pairs(["i8", "u1", "f4", "f8"], [1, 4]))
def test_kept_sums_take_no_more_than_declared(dtype, kernel, pieces):
    groups = 1 << 16
    x = np.random.default_rng(0).normal(100, 20, (32, groups)).astype(dtype)
    axes = bind(make_spec(Layout("NC"), x.dtype, mode="batch"), x.shape)
    run = kernels(kernel)
    size = groups // pieces
    starts = range(0, groups, size)
    parts = [((slice(a, a + size),), run.measure(x[:, a : a + size], axes, (0, a))) for a in starts]
    run.finish(parts[0][1])  # compiles

    def keep():
        held = HeldSums((groups,))
        for index, sums in (*parts, *parts):
            held.put(0, index, sums)
        run.finish(held.sums.canonical())

    assert peak(keep) <= groups * (KEPT_COPIES * exact_bytes(x.dtype) + MOMENTS_BYTES) + ROOM


METHODS = {
    "robust": {"method": "robust"},
    "l1": {"method": "lp", "p": 1.0},
    "l3": {"method": "lp", "p": 3.0},
}


@pytest.mark.parametrize(("which", "dtype"), pairs(METHODS, ["i2", "f4", "f8"]))
@pytest.mark.parametrize(("shape", "mode"), [((3_000_000, 2), "batch"), ((400, 20_000), "layer")])
def test_what_methods_need_takes_no_more_than_declared(tmp_path, shape, mode, dtype, which):
    pytest.importorskip("datasketches")
    settings: dict[str, Any] = METHODS[which]
    x = (np.random.default_rng(0).standard_normal(shape, "f4") * 100).astype(dtype)
    if dtype == "f4":
        x[1, 1] = np.nan
    np.save(tmp_path / "x.npy", x)
    source = open_source(str(tmp_path / "x.npy"))
    spec = make_spec(Layout("NC"), x.dtype, mode=mode, **settings)
    geometry = bind(spec, shape)
    merged = mode == "batch"
    method = method_cost(spec, geometry, merged, x.dtype)
    groups = geometry.group_count
    plan = plan_fit(source.info, geometry, Resources(1, 1 << 30), "numpy", groups, method=method)
    (work,) = plan.passes
    walk = Walk(work.grid, geometry.kept)
    assert len(walk) > 1
    job = MeasureJob(source, geometry, walk, "numpy", merged, spec)
    held: Any = HeldSums if merged else HeldMoments
    results: list[Any] = []

    def measured(run):
        results.append(measure_run(job, run))

    for number, run in enumerate(walk.runs()):
        if number > 1:
            measured(run)
            continue
        taken = peak(lambda run=run: measured(run))
        found = run.count * prod(geometry.statistics_shape) * (MOMENTS_BYTES + method.arrays)
        assert taken <= work.block_memory + found + ROOM

    def put_together():
        kept = held(geometry.statistics_shape, spec if merged else spec.method)
        trees = RegionTrees(walk, kept)
        for result in results:
            trees.add(result)

    given = sum(part.moments.nbytes for result in results for part in result.regions)
    assert peak(put_together) + (given if merged else 0) <= plan.statistics_memory + ROOM


@pytest.mark.parametrize("base", [0, 2**60])
@pytest.mark.parametrize("kernel", ["numpy", "numba"])
def test_exact_extremes_take_no_more_than_declared(tmp_path, kernel, base):
    shape = (24, 200_000)
    x = base + np.random.default_rng(0).integers(0, 1000, shape)
    np.save(tmp_path / "x.npy", x)
    source = open_source(str(tmp_path / "x.npy"))
    spec = make_spec(Layout("NC"), x.dtype, mode="batch", method="minmax")
    geometry = bind(spec, shape)
    groups = geometry.group_count
    method = method_cost(spec, geometry, True, x.dtype)
    given = (source.info, geometry, Resources(1, 1 << 30), kernel, groups)
    plan = plan_fit(*given, sums_held=groups, method=method)
    (work,) = plan.passes
    walk = Walk(work.grid, geometry.kept)
    job = MeasureJob(source, geometry, walk, kernel, True, spec)
    measure_run(job, next(walk.runs()))  # compiles
    results = []
    for number, run in enumerate(walk.runs()):
        if number:
            results.append(measure_run(job, run))
            continue
        taken = peak(lambda run=run: results.append(measure_run(job, run)))
        assert taken <= work.block_memory + ROOM
    run = kernels(kernel)
    moments: list[Any] = []

    def put_together():
        held = HeldSums(geometry.statistics_shape, spec, x.dtype)
        trees = RegionTrees(walk, held)
        for result in results:
            trees.add(result)
        moments.append(held.sums.canonical().finish(run.finish))

    size = sum(part.moments.nbytes for result in results for part in result.regions)
    assert peak(put_together) + size <= plan.statistics_memory + ROOM
    assert isinstance(moments[0], WideMoments) == bool(base)


@pytest.mark.parametrize(("dtype", "more"), [("i8", 16), ("u8", 16), ("i4", 0), ("f8", 0)])
def test_exact_extremes_are_part_of_the_plan(dtype, more):
    """Two float64 arrays beside the exact sums, and beside the rounded moments."""
    info, plans = ArrayInfo((64, 1000), np.dtype(dtype)), {}
    for name in ("zscore", "minmax"):
        spec = make_spec(Layout("NC"), info.dtype, mode="batch", method=name)
        axes = bind(spec, info.shape)
        cost = method_cost(spec, axes, True, info.dtype)
        assert (cost.sums, cost.arrays) == ((more, more) if name == "minmax" else (0, 0))
        given = (info, axes, Resources(1, 1 << 30), "numpy", 1000)
        plans[name] = plan_fit(*given, sums_held=1000, method=cost)
    assert (
        plans["minmax"].statistics_memory - plans["zscore"].statistics_memory
        == 1000 * (KEPT_COPIES + 2) * more
    )
    (one,), (other,) = plans["minmax"].passes, plans["zscore"].passes
    assert one.block_memory - other.block_memory == 1000 * (EXACT_COPIES + 1) * more


def test_kept_sums_are_part_of_the_plan():
    info = ArrayInfo((64, 1000), np.dtype("f4"))
    axes = bind(make_spec(Layout("NC"), info.dtype, mode="batch"), info.shape)
    given = Resources(1, 1 << 30)
    without = plan_fit(info, axes, given, "numpy", 1000)
    kept = plan_fit(info, axes, given, "numpy", 1000, sums_held=1000)
    more = 1000 * KEPT_COPIES * exact_bytes(info.dtype)
    assert kept.statistics_memory - without.statistics_memory == more
    boxes = [Block(0, (0, 0), (32, 1000))]
    part = plan_part(info, axes, given, "numpy", 1000, boxes)
    assert part.statistics_memory == kept.statistics_memory


def test_the_whole_process_stays_within_its_plan(tmp_path):
    rng = np.random.default_rng(0)
    shape, chunk = (32, 512, 512), (8, 512, 512)  # chunks of 8 MiB
    with h5py.File(tmp_path / "x.h5", "w") as file:
        data = file.create_dataset("a", shape, "f4", chunks=chunk, shuffle=True, compression="gzip")
        for first in range(0, shape[0], 8):
            data[first : first + 8] = rng.standard_normal(chunk, dtype=np.float32)
        file.create_dataset("small", data=data[:1, :8, :8], chunks=True, compression="gzip")

    def fit(name):
        where = str(tmp_path / "x.h5") + name
        fixed = ("--layout", "NSC", "-j", "2", "--overwrite", "-q")
        return run_process("fit", where, "-o", str(tmp_path / "s.json"), *fixed).peak_mib

    info = ArrayInfo(shape, np.dtype("f4"), chunk, storage="hdf5")
    declared = cache_cost(info) + 2 * (read_cost(info, (16, 512, 512)) + TILE_BYTES)
    assert fit("/a") - fit("/small") <= declared / MIB + 16


@pytest.mark.parametrize(("dtype", "most"), [("f8", 1656), ("f4", 288)])
def test_sums_of_all_magnitudes_are_bounded(dtype, most):
    """The sums of one group in their canonical form, whatever its elements are."""
    kind = np.dtype(dtype)
    assert 8 * (5 + sum(most_limbs(kind))) == most
    info = np.finfo(kind)
    values = np.array([info.max, -info.max, info.smallest_subnormal, 1.5], kind)
    found = kernels("numpy").measure(values, bind_all(values), (0,)).canonical()
    assert exact_bytes(kind) < found.nbytes <= most


def bind_all(values):
    return Geometry(values.shape, (), (), values.shape)


@pytest.mark.parametrize("count", [1000, 40_000])
def test_stored_parts_are_declared(tmp_path, count):
    """One entry in the journal for each chunk, and in the manifest while that is sorted."""
    info = ArrayInfo((count, 4), np.dtype("f4"), (1, 4), storage="zarr")

    def work():
        parts = [StoredPart(f"c/{n}/399", 16 + n, n * 2654435761 % 2**32) for n in range(count)]
        Manifest.of("zarr", {"": info}, (*parts, *()), {}, "1")

    assert 0.8 * parts_cost(info) < peak(work) <= parts_cost(info) + ROOM
    assert parts_cost(replace(info, chunks=None)) == 0
    assert parts_cost(replace(info, shards=(100, 4))) == parts_cost(info) // 100
