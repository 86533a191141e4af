"""The order of arrival changes no bit: the merge tree, the walk and the moving fold."""

from __future__ import annotations

import functools
from dataclasses import fields
from math import prod

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from normcli.domain.exact_moments import ExactMoments
from normcli.domain.geometry import Geometry, bind
from normcli.domain.grid import Grid
from normcli.domain.layout import Layout
from normcli.domain.moments import Moments
from normcli.domain.moving_average import MovingRule, MovingStatistics
from normcli.domain.presets import make_spec
from normcli.engine.collectors import HeldMoments, MovingFold
from normcli.engine.events import Progress
from normcli.engine.merge_tree import MergeTree
from normcli.engine.run import RegionTrees
from normcli.engine.tasks import Region, RunResult
from normcli.engine.walk import TASKS_WANTED, Run, Walk
from normcli.kernels.select import kernels
from tests.examples import examples

measure = kernels("numpy").measure


def some_moments(seed: int, shape: tuple[int, ...] = ()) -> ExactMoments:
    """Return moments of up to four elements a group, of magnitudes that hardly overlap."""
    rng = np.random.default_rng(seed)
    values = rng.normal(1e3, 7.0, (*shape, 4)) * 10.0 ** rng.integers(-40, 40, (*shape, 1))
    values[rng.random(values.shape) < 0.3] = np.nan
    ndim = len(shape)
    return measure(values, bind_last(values.shape), (0,) * (ndim + 1)).reshape(shape)


def bind_last(shape: tuple[int, ...]) -> Geometry:
    """Return a geometry that aggregates the last axis alone."""
    kept = tuple(range(len(shape) - 1))
    return Geometry(shape, kept, (), (1,) * len(kept) + shape[-1:])


def bits(moments: Moments | ExactMoments) -> bytes:
    """Return all bytes of what the moments are when they are rounded."""
    found = moments.finish()
    return b"".join(np.ascontiguousarray(getattr(found, f.name)).tobytes() for f in fields(Moments))


def by_definition(leaves: list[ExactMoments]) -> ExactMoments:
    """One after the other."""
    return functools.reduce(ExactMoments.merge, leaves)


