"""The bus: what is appended is delivered, what is not is not, and a handler that fails harms no other."""

from __future__ import annotations

import asyncio
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from esim.bus import Bus
from esim.envelope import RecordedEvent
from esim.errors import Conflict, InvalidArgument
from esim.event import Event
from esim.memory import MemoryStore
from esim.projection import on
from esim.store import EventStore
from esim.upcast import retired
from esim.writing import Write


class Paid(Event):
    amount: int


class Noted(Event):
    text: str


@pytest.fixture(params=[EventStore, MemoryStore])
def store(request):
    """An empty store of each kind that lives in memory."""
    with request.param() as opened:
        yield opened


def paid(event: Paid) -> None:
    """Stand for a handler whose annotation says what it takes."""


def test_what_is_published_is_stored_and_delivered_in_order(store):
    bus, seen = Bus(store), []
    bus.subscribe(Event, seen.append)
    bus.publish("Order/1", [Paid(amount=1), Paid(amount=2)])
    bus.publish_all([Write("Order/2", Paid(amount=3)), Write("Note/1", Noted(text="x"))])
    assert seen == [one.event for one in store.read()]
    assert len(seen) == 4


def test_every_way_to_append_is_delivered(store):
    bus, seen = Bus(store), []
    bus.subscribe(Paid, lambda event: seen.append(event.amount))
    store.append("Order/1", Paid(amount=1))
    store.append_all([Write("Order/2", Paid(amount=2))])
    assert seen == [1, 2]


def test_what_cannot_be_stored_is_not_delivered(store):
    bus, seen = Bus(store), []
    bus.subscribe(Event, seen.append)
    with pytest.raises(Conflict):
        bus.publish("Order/1", Paid(amount=1), expected=5)
    assert seen == []


def test_subscribers_get_their_types_and_what_came_before_them_is_theirs_no_more(store):
    bus = Bus(store)
    seen: dict[str, list[str]] = {"paid": [], "two": [], "all": []}
    store.append("Order/1", Paid(amount=0))
    bus.subscribe(Paid, lambda event: seen["paid"].append(event.event_type))
    bus.subscribe(Paid, Noted, lambda event: seen["two"].append(event.event_type))
    bus.subscribe(Event, lambda event, recorded: seen["all"].append(f"{recorded.position}"))
    store.append("Order/1", [Paid(amount=1), Noted(text="x")])
    assert seen == {"paid": ["Paid"], "two": ["Paid", "Noted"], "all": ["2", "3"]}


def test_the_types_come_from_the_annotation_too(store):
    bus = Bus(store)
    bus.subscribe(paid)
    assert bus._subscribers[0].types == {"Paid"}


def test_an_unsubscribed_handler_gets_nothing_more(store):
    bus, seen = Bus(store), []
    leave = bus.subscribe(Paid, lambda event: seen.append(event.amount))
    store.append("Order/1", Paid(amount=1))
    leave()
    leave()
    store.append("Order/1", Paid(amount=2))
    assert seen == [1]


def test_a_handler_that_fails_harms_no_other_and_not_the_append(store, caplog):
    bus, seen = Bus(store), []

    @on(Paid)
    def bad(event):
        raise ValueError("cannot")

    bus.subscribe(bad)
    bus.subscribe(Paid, lambda event: seen.append(event.amount))
    with caplog.at_level(logging.ERROR, "esim.bus"):
        recorded = bus.publish("Order/1", Paid(amount=1))
    assert recorded[0].position == 1
    assert seen == [1]
    assert bus.df().to_dict("records") == [
        {"handler": "bad", "position": 1, "stream": "Order/1", "type": "Paid", "cause": "ValueError: cannot"}
    ]
    assert caplog.messages == ["bad failed at position 1 (Paid): ValueError: cannot"]


def test_an_interrupt_in_one_handler_leaves_nothing_undelivered(store):
    bus, seen, interrupted = Bus(store), [], []

    @on(Paid)
    def stopped(event):
        if not interrupted:
            interrupted.append(event)
            raise KeyboardInterrupt

    @on(Paid)
    def handler(event):
        seen.append(event.amount)

    bus.subscribe(stopped)
    bus.subscribe(handler)
    with pytest.raises(KeyboardInterrupt):
        bus.publish("Order/1", [Paid(amount=1), Paid(amount=2)])
    assert store.position == 2
    bus.publish("Order/1", Paid(amount=3))
    assert seen == [1, 2, 3]


def test_an_interrupt_leaves_no_part_of_an_event_undelivered(store):
    class Sent(Event):
        text: str

    retired("Sent", by=lambda old: [Noted(**old), Noted(text="copy")], into=Noted)
    bus, seen = Bus(store), []

    @on(Noted)
    def handler(event):
        seen.append(event.text)
        if len(seen) == 1:
            raise KeyboardInterrupt

    bus.subscribe(handler)
    with pytest.raises(KeyboardInterrupt):
        bus.publish("Note/1", Sent(text="first"))
    bus.publish("Note/1", Noted(text="last"))
    assert seen == ["first", "copy", "last"]


