"""What we write, another program reads alike: pm4py, in an environment of its own, never a dependency.

Set ESIM_PM4PY to a Python that has it:
`ESIM_PM4PY=…/bin/python pytest tests/acceptance/test_other_readers.py`.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from esim.formats import read_tables, tables_of, write_tables
from esim.shop_history import shop_store
from tests.logs import known

PYTHON = os.environ.get("ESIM_PM4PY")
EVENTS = 500

pytestmark = pytest.mark.skipif(not PYTHON, reason="ESIM_PM4PY names no Python that has pm4py")

XES = """
import json, sys, warnings; warnings.simplefilter("ignore")
import pm4py
found = pm4py.read_xes(sys.argv[1])
columns = ["case:concept:name", "concept:name", "identity:id"]
print(json.dumps([[str(row[name]) for name in columns] for _, row in found.iterrows()]))
"""
OCEL = """
import json, sys, warnings; warnings.simplefilter("ignore")
import pm4py
read = {"json": pm4py.read_ocel2_json, "xml": pm4py.read_ocel2_xml, "sqlite": pm4py.read_ocel2_sqlite}
found = read[sys.argv[1].rpartition(".")[2]](sys.argv[1]).relations
columns = ["ocel:eid", "ocel:type", "ocel:oid", "ocel:qualifier"]
print(json.dumps([[str(row[name]) for name in columns] for _, row in found.iterrows()]))
"""


def told(program: str, path: Path) -> list[tuple[str, ...]]:
    """Return the rows that pm4py finds in a file."""
    done = subprocess.run(
        [str(PYTHON), "-c", program, path], capture_output=True, text=True, check=True, cwd=path.parent
    )
    return sorted(map(tuple, json.loads(done.stdout.splitlines()[-1])))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first events of the sample shop, in each format."""
    made = tmp_path_factory.mktemp("logs")
    with shop_store() as store:
        tables = tables_of(store.read(limit=EVENTS))
    for name in ("shop.xes", "shop.ocel.json", "shop.ocel.xml", "shop.ocel.sqlite"):
        write_tables(tables, made / name)
    return made


def test_an_xes_file_is_read_alike(folder: Path) -> None:
    ours = read_tables(folder / "shop.xes").events
    assert told(XES, folder / "shop.xes") == known(ours, "case:concept:name", "concept:name", "identity:id")


@pytest.mark.parametrize("name", ["shop.ocel.json", "shop.ocel.xml", "shop.ocel.sqlite"])
def test_an_ocel_file_is_read_alike(folder: Path, name: str) -> None:
    ours = read_tables(folder / name)
    assert told(OCEL, folder / name) == known(
        ours.objects, "event_id", "object_type", "object_id", "qualifier"
    )
