"""The benchmarks run once, tiny, so that they cannot rot."""

from tests.benchmarks.__main__ import run
from tests.benchmarks.harness import Scale, table


def test_every_benchmark_runs(tmp_path):
    (tmp_path / "out").mkdir()
    rows = list(run(Scale(tmp_path, 4 << 20, 1), set(), tiny=True))
    figures = {row.key for row in rows}
    assert figures == {
        *("K1", "K2", "K3", "K4", "K5", "F1", "F2", "F3", "A1", "A2", "A3", "A4"),
        *("S0", "S1", "G1", "G2"),
    }
    assert table(rows).count("\n") == len(rows) + 1
