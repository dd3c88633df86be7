"""The live time machine on a page of its own, opened from a file, driven as a person would."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from esim.clock import ManualClock, SeededIds
from esim.memory import MemoryStore
from esim.projection import Key, Projection, Row, Rows, on
from esim.repository import Repository
from esim.shop import Item, Order, OrderCancelled, OrderPlaced
from esim.view import TimeMachine

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

HOSTILE = "<img src=x onerror=\"document.title='owned'\"></script><!-- & late"
Open = Callable[..., "Page"]


class Account(Row):
    """How many orders a customer has."""

    customer: Key[str]
    orders: int = 0


class Accounts(Projection[Account]):
    """Orders per customer that were not cancelled."""

    @on(OrderPlaced)
    def placed(self, event: OrderPlaced, rows: Rows[Account]) -> None:
        """Count an order."""
        row = rows.get(event.customer) or Account(customer=event.customer)
        rows.put(row.but(orders=row.orders + 1))

    @on(OrderCancelled)
    def cancelled(self, event: OrderCancelled, rows: Rows[Account]) -> None:
        """Forget alice."""
        rows.delete("alice")


@pytest.fixture(scope="module")
def machine() -> TimeMachine:
    """Return the time machine of an order that is placed, paid and cancelled, beside a read model."""
    clock = ManualClock("2026-03-02T09:00:00Z", step=timedelta(hours=1))
    store = MemoryStore(clock=clock, ids=SeededIds(1))
    orders = Repository(store, Order)
    cups = [Item(sku="cup", quantity=4, price=Decimal("5.60"))]
    orders.run("o-1", Order.place, customer="alice", items=cups)
    orders.run("o-1", Order.pay, payment="p-1", amount=Decimal("22.40"), method="card")
    orders.run("o-2", Order.place, customer=HOSTILE, items=cups)
    orders.run("o-1", Order.cancel, reason=HOSTILE)
    return TimeMachine(orders, "o-1", projections=[Accounts(store)])


@pytest.fixture
def opened(chromium: Browser, machine: TimeMachine, tmp_path: Path) -> Iterator[Open]:
    """Return a function that opens the page; afterwards no error and no request may have been seen."""
    seen: list[str] = []
    contexts: list[Any] = []

    def open_page(**options: Any) -> Page:
        context = chromium.new_context(**options)
        contexts.append(context)
        context.on("request", lambda request: seen.append(request.url))
        page = context.new_page()
        page.on("console", lambda message: troubles.append(message.text))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.goto(machine.to_html(tmp_path / "page.html").as_uri())
        return page

    troubles: list[str] = []
    yield open_page
    for context in contexts:
        context.close()
    assert troubles == []
    assert [url for url in seen if not url.startswith(("file:", "data:"))] == []


def slider(page: Page) -> Locator:
    """Return the slider."""
    return page.get_by_role("slider", name="version of Order/o-1")


def state_row(page: Page, field: str) -> Locator:
    """Return the row of a state's field."""
    return page.get_by_role("table", name="state of Order").get_by_role("row", name=re.compile(f"^{field} "))


def test_it_opens_at_the_last_step(opened: Open) -> None:
    """What is shown first is how things stand now."""
    page = opened()
    assert slider(page).input_value() == "4"
    assert page.get_by_text("version 4 of 4").is_visible()
    assert page.get_by_role("button", name="next step").is_disabled()


def test_fill_moves_to_a_step(opened: Open) -> None:
    """Event, state, what changed and the read model are those of the step."""
    page = opened()
    slider(page).fill("2")
    assert page.get_by_role("region", name="Event").get_by_text("OrderPaid").is_visible()
    assert state_row(page, "status").inner_text().split("\t") == ["status", "paid", "was pending"]
    assert state_row(page, "total").inner_text().split("\t") == ["total", "22.40"]
    rows = page.get_by_role("table", name="read model Accounts").get_by_role("row")
    assert rows.nth(1).inner_text().split() == ["alice", "1"]


def test_the_keyboard_moves_it(opened: Open) -> None:
    """Home, End and the arrows work on the slider; its value is spoken in words."""
    page = opened()
    slider(page).focus()
    spoken = []
    for key in ("Home", "ArrowRight", "ArrowRight", "End", "ArrowLeft"):
        page.keyboard.press(key)
        spoken.append(slider(page).get_attribute("aria-valuetext"))
    assert spoken == [
        "version 0",
        "version 1: OrderPlaced",
        "version 2: OrderPaid",
        "version 4: RefundRequested",
        "version 3: OrderCancelled",
    ]


