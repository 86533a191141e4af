"""Sums of float32 lanes side by side, in vectors that LLVM is told of.

Of a loop over lanes LLVM loads and stores every running sum for every few rows (7 GB/s on one
core); vectors over 16 lanes keep theirs in registers for `ROWS` rows. Squares are added
onto their anchor, as in `numba_vectors`: 64 lanes of 16 MiB took 1.07 ms instead of 1.24.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from normcli.kernels.numba_jit import LANES, jit

# Lanes of one call: a cache line of float32.
SIDE = 16
# Rows of one call: 8 of them took up to 1.3 times as long, for their loads and stores of sums, and
# 32 no less.
ROWS = 16

# Rows ahead of which a cache line is asked for, into the L2 cache. Lines of one column lie a row
# apart, which the processor does not foresee: without asking, one core read 64 lanes of memory at
# 5 to 9 GB/s, 16 rows ahead at 11 to 14, 32 and 48 ahead at 14 to 15. Asked for into the L1 cache
# they drive each other out of it (9 to 11).
AHEAD = 32

_DOUBLES = ir.VectorType(ir.DoubleType(), SIDE)
_SINGLES = ir.VectorType(ir.FloatType(), SIDE)
_WORDS = ir.VectorType(ir.IntType(32), SIDE)


@intrinsic
def _add(
    typing: Any, tile: Any, at: Any, stride: Any, rows: Any, acc: Any, ext: Any, places: Any
) -> Any:
    """Add the elements ``tile[at + i * stride + l]``, i below rows and l below `SIDE`.

    `places` says where in `acc` the anchor, the sum and both parts of the squares are, and where in
    `ext` the extremes as signed and as unsigned integers, the latter with the sign bit turned over.
    """
    if tile.dtype != types.float32:
        return None

    def code(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        data, sums, bits = (
            context.make_array(signature.args[i])(context, builder, arguments[i]).data
            for i in (0, 4, 5)
        )
        first, step, count = arguments[1:4]
        where = [builder.extract_value(arguments[6], i) for i in range(8)]

        def place(base: Any, index: Any, kind: ir.VectorType) -> Any:
            return builder.bitcast(builder.gep(base, [index]), kind.as_pointer())

        def constant(value: int) -> ir.Constant:
            return ir.Constant(_WORDS, [value] * SIDE)

        muladd = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(_DOUBLES, [_DOUBLES] * 3), f"llvm.fmuladd.v{SIDE}f64"
        )
        word, address = ir.IntType(32), ir.IntType(8).as_pointer()
        fetch = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(ir.VoidType(), [address, word, word, word]),
            "llvm.prefetch.p0",
        )
        turned = constant(1 << 31)
        anchor = builder.load(place(sums, where[0], _DOUBLES), align=8)
        held = [place(sums, i, _DOUBLES) for i in where[1:4]]
        found = [place(bits, i, _WORDS) for i in where[4:8]]
        start = [builder.load(p, align=8) for p in held] + [builder.load(p, align=4) for p in found]
        before = start[1]
        start[1] = anchor
        start[5:] = [builder.xor(value, turned) for value in start[5:]]

        entry = builder.block
        loop, done = builder.append_basic_block("rows"), builder.append_basic_block("done")
        # Rows are one or more.
        builder.branch(loop)
        builder.position_at_end(loop)
        row = builder.phi(count.type)
        row.add_incoming(ir.Constant(count.type, 0), entry)
        now = []
        for value in start:
            phi = builder.phi(value.type)
            phi.add_incoming(value, entry)
            now.append(phi)
        index = builder.add(first, builder.mul(row, step))
        element = builder.load(place(data, index, _SINGLES), align=4)
        later = builder.gep(data, [builder.add(index, builder.mul(step, step.type(AHEAD)))])
        # A read, of a line that is kept for a while, as data.
        builder.call(fetch, [builder.bitcast(later, address), word(0), word(2), word(1)])
        key = builder.bitcast(element, _WORDS)
        x = builder.fpext(element, _DOUBLES)
        taken = builder.call(muladd, [x, x, now[1]])
        high = builder.fsub(taken, now[1])
        low = builder.call(muladd, [x, x, builder.fneg(high)])
        after = [builder.fadd(now[0], x), taken, builder.fadd(now[2], low)]
        for value, compare, sign in zip(
            now[3:],
            (builder.icmp_signed, builder.icmp_signed, *[builder.icmp_unsigned] * 2),
            "<><>",
            strict=True,
        ):
            after.append(builder.select(compare(sign, key, value), key, value))
        following = builder.add(row, ir.Constant(count.type, 1))
        row.add_incoming(following, loop)
        for phi, value in zip(now, after, strict=True):
            phi.add_incoming(value, loop)
        builder.cbranch(builder.icmp_signed("<", following, count), loop, done)
        builder.position_at_end(done)
        after[1] = builder.fadd(before, builder.fsub(after[1], anchor))
        for pointer, value in zip(held, after[:3], strict=True):
            builder.store(value, pointer, align=8)
        after[5:] = [builder.xor(value, turned) for value in after[5:]]
        for pointer, value in zip(found, after[3:], strict=True):
            builder.store(value, pointer, align=4)
        return context.get_dummy_value()

    whole = types.int64
    return types.none(tile, whole, whole, whole, acc, ext, types.UniTuple(whole, 8)), code


@jit(LANES)
def add_lanes(
    tile: Any, stride: int, width: int, height: int, acc: Any, ext: Any, places: Any
) -> int:
    """Add as many lanes as make whole vectors, and return how many these are."""
    vectors = width // SIDE * SIDE
    a, b, c, d, e, f, g, h = places
    for first in range(0, height, ROWS):
        rows = min(ROWS, height - first)
        for j in range(0, vectors, SIDE):
            at = first * stride + j
            # fmt: off
            _add(  # type: ignore[call-arg]
                tile, at, stride, rows, acc, ext,
                (a + j, b + j, c + j, d + j, e + j, f + j, g + j, h + j),
            )
            # fmt: on
    return vectors
