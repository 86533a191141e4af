"""One pass over a tile of floats, in vectors that LLVM is told of.

Each lane adds its squares to an anchor (`numba_splits`). A fused multiply and add rounds a square
to the unit of the anchor while it adds it, and what the sum grew by, which is exact, is that part
of the square. So the running sum takes no addition of its own. LLVM would not spread such a loop
over lanes: it may reorder a sum only if nothing else in the loop looks at it. On one core with
AVX-512, with all elements in the cache, 16 float32 took 2.5 to 2.9 ns instead of 3.0.

A lane sees at most ``TILE / 8`` = 256 elements, so that its sum of n parts below 2**42 units each
stays within the binade of its anchor, whose other half has 2**51 units.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.extending import intrinsic

from normcli.kernels.numba_jit import EXACT, jit
from normcli.kernels.numba_splits import SECOND, THIRD, TOP


def _lanes() -> tuple[int, int]:
    """Return how many float32 and how many float64 go side by side.

    As many as leave all sums and extremes in the vector registers: 32 of 64 bytes, or 16 of 32.
    """
    _triple, _name, features = cpu_target.target_context.codegen().magic_tuple()
    return (32, 16) if "+avx512f" in features.split(",") else (8, 4)


SINGLES, DOUBLES = _lanes()
_ONE, _WORD = ir.IntType(1), ir.IntType(32)


class _Vectors:
    """Instructions on vectors of one float type."""

    def __init__(self, builder: ir.IRBuilder, single: bool) -> None:
        self.builder = builder
        self.single = single
        self.count = SINGLES if single else DOUBLES
        self.elements = ir.VectorType(ir.FloatType() if single else ir.DoubleType(), self.count)
        self.keys = ir.VectorType(_WORD if single else ir.IntType(64), self.count)
        self.doubles = ir.VectorType(ir.DoubleType(), self.count)

    def all(self, value: Any) -> Any:
        """Return a vector of one number."""
        kind = ir.VectorType(value.type, self.count)
        one = self.builder.insert_element(ir.Constant(kind, ir.Undefined), value, _WORD(0))
        same = ir.Constant(ir.VectorType(_WORD, self.count), [0] * self.count)
        return self.builder.shuffle_vector(one, one, same)

    def load(self, data: Any, index: Any) -> Any:
        """Return the elements that begin at an index."""
        place = self.builder.gep(data, [index])
        size = 4 if self.single else 8
        return self.builder.load(
            self.builder.bitcast(place, self.elements.as_pointer()), align=size
        )

    def multiply_add(self, a: Any, b: Any, c: Any) -> Any:
        """Return ``a * b + c``, rounded once or, where the product is exact, as fast as may be."""
        name = f"llvm.{'fmuladd' if self.single else 'fma'}.v{self.count}f64"
        kind = ir.FunctionType(self.doubles, [self.doubles] * 3)
        function = cgutils.get_or_insert_function(self.builder.module, kind, name)
        return self.builder.call(function, [a, b, c])

    def folded(self, value: Any, combine: Callable[[Any, Any], Any]) -> Any:
        """Return what a vector comes to, half by half."""
        width = self.count
        while width > 1:
            width //= 2
            kind = ir.VectorType(_WORD, width)
            low, high = (
                self.builder.shuffle_vector(
                    value, value, ir.Constant(kind, list(range(first, first + width)))
                )
                for first in (0, width)
            )
            value = combine(low, high)
        return self.builder.extract_element(value, _WORD(0))

    def onto(self, total: Any, value: Any) -> Any:
        """Return an anchored sum with a value on top, the part of it that it took, and the rest."""
        after = self.builder.fadd(total, value)
        part = self.builder.fsub(after, total)
        return after, self.builder.fsub(value, part)

    def anchors(self, anchor: Any) -> list[Any]:
        """Return where the sums of a pass begin."""
        if self.single:
            return [
                self.all(ir.DoubleType()(0.0)),
                self.all(anchor),
                self.all(ir.DoubleType()(0.0)),
            ]
        return [self.all(ir.DoubleType()(x)) for x in (TOP, 0.0, TOP, SECOND, THIRD, 0.0)]

    def add(self, elements: Any, scale: Any, sums: list[Any]) -> list[Any]:
        """Return the sums with some elements added."""
        builder = self.builder
        if self.single:
            total, first, second = sums
            x = builder.fpext(elements, self.doubles)
            after = self.multiply_add(x, x, first)
            part = builder.fsub(after, first)
            rest = self.multiply_add(x, x, builder.fneg(part))
            # Scaled as it is added: additions alone have only half of the vector units.
            total = self.multiply_add(x, scale, total)
            return [total, after, builder.fadd(second, rest)]
        high, low, first, second, third, fourth = sums
        x = builder.fmul(elements, scale)
        high, rest = self.onto(high, x)
        low = builder.fadd(low, rest)
        upper = builder.fmul(x, x)
        lower = self.multiply_add(x, x, builder.fneg(upper))
        first, upper = self.onto(first, upper)
        for rest in (upper, lower):
            second, rest = self.onto(second, rest)
            third, rest = self.onto(third, rest)
            fourth = builder.fadd(fourth, rest)
        return [high, low, first, second, third, fourth]

    def extend(self, elements: Any, extremes: list[Any]) -> list[Any]:
        """Return the extremes of the bits, as signed and as unsigned integers."""
        key = self.builder.bitcast(elements, self.keys)
        return [
            choose(key, extreme) for choose, extreme in zip(self._choices(), extremes, strict=True)
        ]

    def _choices(self) -> list[Callable[[Any, Any], Any]]:
        signed, unsigned = self.builder.icmp_signed, self.builder.icmp_unsigned

        def choice(compare: Any, sign: str) -> Callable[[Any, Any], Any]:
            return lambda a, b: self.builder.select(compare(sign, a, b), a, b)

        return [
            choice(signed, "<"),
            choice(signed, ">"),
            choice(unsigned, "<"),
            choice(unsigned, ">"),
        ]

    def result(self, sums: list[Any], anchors: list[Any], extremes: list[Any]) -> list[Any]:
        """Return the sums without their anchors, and the extremes, as numbers."""
        found = [
            self.folded(self.builder.fsub(total, anchor), self.builder.fadd)
            for total, anchor in zip(sums, anchors, strict=True)
        ]
        return found + [
            self.folded(extreme, choose)
            for extreme, choose in zip(extremes, self._choices(), strict=True)
        ]


@intrinsic
def _pass(typing: Any, tile: Any, size: Any, scale: Any, anchor: Any) -> Any:
    """Return the sums and extremes of a tile of `size` elements, one or more."""
    single = tile.dtype == types.float32
    signed, unsigned = (types.int32, types.uint32) if single else (types.int64, types.uint64)
    number = types.float64

    def code(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        vectors = _Vectors(builder, single)
        data = context.make_array(tile)(context, builder, arguments[0]).data
        size = arguments[1]
        factor, anchors = vectors.all(arguments[2]), vectors.anchors(arguments[3])
        step, lanes = size.type(vectors.count), range(vectors.count)
        lane = ir.Constant(ir.VectorType(size.type, vectors.count), list(lanes))
        known = vectors.all(builder.load(data))
        start = anchors + [builder.bitcast(known, vectors.keys)] * 4
        room = cgutils.alloca_once(builder, vectors.elements)

        def add(elements: Any, taken: Any, now: list[Any]) -> list[Any]:
            # Elements that are not taken count to the extremes: they are in the tile as well.
            extremes = vectors.extend(elements, now[-4:])
            if taken is not None:
                nothing = ir.Constant(vectors.elements, [0.0] * vectors.count)
                elements = builder.select(taken, elements, nothing)
            return vectors.add(elements, factor, now[:-4]) + extremes

        def meeting(*ways: tuple[ir.Block, list[Any]]) -> list[Any]:
            values = []
            for each in zip(*(values for _, values in ways), strict=True):
                phi = builder.phi(each[0].type)
                for (block, _), value in zip(ways, each, strict=True):
                    phi.add_incoming(value, block)
                values.append(phi)
            return values

        entry = builder.block
        loop, rest, short, last, done = (
            builder.append_basic_block(name) for name in ("loop", "rest", "short", "last", "done")
        )
        builder.cbranch(builder.icmp_signed("<", size, step), short, loop)

        builder.position_at_end(loop)
        index, *now = meeting((entry, [size.type(0), *start]))
        after = add(vectors.load(data, index), None, now)
        following = builder.add(index, step)
        for phi, value in zip([index, *now], [following, *after], strict=True):
            phi.add_incoming(value, loop)
        end = builder.sub(size, step)
        builder.cbranch(builder.icmp_signed("<=", following, end), loop, rest)

        # The last elements that are a whole vector, of which some were added before.
        builder.position_at_end(rest)
        again = builder.icmp_signed(">=", lane, vectors.all(builder.sub(following, end)))
        ending = vectors.load(data, end)
        builder.cbranch(builder.icmp_signed("<", following, size), last, done)

        # Fewer elements than lanes: the first one is in the others.
        builder.position_at_end(short)
        builder.store(known, room)
        cgutils.raw_memcpy(
            builder, builder.bitcast(room, data.type), data, size, 4 if single else 8
        )
        few = builder.icmp_signed("<", lane, vectors.all(size))
        filled = builder.load(room)
        builder.branch(last)

        builder.position_at_end(last)
        elements, taken, *now = meeting(
            (rest, [ending, again, *after]), (short, [filled, few, *start])
        )
        final = add(elements, taken, now)
        builder.branch(done)

        builder.position_at_end(done)
        now = meeting((rest, after), (last, final))
        found = vectors.result(now[:-4], anchors, now[-4:])
        return context.make_tuple(builder, signature.return_type, found)

    sums = (number,) * (3 if single else 6)
    return types.Tuple(sums + (signed,) * 2 + (unsigned,) * 2)(
        tile, types.int64, number, number
    ), code


@jit(EXACT, inline=True)
def single_pass(tile: Any, scale: float, anchor: float) -> Any:
    """Return six sums and four extremes of float32 elements.

    `scale` makes numbers below 1 of them, `anchor` is that of their squares. The extremes are those
    of the bits, read as signed and as unsigned integers: they give those of the floats and their
    smallest magnitudes on both sides of 0, without a step to make them comparable.
    """
    found: Any = _pass(tile, tile.size, scale, anchor)  # type: ignore[call-arg]
    s, first, second, least, most, smallest, largest = found
    square = scale * scale
    return s, 0.0, first * square, second * square, 0.0, 0.0, least, most, smallest, largest


@jit(EXACT, inline=True)
def double_pass(tile: Any, scale: float) -> Any:
    """Return six sums and four extremes of float64 elements; see `single_pass`."""
    return _pass(tile, tile.size, scale, 0.0)  # type: ignore[call-arg]