def test_the_mouse_moves_it(opened: Open) -> None:
    """Dragging the thumb to the left end shows the time before the first event."""
    page = opened()
    box = slider(page).bounding_box()
    assert box is not None
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] - 9, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + 2, middle, steps=5)
    page.mouse.up()
    assert slider(page).input_value() == "0"
    assert page.get_by_text("Nothing has happened yet").is_visible()


def test_the_buttons_step(opened: Open) -> None:
    """Each of the four buttons does what it is called."""
    page = opened()
    stops = []
    for name in ("first step", "next step", "last step", "previous step"):
        page.get_by_role("button", name=name).click()
        stops.append(slider(page).input_value())
    assert stops == ["0", "1", "4", "3"]


def test_changes_are_announced(opened: Open) -> None:
    """A live region says the step and its changes in words."""
    page = opened()
    slider(page).fill("2")
    status = page.get_by_role("status").filter(has_text="OrderPaid")
    assert status.inner_text() == "version 2: OrderPaid; status: pending → paid; paid: 0 → 22.40"


def test_a_read_model_shows_rows_that_come_and_go(opened: Open) -> None:
    """A row that is not there yet or any more keeps its place, and says so in words."""
    page = opened()
    rows = page.get_by_role("table", name="read model Accounts").get_by_role("row")
    slider(page).fill("3")
    assert rows.nth(1).inner_text().split() == ["alice", "·", "removed"]
    assert rows.nth(2).inner_text().endswith("new row")


def test_hostile_text_is_only_text(opened: Open) -> None:
    """Markup in payloads, keys and states is shown as it was written."""
    page = opened()
    slider(page).fill("3")
    assert page.get_by_role("region", name="Event").get_by_text(HOSTILE).is_visible()
    assert page.get_by_role("table", name="read model Accounts").get_by_text(HOSTILE).is_visible()
    assert page.locator("main img").count() == 0
    assert page.title() == "Order/o-1 · time machine"


@pytest.mark.parametrize("width", [1000, 700, 380])
def test_nothing_jumps_while_scrubbing(opened: Open, width: int) -> None:
    """Height, and the place of the last state field, are the same at every step; nothing is cut off."""
    page = opened(viewport={"width": width, "height": 800})
    places = set()
    for step in range(5):
        slider(page).fill(str(step))
        root, last = page.get_by_role("group").bounding_box(), state_row(page, "refunded").bounding_box()
        assert root is not None
        assert last is not None
        places.add((round(root["height"]), round(last["y"])))
    assert len(places) == 1
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_light_and_dark_are_legible(opened: Open, screenshots: Path) -> None:
    """Ink and paper differ by a contrast of at least 7, soft text by 4.5, in both schemes and in a theme."""
    for name, options in (("light", {}), ("dark", {"color_scheme": "dark"}), ("theme", {})):
        page = opened(viewport={"width": 960, "height": 640}, **options)
        if name == "theme":
            page.add_style_tag(content=":root { --jp-layout-color1: #111; --jp-ui-font-color0: #eee }")
        slider(page).fill("2")
        page.screenshot(path=screenshots / f"page-{name}.png", full_page=True)
        value, paper = state_row(page, "status").get_by_role("cell").first, page.get_by_role("group")
        assert contrast(color(value, "color"), color(paper, "background-color")) >= 7
        if name != "theme":
            soft = page.get_by_text("was pending")
            assert contrast(color(soft, "color"), color(paper, "background-color")) >= 4.5


def color(place: Locator, kind: str) -> list[float]:
    """Return a colour of an element as it is drawn: red, green, blue of 0 to 255."""
    text = place.evaluate("(node, kind) => getComputedStyle(node).getPropertyValue(kind)", kind)
    return [float(part) for part in re.findall(r"[\d.]+", text)[:3]]


def contrast(one: list[float], other: list[float]) -> float:
    """Return the contrast of two colours, 1 to 21, as WCAG 2.2 defines it."""
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(rgb: list[float]) -> float:
    """Return the relative luminance of a colour, 0 to 1."""
    parts = [c / 255 / 12.92 if c <= 10.31 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in rgb]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]