@given(st.integers(1, 40), st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_any_order_of_arrival_gives_the_same_bits(leaves, seed):
    parts = [some_moments(seed % 1000 + i, (3,)) for i in range(leaves)]
    expected = bits(by_definition(parts))
    rng = np.random.default_rng(seed)
    for order in (range(leaves), reversed(range(leaves)), rng.permutation(leaves).tolist()):
        tree = MergeTree(leaves)
        for i in order:
            assert tree.root is None
            tree.add(i, 0, parts[i])
        assert tree.root is not None
        assert bits(tree.root) == expected


@given(st.integers(1, 40), st.integers(0, 6), st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_any_bundling_gives_the_same_bits(leaves, level, seed):
    parts = [some_moments(seed % 1000 + i) for i in range(leaves)]
    whole = MergeTree(leaves)
    size = 1 << level
    starts = list(range(0, leaves, size))
    for first in np.random.default_rng(seed).permutation(starts).tolist():
        run = MergeTree(min(size, leaves - first))
        for i in range(first, min(first + size, leaves)):
            run.add(i - first, 0, parts[i])
        whole.add(first, level, run.root)
    assert bits(whole.root) == bits(by_definition(parts))


def test_few_nodes_wait_when_leaves_arrive_in_order():
    tree = MergeTree(1000)
    for i in range(999):
        tree.add(i, 0, some_moments(i))
        assert len(tree._waiting) <= 10


@st.composite
def walks(draw) -> Walk:
    ndim = draw(st.integers(1, 4))
    shape = tuple(draw(st.integers(1, 9)) for _ in range(ndim))
    block = tuple(draw(st.integers(1, n)) for n in shape)
    kept = draw(st.permutations(draw(st.lists(st.integers(0, ndim - 1), unique=True))))
    return Walk(Grid(shape, block), tuple(kept))


def check_walk(walk: Walk) -> None:
    assert len(walk) == len(walk.grid) == walk.ranks * walk.regions
    numbers = [walk.block(position).number for position in range(len(walk))]
    assert sorted(numbers) == list(range(len(walk)))
    seen = 0
    runs = list(walk.runs())
    assert len(runs) == walk.run_count
    for number, run in enumerate(runs):
        assert (run.number, run.first) == (number, seen)
        assert 1 <= run.count <= 1 << run.level
        seen += run.count
        if walk.ranks > 1:
            region, rank = divmod(run.first, walk.ranks)
            assert (run.first + run.count - 1) // walk.ranks == region, "a run leaves its region"
            # A node of the region's tree: it starts at a multiple of its size, and is full or last.
            assert rank % (1 << run.level) == 0
            assert run.count == min(1 << run.level, walk.ranks - rank)
    assert seen == len(walk)


@given(walks())
def test_each_block_is_walked_once(walk):
    check_walk(walk)
    for position in range(len(walk)):
        region = position // walk.ranks
        block = walk.block(position)
        place = [block.start[a] // walk.grid.block_shape[a] for a in walk.kept]
        index = 0
        for axis, i in zip(walk.kept, place, strict=True):
            index = index * walk.grid.counts[axis] + i
        assert index == region


def test_many_blocks_are_bundled():
    for shape, kept in [
        ((TASKS_WANTED * 3 + 1,), ()),
        ((TASKS_WANTED * 3 + 1,), (0,)),
        ((5, TASKS_WANTED * 2 + 3), (0,)),
        ((TASKS_WANTED * 2, 3), (0,)),
    ]:
        walk = Walk(Grid(shape, (1,) * len(shape)), kept)
        check_walk(walk)
        assert max(run.count for run in walk.runs()) > 1


@given(walks(), st.integers(0, 2**32 - 1))
@settings(max_examples=examples(50), deadline=None)
def test_regions_are_put_together_from_runs_in_any_order(walk, seed):
    kept = tuple(sorted(walk.kept))
    shape = tuple(walk.grid.counts[axis] for axis in kept)

    def region(position: int) -> tuple[slice, ...]:
        block = walk.block(position)
        index = [block.start[a] // walk.grid.block_shape[a] for a in kept]
        return tuple(slice(i, i + 1) for i in index)

    one = (1,) * len(kept)
    parts = [some_moments(seed % 997 + i, one) for i in range(len(walk))]
    results = []
    for run in walk.runs():
        positions = range(run.first, run.first + run.count)
        if walk.ranks == 1:
            regions = [Region(p, 0, region(p), parts[p]) for p in positions]
        else:
            tree = MergeTree(run.count)
            for p in positions:
                tree.add(p - run.first, 0, parts[p])
            regions = [Region(run.first, run.level, region(run.first), tree.root)]
        results.append(RunResult(run, Progress(run.count, 0, 0), tuple(regions)))
    expected = Moments.identity(shape)
    for first in range(0, len(walk), walk.ranks):
        merged = by_definition(parts[first : first + walk.ranks])
        expected.store(region(first), merged.finish())
    rng = np.random.default_rng(seed)
    held = HeldMoments(shape)
    trees = RegionTrees(walk, held)
    for i in rng.permutation(len(results)):
        trees.add(results[i])
    assert bits(held.moments) == bits(expected)
    assert not trees._trees


@given(st.data())
@settings(max_examples=examples(60), deadline=None)
def test_moving_statistics_are_folded_in_order(data):
    observations = data.draw(st.integers(1, 30), "observations")
    channels, width = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 4))
    sizes = tuple(data.draw(st.lists(st.integers(1, 8), min_size=1, max_size=4), "sizes"))
    momentum = data.draw(st.sampled_from([None, 0.3, 0.9]))
    x = np.random.default_rng(observations).normal(5, 2, (observations, channels, width))
    segment = int(np.gcd.reduce(sizes))
    spec = make_spec(Layout("NCS"), x.dtype).by_batches(segment)
    geometry = bind(spec, x.shape)
    segment = geometry.segments[0]
    batches = segment * data.draw(st.integers(1, 3))
    cut = (
        min(batches, observations),
        data.draw(st.integers(1, channels)),
        data.draw(st.integers(1, width)),
    )
    walk = Walk(Grid(x.shape, cut), (0, 1))
    rule = MovingRule(momentum, sizes)
    fold = MovingFold(
        MovingStatistics.begin(rule, (channels,)),
        walk,
        0,
        geometry.statistics_shape,
        segment,
        observations,
        "omit",
    )
    regions = []
    for region in range(walk.regions):
        tree = MergeTree(walk.ranks)
        for rank in range(walk.ranks):
            block = walk.block(region * walk.ranks + rank)
            tree.add(rank, 0, measure(x[block.slices].copy(), geometry, block.start))
        regions.append((region, geometry.region(block.start, block.stop), tree.root))
    for i in np.random.default_rng(3).permutation(len(regions)):
        fold.put(*regions[i])
    # By hand: batch after batch, the last size again and again.
    mean, var, start, k = np.zeros(channels), np.ones(channels), 0, 0
    while start < observations:
        batch = x[start : start + sizes[min(k, len(sizes) - 1)]]
        start, k = start + len(batch), k + 1
        new = 1 / k if momentum is None else 1 - momentum
        mean = mean * (1 - new) + batch.mean((0, 2)) * new
        var = var * (1 - new) + batch.var((0, 2)) * new
    assert fold.moving.batches == k
    np.testing.assert_allclose(fold.moving.mean, mean, rtol=1e-12)
    np.testing.assert_allclose(fold.moving.variance, var, rtol=1e-11, atol=1e-14)
    np.testing.assert_allclose(fold.pooled.mean, x.mean((0, 2)), rtol=1e-12)
    np.testing.assert_allclose(fold.pooled.variance(), x.var((0, 2)), rtol=1e-11, atol=1e-14)
    # In order: the same bits.
    again = MovingFold(
        MovingStatistics.begin(rule, (channels,)),
        walk,
        0,
        geometry.statistics_shape,
        segment,
        observations,
        "omit",
    )
    for one in regions:
        again.put(*one)
    assert again.moving.mean.tobytes() == fold.moving.mean.tobytes()
    assert again.moving.variance.tobytes() == fold.moving.variance.tobytes()
    assert bits(again.pooled) == bits(fold.pooled)


def test_a_run_is_a_small_picklable_value():
    import pickle

    run = Run(3, 4, 2, 1)
    assert pickle.loads(pickle.dumps(run)) == run
    assert prod(Grid((4, 4), (3, 3)).counts) == 4
