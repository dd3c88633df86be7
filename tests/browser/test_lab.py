"""The tour in a real JupyterLab on loopback: run all cells, move the slider, look.

The server has throw-away directories and a copy of the notebook; nothing of the checkout or of the user's
settings is touched.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from decimal import Decimal
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import pytest

from esim.clock import ManualClock, SeededIds
from esim.memory import MemoryStore
from esim.repository import Repository
from esim.shop import Item, Order
from esim.view import TimeMachine

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

ROOT = Path(__file__).parents[2]
TOUR = ROOT / "notebooks" / "00_tour.ipynb"
MINUTE = 60_000

OWN = """
from datetime import timedelta
from decimal import Decimal
from esim.clock import ManualClock, SeededIds
from esim.memory import MemoryStore
from esim.repository import Repository
from esim.shop import Item, Order
from esim.view import TimeMachine
store = MemoryStore(clock=ManualClock("2026-03-02T09:00:00Z", step=timedelta(hours=1)), ids=SeededIds(1))
orders = Repository(store, Order)
orders.run("o-1", Order.place, customer="alice", items=[Item(sku="cup", quantity=4, price=Decimal("5.60"))])
orders.run("o-1", Order.pay, payment="p-1", amount=Decimal("22.40"), method="card")
TimeMachine(orders, "o-1")
"""

MAP = """
from esim.processgraph import process_graph
from esim.view import ProcessMap
flows = [("<b>Placed</b>", "Paid", 15), ("Paid", "Shipped", 7), ("Paid", "Paid", 3)]
graph = process_graph([("<b>Placed</b>", 15), ("Paid", 18), ("Shipped", 7)], flows, {"<b>Placed</b>": 15})
ProcessMap(graph, title="A map")
"""


class Lab(NamedTuple):
    """A running JupyterLab: its address, its token and the folder it serves."""

    url: str
    token: str
    folder: Path


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Start JupyterLab on a free loopback port with directories of its own, and end it by its process."""
    if not find_spec("jupyterlab") or not find_spec("anywidget"):
        pytest.skip("jupyterlab or anywidget is not installed: pip install 'esim[lab]'")
    home = tmp_path_factory.mktemp("lab")
    served = Lab(f"http://127.0.0.1:{free_port()}", secrets.token_hex(16), home / "notebooks")
    served.folder.mkdir()
    settle(home)
    with subprocess.Popen(
        [sys.executable, "-m", "jupyterlab", *options(served)],
        env=environment(home, served.token),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            drain = wait_until_it_serves(process)
            yield served
        finally:
            process.terminate()
            process.wait(timeout=30)
        drain.join(timeout=30)


def free_port() -> int:
    """Return a loopback port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def options(served: Lab) -> list[str]:
    """Return the command line: no window, this port only, this folder, the app within reach of the test."""
    return [
        *("--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1", "--ServerApp.port_retries=0"),
        *(f"--ServerApp.port={urlsplit(served.url).port}", f"--ServerApp.root_dir={served.folder}"),
        *("--LabApp.expose_app_in_browser=True", "--LabApp.extension_manager=readonly"),
    ]


def environment(home: Path, token: str) -> dict[str, str]:
    """Return an environment in which every Jupyter directory is a throw-away one."""
    names = (
        *("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTERLAB_SETTINGS_DIR"),
        *("JUPYTERLAB_WORKSPACES_DIR", "IPYTHONDIR", "HOME"),
    )
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    own = {name: str(home / name.lower()) for name in names}
    return {**os.environ, **own, "JUPYTER_TOKEN": token, "PYTHONPATH": paths}


def settle(home: Path) -> None:
    """Write the settings: no news, and every cell drawn whether in sight or not."""
    config = home / "jupyter_config_dir" / "labconfig" / "page_config.json"
    config.parent.mkdir(parents=True)
    config.write_text(
        json.dumps({"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}})
    )
    notebook = (
        home
        / "jupyterlab_settings_dir"
        / "@jupyterlab"
        / "notebook-extension"
        / "tracker.jupyterlab-settings"
    )
    notebook.parent.mkdir(parents=True)
    notebook.write_text(json.dumps({"windowingMode": "none"}))


def wait_until_it_serves(process: subprocess.Popen[str]) -> threading.Thread:
    """Read the server's messages until it gives its address; return the thread that reads the rest."""
    assert process.stderr is not None
    told = []
    for line in process.stderr:
        told.append(line)
        if "is running at" in line:
            drain = threading.Thread(target=process.stderr.read, daemon=True)
            drain.start()
            return drain
    pytest.fail("JupyterLab ended before it served:\n" + "".join(told[-20:]))


@pytest.fixture
def opened(chromium: Browser, lab: Lab) -> Iterator[Callable[[Path], Page]]:
    """Return a function that opens a copy of a notebook; then nothing may have gone wrong or outside."""
    context = chromium.new_context(viewport={"width": 1280, "height": 1000})
    context.set_default_timeout(MINUTE)
    troubles: list[str] = []
    urls: list[str] = []
    page = context.new_page()
    context.on("request", lambda request: urls.append(request.url))
    page.on("websocket", lambda socket: urls.append(socket.url))
    page.on("console", lambda told: troubles.append(told.text) if told.type == "error" else None)
    page.on("pageerror", lambda error: troubles.append(str(error)))

    def open_notebook(path: Path) -> Page:
        shutil.copy(path, lab.folder / path.name)
        page.goto(f"{lab.url}/lab/tree/{path.name}?reset&token={lab.token}")
        page.wait_for_function("window.jupyterapp?.shell?.currentWidget?.sessionContext !== undefined")
        page.evaluate(
            """async () => {
              const panel = window.jupyterapp.shell.currentWidget;
              await Promise.all([window.jupyterapp.restored, panel.revealed, panel.sessionContext.ready]);
            }"""
        )
        return page

    yield open_notebook
    context.close()
    outside = [url for url in urls if urlsplit(url).hostname not in ("127.0.0.1", None, "")]
    assert outside == []
    assert troubles == []


def run_all(page: Page) -> list[dict[str, Any]]:
    """Run all cells, wait until each has its number, and return the code cells as saved."""
    page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells')")
    page.wait_for_function(
        """() => [...window.jupyterapp.shell.currentWidget.content.model.cells]
          .filter((cell) => cell.type === "code" && cell.sharedModel.getSource().trim())
          .every((cell) => cell.executionCount !== null && cell.executionState !== "running")"""
    )
    cells: list[dict[str, Any]] = page.evaluate(
        """[...window.jupyterapp.shell.currentWidget.content.model.cells]
          .filter((cell) => cell.type === "code").map((cell) => cell.toJSON())"""
    )
    return cells


def restart(page: Page) -> None:
    """Restart the kernel and clear the outputs."""
    page.evaluate(
        """async () => {
          const { sessionContext } = window.jupyterapp.shell.currentWidget;
          await sessionContext.session.kernel.restart();
          await window.jupyterapp.commands.execute('notebook:clear-all-cell-outputs');
        }"""
    )


def unexpected(cells: list[dict[str, Any]]) -> list[str]:
    """Return the errors of cells that are not tagged as raising."""
    return [
        output["evalue"]
        for cell in cells
        if "raises-exception" not in cell["metadata"].get("tags", [])
        for output in cell["outputs"]
        if output["output_type"] == "error"
    ]


def look(page: Page, machine: Locator, folder: Path, name: str) -> None:
    """Keep a picture of the time machine in the light and in the dark theme."""
    for scheme in ("Light", "Dark"):
        page.evaluate(
            f"window.jupyterapp.commands.execute('apputils:change-theme', {{theme: 'JupyterLab {scheme}'}})"
        )
        page.wait_for_function(f"document.body.dataset.jpThemeName === 'JupyterLab {scheme}'")
        page.locator("#jupyterlab-splash").wait_for(state="detached")
        machine.scroll_into_view_if_needed()
        page.screenshot(path=folder / f"{name}-{scheme.lower()}.png")


def test_the_tour_runs_and_its_time_machine_moves(opened: Callable[[Path], Page], screenshots: Path) -> None:
    """Every cell of the tour runs; the slider shows an earlier event, the state then, and what changed."""
    page = opened(TOUR)
    assert unexpected(run_all(page)) == []
    machine = page.get_by_role("group", name="time machine: Order/o-1").first
    slider = machine.get_by_role("slider")
    slider.fill("1")
    assert machine.get_by_role("region", name="Event").get_by_text("OrderPlaced").is_visible()
    row = machine.get_by_role("row", name=re.compile("^status "))
    assert row.inner_text().split("\t") == ["status", "pending", "was new"]
    slider.press("ArrowRight")
    assert row.inner_text().split("\t") == ["status", "paid", "was pending"]
    look(page, machine, screenshots, "tour")


def test_an_untrusted_notebook_shows_tables_until_it_is_run(
    opened: Callable[[Path], Page], tmp_path: Path, screenshots: Path
) -> None:
    """A fresh clone shows the static form; running the cell brings the slider, which has its own keys."""
    page = opened(own_notebook(tmp_path))
    saved = page.get_by_role("table").filter(has_text="what changed")
    saved.wait_for()
    assert saved.get_by_text("status: pending → paid").is_visible()
    assert page.get_by_role("slider").count() == 0
    page.screenshot(path=screenshots / "untrusted.png")
    assert unexpected(run_all(page)) == []
    machine = page.get_by_role("group", name="time machine: Order/o-1")
    machine.get_by_role("slider").press("Home")
    assert machine.get_by_text("Nothing has happened yet").is_visible()
    machine.get_by_role("slider").press("ArrowRight")
    assert machine.get_by_role("region", name="Event").get_by_text("OrderPlaced").is_visible()
    look(page, machine, screenshots, "own")
    restart(page)
    assert unexpected(run_all(page)) == []
    machine.get_by_role("slider").fill("2")
    assert machine.get_by_text("was pending").is_visible()


def test_an_untrusted_notebook_shows_the_picture_of_a_map_until_it_is_run(
    opened: Callable[[Path], Page], tmp_path: Path, screenshots: Path
) -> None:
    """A fresh clone shows the map as an image, no wider than the page; running the cell brings its slider."""
    scope: dict[str, Any] = {}
    exec(MAP.replace("\nProcessMap", "\nview = ProcessMap"), scope)
    page = opened(saved_notebook(tmp_path, MAP, scope["view"]._repr_mimebundle_()))
    picture = page.get_by_role("img", name="A map. Shown: 3 of 3 edges, 100 % of 25 transitions")
    picture.wait_for()
    page.wait_for_function("one => one.naturalWidth > 100", arg=picture.element_handle())
    assert page.get_by_role("slider").count() == 0
    page.screenshot(path=screenshots / "untrusted-map.png")
    assert unexpected(run_all(page)) == []
    live = page.get_by_role("group", name="A map")
    live.get_by_role("slider").press("Home")
    live.get_by_role("status").get_by_text("1 of 3 edges, 60.0 % of 25 transitions").wait_for()
    look(page, live, screenshots, "map")


def own_notebook(folder: Path) -> Path:
    """Write a notebook of one cell with the output that its run would have saved."""
    store = MemoryStore(clock=ManualClock("2026-03-02T09:00:00Z", step=timedelta(hours=1)), ids=SeededIds(1))
    orders = Repository(store, Order)
    items = [Item(sku="cup", quantity=4, price=Decimal("5.60"))]
    orders.run("o-1", Order.place, customer="alice", items=items)
    orders.run("o-1", Order.pay, payment="p-1", amount=Decimal("22.40"), method="card")
    return saved_notebook(folder, OWN, TimeMachine(orders, "o-1")._repr_mimebundle_())


def saved_notebook(folder: Path, source: str, data: dict[str, Any]) -> Path:
    """Write a notebook of one cell with this output, as nobody here has run it: an untrusted one."""
    output = {"output_type": "execute_result", "execution_count": 1, "metadata": {}, "data": data}
    cell = {
        "cell_type": "code",
        "id": "c1",
        "metadata": {},
        "execution_count": 1,
        "source": source.strip(),
        "outputs": [output],
    }
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    path = folder / "own.ipynb"
    path.write_text(json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": kernel, "cells": [cell]}))
    return path
