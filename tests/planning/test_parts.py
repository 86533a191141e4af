"""Parts of an array: they tile it, whatever its shape, its chunks and their number."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from normcli.domain.array_info import ArrayInfo
from normcli.domain.geometry import Geometry
from normcli.domain.grid import Grid
from normcli.domain.part import boxes, parse_part
from normcli.errors import UsageError
from normcli.planning.parts import CELLS_A_PART, cut, part_boxes
from normcli.planning.planner import Resources, plan_part


def geometry(shape: tuple[int, ...], kept: tuple[int, ...] = (), segment: int = 1) -> Geometry:
    segments = tuple(segment if axis in kept else n for axis, n in enumerate(shape))
    return Geometry(shape, kept, kept, segments)


@st.composite
def arrays(draw: st.DrawFn) -> tuple[ArrayInfo, Geometry]:
    ndim = draw(st.integers(1, 4))
    shape = tuple(draw(st.lists(st.integers(1, 12), min_size=ndim, max_size=ndim)))
    chunks = None
    if draw(st.booleans()):
        chunks = tuple(draw(st.integers(1, n)) for n in shape)
    fortran = chunks is None and draw(st.booleans())
    kept = tuple(a for a in range(ndim) if draw(st.booleans()))
    if len(kept) == ndim:
        kept = kept[1:]
    info = ArrayInfo(shape, np.dtype("f4"), chunks, fortran_order=fortran)
    return info, geometry(shape, kept, draw(st.integers(1, 3)) if kept else 1)


@given(arrays(), st.integers(1, 40))
def test_each_element_is_in_exactly_one_part(case, of):
    info, axes = case
    seen = np.zeros(info.shape, int)
    reached = 0
    for number in range(1, of + 1):
        part = cut(info, axes, number, of)
        assert part.first == reached
        reached = part.stop
        found = part_boxes(info, part)
        assert len(found) <= 2 * info.ndim - 1
        for box in found:
            seen[box.slices] += 1
            for axis, chunk in enumerate(info.chunks or ()):
                assert box.start[axis] % chunk == 0
                assert box.stop[axis] % chunk == 0 or box.stop[axis] == info.shape[axis]
            for axis in axes.kept:
                assert box.start[axis] % axes.segments[axis] == 0
    assert (seen == 1).all()
    assert reached == len(Grid(info.shape, cut(info, axes, 1, of).cell))


@given(arrays(), st.integers(1, 10), st.integers(1, 10), st.sampled_from([8 << 20, 1 << 30]))
def test_the_cut_knows_no_budget_and_the_plan_covers_it(case, of, number, memory):
    info, axes = case
    part = cut(info, axes, min(number, of), of)
    found = part_boxes(info, part)
    plan = plan_part(info, axes, Resources(2, memory), "numpy", 1, found)
    assert len(plan.passes) == len(found)
    assert plan.peak_memory <= memory
    measured = np.zeros(info.shape, int)
    expected = np.zeros(info.shape, int)
    for work in plan.passes:
        for block in work.grid:
            measured[block.slices] += 1
    for box in found:
        expected[box.slices] += 1
    np.testing.assert_array_equal(measured, expected)


@pytest.mark.parametrize(
    ("shape", "chunks", "of"),
    [
        ((365, 1800, 3600), (30, 180, 360), 100),  # no axis has 100 chunks
        ((1000, 64, 64), None, 7),
        ((3, 40_000, 40_000), None, 64),
        ((10**9,), None, 1000),
    ],
)
def test_parts_are_of_nearly_equal_size(shape, chunks, of):
    info = ArrayInfo(shape, np.dtype("f4"), chunks)
    sizes = [
        sum(box.size for box in part_boxes(info, cut(info, geometry(shape), number, of)))
        for number in range(1, of + 1)
    ]
    assert sum(sizes) == prod(shape)
    assert max(sizes) <= prod(shape) / of * (1 + 2 / CELLS_A_PART)


def test_more_parts_than_elements():
    info = ArrayInfo((3,), np.dtype("f4"))
    sizes = [len(part_boxes(info, cut(info, geometry((3,)), i, 10))) for i in range(1, 11)]
    assert sorted(sizes) == [0] * 7 + [1] * 3
    plan = plan_part(info, geometry((3,)), Resources(2, 1 << 20), "numpy", 1, ())
    assert (plan.passes, plan.bytes_read) == ((), 0)
    assert plan.peak_memory < 1000


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.data())
def test_boxes_are_a_run(counts, data):
    total = prod(counts)
    first = data.draw(st.integers(0, total))
    stop = data.draw(st.integers(first, total))
    seen = np.zeros(counts, int)
    for bounds in boxes(first, stop, tuple(counts)):
        seen[tuple(slice(*b) for b in bounds)] += 1
    assert seen.ravel().tolist() == [int(first <= i < stop) for i in range(total)]


@pytest.mark.parametrize("text", ["", "0/4", "5/4", "1", "a/b", "1/0", "-1/3", "1/2/3", "1.0/2"])
def test_what_is_no_part_is_refused(text):
    with pytest.raises(UsageError, match="--part") as caught:
        parse_part(text)
    assert "3/16" in caught.value.hint


def test_parts_are_counted_from_one():
    assert parse_part(" 3 / 16 ") == (3, 16)
