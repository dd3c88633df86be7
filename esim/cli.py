"""The console command: `esim lab` opens the tour in JupyterLab, `esim doctor` says what this machine has.

`doctor` looks at a store's file only while nobody holds it, and reads who holds it from the lock beside it.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime
from importlib import metadata, util
from pathlib import Path

from esim.storefile import FORMAT, holder, inspect

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"

_PACKAGES = ("esim", "duckdb", "pydantic", "pandas", "pyarrow", "jupyterlab", "anywidget")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with `arguments` (those of the process unless given) and return its exit code."""
    given = _parser().parse_args(arguments)
    if given.command == "lab":
        return lab(given.notebook, given.port, browser=not given.no_browser)
    return doctor(given.file)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("esim", description="Understand event-sourced systems in a notebook.")
    parser.add_argument("--version", action="version", version=f"esim {_version('esim')}")
    commands = parser.add_subparsers(dest="command", required=True)
    opened = commands.add_parser("lab", help="open the tour in JupyterLab on this machine")
    opened.add_argument("notebook", nargs="?", default="00_tour.ipynb", help="another notebook of the folder")
    opened.add_argument("--port", type=int, default=8888, help="the first port to try (8888)")
    opened.add_argument("--no-browser", action="store_true", help="print the address, open nothing")
    looked = commands.add_parser("doctor", help="say versions, time zone, and who holds a store's file")
    looked.add_argument("file", nargs="?", type=Path, help="a store to look at")
    return parser


def lab(notebook: str, port: int, *, browser: bool) -> int:
    """Serve JupyterLab on loopback, opened at a notebook, until it is stopped; return the exit code."""
    name = Path(notebook).with_suffix(".ipynb").name
    problem = _missing(name)
    if problem:
        print(problem, file=sys.stderr)
        return 1
    from jupyterlab.labapp import main as serve

    print(f"JupyterLab at {name}, on this machine only; Ctrl-C stops it", flush=True)
    serve(_options(name, port, browser=browser))
    return 0


def _options(name: str, port: int, *, browser: bool) -> list[str]:
    """Return the command line of a JupyterLab that asks the network for nothing and shows no news."""
    return [
        *("--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}", f"--ServerApp.root_dir={NOTEBOOKS}"),
        *(f"--LabApp.default_url=/lab/tree/{name}", "--LabApp.extension_manager=readonly"),
        *("--LabApp.news_url=None", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"),
        "--Application.log_level=WARN",  # the address, and what is wrong
        *(() if browser else ("--no-browser",)),
        *(("--allow-root",) if getattr(os, "geteuid", lambda: 1)() == 0 else ()),
    ]


def _missing(name: str) -> str | None:
    if util.find_spec("jupyterlab") is None:
        return "JupyterLab is not installed here: pip install 'esim[lab]' brings it"
    if not NOTEBOOKS.is_dir():
        return "the notebooks are not in the installed package: clone the repository and run esim lab there"
    if not (NOTEBOOKS / name).is_file():
        known = ", ".join(sorted(path.name for path in NOTEBOOKS.glob("*.ipynb")))
        return f"there is no notebook {name!r}: there is {known}"
    return None


def doctor(file: Path | None = None) -> int:
    """Print versions, the time zone and, for a file, whether it is a store and who holds it.

    Returns 0, or 1 where the file cannot be opened as a store.
    """
    print(f"python      {platform.python_version()} on {platform.system()}")
    for name in _PACKAGES:
        print(f"{name:11} {_version(name)}")
    print(f"time zone   {datetime.now().astimezone().tzname()} here; esim records UTC everywhere")
    if file is None:
        return 0
    lines, fine = _looked_at(file)
    print(*lines, sep="\n")
    return 0 if fine else 1


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed" + (" (pip install 'esim[lab]')" if name in {"jupyterlab", "anywidget"} else "")


def _looked_at(file: Path) -> tuple[list[str], bool]:
    who = holder(file)
    if who is not None:
        held = f"held by     {who}; close the store or the kernel there, or work on a copy of its making"
        return [f"file        {file.name}", held], False
    report = inspect(file)
    return list(_reported(file, report.format, report.events, report.problem)), report.problem is None


def _reported(file: Path, number: int | None, events: int | None, problem: str | None) -> Iterator[str]:
    yield f"file        {file.name}"
    if problem is None:
        yield "held by     nobody"
    if problem:
        yield f"problem     {problem}"
    elif number is None:
        yield f"store       an empty file: esim will make a store of format {FORMAT} of it"
    else:
        yield f"store       esim format {number}, {events:,} event{'' if events == 1 else 's'}"