def test_an_event_whose_upcaster_fails_is_a_failure_of_those_who_wait_for_it_and_the_others_go_on(store):
    class Sent(Event):
        text: str

    def split(old):
        raise ValueError("cannot")

    retired("Sent", by=split, into=Noted)
    bus, seen = Bus(store), []
    bus.subscribe(Paid, lambda event: seen.append(event.amount))

    @on(Noted)
    def note(event):
        seen.append(event.text)

    bus.subscribe(note)
    bus.publish("Note/1", [Paid(amount=1), Sent(text="x"), Noted(text="y")])
    bus.publish("Note/1", Paid(amount=2))
    assert seen == [1, "y", 2]
    (failed,) = bus.df().to_dict("records")
    assert (failed["handler"], failed["position"], failed["type"]) == ("note", 2, "Sent")
    assert "raised ValueError: cannot" in failed["cause"]


def test_what_another_thread_appends_meanwhile_is_delivered_in_order_by_who_delivers_already(store):
    bus, seen, back = Bus(store), [], []

    def other() -> None:
        back.append(bus.publish("Order/2", Paid(amount=2))[0].position)

    @on(Paid)
    def handler(event):
        if event.amount == 1:
            thread = threading.Thread(target=other)
            thread.start()
            thread.join()  # which ends, as its publish waits for nobody
        seen.append(event.amount)

    bus.subscribe(handler)
    bus.publish("Order/1", Paid(amount=1))
    assert (back, seen) == ([2], [1, 2])


def test_what_handlers_append_is_delivered_after_what_caused_it(store):
    bus, seen = Bus(store), []

    @on(Paid)
    def answer(event, recorded):
        if event.amount < 3:
            store.append("Order/1", Paid(amount=event.amount + 1))
        seen.append(event.amount)

    bus.subscribe(answer)
    bus.subscribe(Paid, lambda event: seen.append(-event.amount))
    store.append("Order/1", Paid(amount=1))
    assert seen == [1, -1, 2, -2, 3, -3]
    causes = [one.causation_id for one in store.read()]
    assert causes == [None, *(str(one.event_id) for one in list(store.read())[:2])]


def test_async_handlers_are_awaited_also_while_a_loop_runs(store):
    bus, seen = Bus(store), []

    @on(Paid)
    async def handler(event):
        seen.append(f"begin {event.amount}")
        await asyncio.sleep(0)
        seen.append(f"end {event.amount}")

    bus.subscribe(handler)

    async def in_a_notebook() -> None:
        bus.publish("Order/1", [Paid(amount=1), Paid(amount=2)])

    with ThreadPoolExecutor(1) as other:  # this thread may have a loop of the browser tests
        other.submit(asyncio.run, in_a_notebook()).result()
    assert seen == ["begin 1", "end 1", "begin 2", "end 2"]


def test_events_of_many_threads_are_delivered_once_and_in_order(store):
    bus, seen = Bus(store), []
    bus.subscribe(Event, lambda event, recorded: seen.append(recorded.position))

    def write(who: int) -> None:
        for number in range(50):
            store.append(f"Order/{who}", Paid(amount=number))

    writers = [threading.Thread(target=write, args=(who,)) for who in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert seen == list(range(1, 201))


def test_a_closed_bus_delivers_nothing(store):
    bus, seen = Bus(store), []
    bus.subscribe(Event, seen.append)
    bus.close()
    bus.close()
    store.append("Order/1", Paid(amount=1))
    assert seen == []


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ((), "nothing to subscribe"),
        ((Paid,), "no handler"),
        (("Paid", paid), "'Paid' is no event class"),
        ((Paid, lambda: None), "takes no event"),
        ((Paid, lambda event, server: None), "'server'"),
    ],
)
def test_what_cannot_be_subscribed_is_told_at_once(store, wrong, told):
    with pytest.raises(InvalidArgument, match=told):
        Bus(store).subscribe(*wrong)


def test_rows_and_effects_need_a_subscription(store):
    def with_effects(event: Any, effects: Any) -> None: ...

    with pytest.raises(InvalidArgument, match="use a Subscription"):
        Bus(store).subscribe(Paid, with_effects)


def test_a_bus_says_who_listens(store):
    bus = Bus(store)
    assert repr(bus) == "<Bus: nobody at position 0>"
    bus.subscribe(paid)
    assert repr(bus) == "<Bus: paid at position 0>"


def test_a_recorded_event_needs_no_class(store):
    bus, seen = Bus(store), []

    def raw(recorded: RecordedEvent) -> None:
        seen.append(recorded.json)

    raw.__annotations__["recorded"] = RecordedEvent
    bus.subscribe(raw)
    store.append("Order/1", Paid(amount=1))
    assert seen == ['{"amount":1}']
