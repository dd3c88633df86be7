"""What esim costs, beside the library `eventsourcing` on SQLite in the same run: one JSON line a figure.

`python -m tests.benchmarks` measures everything (about ten minutes), with names only those; `--small` is a
quick run that shows that every benchmark works and that both sides give equal results. Figures are CPU
seconds of the process unless a name says wall. `ratio` is how many times the rate of the baseline; no time is
asserted. The figures of event logs take pm4py, retentioneering and polars in with `--peers FOLDER`, where
their environments are made.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from tests.benchmarks import figures


def main() -> None:
    """Run the chosen figures and print a line each."""
    parser = argparse.ArgumentParser("python -m tests.benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(figures.ALL)}")
    parser.add_argument("--small", action="store_true", help="a quick run that only shows that all works")
    parser.add_argument(
        "--peers", type=Path, help="a folder for environments of pm4py, retentioneering and polars"
    )
    given = parser.parse_args()
    unknown = set(given.names) - figures.ALL.keys()
    if unknown:
        parser.error(f"there is no figure {', '.join(unknown)}: there is {', '.join(figures.ALL)}")
    with tempfile.TemporaryDirectory() as folder:
        bench = figures.Bench(Path(folder), small=given.small, peers=given.peers)
        for name in given.names or figures.ALL:
            for line in figures.ALL[name](bench):
                print(json.dumps({"figure": name, **line}), flush=True)


main()
