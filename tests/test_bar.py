"""The progress bar: none for short work, and how far long work is."""

from __future__ import annotations

import pytest

from esim import bar
from esim.bar import Bar
from esim.event import Event
from esim.memory import MemoryStore
from esim.subscription import Subscription


class Told(Event):
    number: int


class Seconds:
    """A clock that goes on by so much at each look."""

    def __init__(self, step: float) -> None:
        self.now, self.step = 0.0, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def test_short_work_shows_no_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(bar, "monotonic", Seconds(0.001))
    with Bar(0, 100, "short") as shown:
        for position in range(100):
            shown.at(position)
    assert capsys.readouterr().err == ""


def test_long_work_shows_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bar, "monotonic", Seconds(1.0))
    with Bar(100, 110, "orders") as shown:
        for position in range(100, 111):
            shown.at(position)
    told = capsys.readouterr().err
    assert "orders" in told
    assert "/10 " in told


def test_a_slow_handler_shows_how_far_its_subscription_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Event by event: a window of the log may take hours."""
    monkeypatch.setattr(bar, "monotonic", Seconds(1.0))
    store = MemoryStore()
    store.append("Told/t-1", [Told(number=number) for number in range(5)])
    seen: list[str] = []

    def slow(event: Told) -> None:
        seen.append(capsys.readouterr().err)

    slow.__annotations__["event"] = Told
    Subscription(store, slow).catch_up()
    assert "slow" not in seen[0]
    assert any("slow" in told and "/5 " in told for told in seen)
