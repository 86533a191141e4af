"""Measure everything and print one table: ``python -m tests.benchmarks``."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from tests.benchmarks import files, kernels, processes, safety
from tests.benchmarks.harness import Row, Scale, measure, table


def main() -> None:
    """Run the benchmarks that the command line chooses."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--mib", type=int, default=512, help="size of the arrays")
    parser.add_argument("--repeats", type=int, default=5, help="alternating runs of each side")
    parser.add_argument("--only", default="", help="figures to measure, such as K1,F2")
    parser.add_argument("--folder", default="bench-data", help="where data are made")
    parser.add_argument("--json", type=Path, help="where results go; results.json in the folder")
    options = parser.parse_args()
    folder = Path(options.folder)
    (folder / "out").mkdir(parents=True, exist_ok=True)
    scale = Scale(folder, options.mib << 20, options.repeats)
    wanted = {key for key in options.only.split(",") if key}
    rows = []
    for row in run(scale, wanted, tiny=False):
        rows.append(row)
        print(f"{row.key:3} {row.work:55} {row.ratio:6.2f} {row.goal}", file=sys.stderr)
    print(table(rows))
    document = {"machine": platform.processor(), "rows": [asdict(row) for row in rows]}
    results = options.json or folder / "results.json"
    results.write_text(json.dumps(document, indent=1) + "\n")


def run(scale: Scale, wanted: set[str], tiny: bool) -> Iterator[Row]:
    """Yield the lines of the table, for the wanted figures or for all of them."""
    groups = (
        ({"K1", "K2", "K3", "K4", "K5"}, kernels.comparisons),
        ({"F1", "F2", "F3", "A1", "A2", "A3", "A4"}, files.comparisons),
        ({"R10"}, safety.comparisons),
    )
    for keys, comparisons in groups:
        if wanted and not wanted & keys:
            continue
        for comparison in comparisons(scale):
            if not wanted or comparison.key in wanted:
                yield measure(comparison, scale)
    if not wanted or wanted & {"S0", "S1", "G1", "G2"}:
        yield from processes.rows(scale, tiny)


if __name__ == "__main__":
    main()
