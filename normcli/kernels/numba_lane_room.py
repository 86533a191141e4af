"""Where the loops over columns keep what belongs to each lane."""

WIDTH = 512
HEIGHT = 128
# Accumulators lie in one array at constant distances, so that the compiler sees that they do not
# overlap; the distance is no multiple of 4 KiB, which would put all of them in the same sets of
# the L1 cache.
PITCH = WIDTH + 40
SCALE, TOTAL, REST = 0, PITCH, 2 * PITCH
FIRST, SECOND, THIRD, FOURTH = 3 * PITCH, 4 * PITCH, 5 * PITCH, 6 * PITCH
LOW, HIGH = 7 * PITCH, 8 * PITCH
ANCHOR = 9 * PITCH
ACCUMULATORS = 10 * PITCH
# Of the integers: six sums of tiles, the power of two, and elements seen.
POWER, SEEN = 6 * PITCH, 7 * PITCH
INTEGERS = 8 * PITCH
# Of the bits: extremes as signed integers, and as unsigned ones with the sign bit turned over; the
# bits of the power of two and of the smallest float that goes with it; whether a tile is used.
LEAST, MOST, SMALLEST, LARGEST = 0, PITCH, 2 * PITCH, 3 * PITCH
ABOVE, FLOOR, HOLDS = 4 * PITCH, 5 * PITCH, 6 * PITCH
NONZERO = 7 * PITCH
BITS = 8 * PITCH
