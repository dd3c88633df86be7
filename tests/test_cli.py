"""The console command."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib import util

import pytest

from esim import EventStore, cli
from esim.shop import StockReceived

TOUR = re.compile(r"http://127\.0\.0\.1:\d+/lab/tree/00_tour\.ipynb\S+")


def test_doctor_says_versions_and_the_time_zone(capsys):
    """Without a file, doctor lists what is installed and that times are UTC."""
    assert cli.main(["doctor"]) == 0
    told = capsys.readouterr().out
    assert "duckdb" in told
    assert "esim records UTC" in told


def test_doctor_describes_a_store_that_nobody_holds(tmp_path, capsys):
    """A closed store is described by its format and number of events."""
    path = tmp_path / "shop.duckdb"
    with EventStore(path) as store:
        store.append("Inventory/mug", StockReceived(sku="mug", quantity=3))
    assert cli.main(["doctor", str(path)]) == 0
    told = capsys.readouterr().out
    assert "nobody" in told
    assert "esim format 1, 1 event\n" in told


def test_doctor_says_who_holds_a_file(tmp_path, capsys):
    """While a store is open, another process learns the holder's pid and leaves the file alone."""
    path = tmp_path / "shop.duckdb"
    with EventStore(path) as store:
        command = [sys.executable, "-m", "esim", "doctor", str(path)]
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        store.append("Inventory/mug", StockReceived(sku="mug", quantity=3))
    assert found.returncode == 1
    assert f"process {os.getpid()}" in found.stdout


def test_doctor_names_the_problem_of_a_foreign_file(tmp_path, capsys):
    """A file that is no store gets a reason and exit code 1, and stays as it is."""
    path = tmp_path / "notes.txt"
    path.write_text("not a database")
    assert cli.main(["doctor", str(path)]) == 1
    assert "problem" in capsys.readouterr().out
    assert path.read_text() == "not a database"


def test_lab_names_the_notebooks_there_are(capsys):
    """An unknown notebook is answered with the known ones."""
    if util.find_spec("jupyterlab") is None:
        pytest.skip("jupyterlab is not installed: pip install -e '.[lab]'")
    assert cli.main(["lab", "99_nothing.ipynb"]) == 1
    assert "00_tour.ipynb" in capsys.readouterr().err


def test_lab_says_how_to_get_jupyterlab(monkeypatch, capsys):
    """Without JupyterLab the command says which extra brings it."""
    monkeypatch.setattr(cli.util, "find_spec", lambda name: None)
    assert cli.main(["lab"]) == 1
    assert "esim[lab]" in capsys.readouterr().err


def test_lab_names_a_folder_that_is_not_there(monkeypatch, tmp_path, capsys):
    """An installed package without the notebooks says where they are to be had."""
    monkeypatch.setattr(cli, "NOTEBOOKS", tmp_path / "notebooks")
    monkeypatch.setattr(cli.util, "find_spec", lambda name: object())
    assert cli.main(["lab"]) == 1
    assert "clone the repository" in capsys.readouterr().err


def test_lab_serves_the_tour_on_loopback_without_news(tmp_path):
    """The real command prints an address on 127.0.0.1 whose page is JupyterLab with the news pop-up off."""
    if util.find_spec("jupyterlab") is None:
        pytest.skip("jupyterlab is not installed: pip install -e '.[lab]'")
    from urllib3 import PoolManager, Retry

    own = ("HOME", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    environment = {**os.environ, **{name: str(tmp_path / name) for name in own}}
    command = [sys.executable, "-m", "esim", "lab", "--no-browser", "--port", "8900"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            address = next(found[0] for line in process.stderr if (found := TOUR.search(line)))
            retries = Retry(connect=8, backoff_factor=0.05)  # the address is printed before the port listens
            page = PoolManager(retries=retries, timeout=30).request("GET", address)
        finally:
            process.terminate()
            process.communicate(timeout=30)
    assert page.status == 200
    assert re.search(r'"news": *\{ *"disabled": *true', page.data.decode())
