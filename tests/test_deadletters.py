"""Dead letters that are redriven: of split events, of replays, and wherever the process dies meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from esim.clock import ManualClock, SeededIds
from esim.contract import Store
from esim.effects import Effects
from esim.event import Event
from esim.memory import MemoryStore
from esim.retry import RetryPolicy
from esim.rows import Key, Row, Rows, on
from esim.store import EventStore
from esim.subscription import Subscription
from esim.upcast import retired

ONCE = RetryPolicy(max_attempts=1)


class Left(Event):
    at: str


class Came(Event):
    at: str


class Paid(Event):
    amount: int


class Crash(BaseException):
    """The process ends here."""


@pytest.fixture(params=[EventStore, MemoryStore])
def store(request) -> Iterator[Store]:
    with request.param(clock=ManualClock(), ids=SeededIds(3)) as opened:
        yield opened


@pytest.fixture
def paid(store) -> Store:
    """The same with twelve payments in four streams."""
    for number in range(1, 13):
        store.append(f"Order/o-{number % 4}", Paid(amount=number))
    return store


# --- split events ------------------------------------------------------------------------------------------


def _moved(store: Store, *, times: int = 1) -> None:
    class Moved(Event):
        a: str
        b: str

    for _ in range(times):
        store.append("Stock/1", Moved(a="x", b="y"))


def _broken(old: dict[str, Any]) -> list[Event]:
    return [Left(at=old["A"]), Came(at=old["b"])]


def _mended(old: dict[str, Any]) -> list[Event]:
    return [Left(at=old["a"]), Came(at=old["b"])]


def _noting(*types: type[Event]) -> tuple[Any, list[Event]]:
    seen: list[Event] = []

    @on(*types)
    def noting(event):
        seen.append(event)

    return noting, seen


@pytest.mark.parametrize("types", [(Left, Came), (Left,), (Came,)])
def test_an_event_whose_upcaster_failed_is_redriven_in_all_its_parts(store, types):
    _moved(store, times=2)  # the second waits behind the first
    retired("Moved", by=_broken, into=(Left, Came))
    handler, seen = _noting(*types)
    mine = Subscription(store, handler).catch_up()
    assert len(mine.dead_letters) == 2
    retired("Moved", by=_mended, into=(Left, Came))
    assert mine.dead_letters.redrive().handled.tolist() == [True, True]
    parts = [one for one in (Left(at="x"), Came(at="y")) if isinstance(one, types)]
    assert seen == parts * 2
    assert len(mine.dead_letters) == 0


def test_a_later_part_that_fails_is_all_that_is_left_of_its_letter(store):
    _moved(store)
    retired("Moved", by=_broken, into=(Left, Came))
    seen: list[str] = []
    failing = [True]

    @on(Left, Came)
    def handler(event):
        if isinstance(event, Came) and failing:
            raise ValueError("no")
        seen.append(event.at)

    mine = Subscription(store, handler, inbox=True).catch_up()
    retired("Moved", by=_mended, into=(Left, Came))
    for _ in range(2):
        assert mine.dead_letters.redrive().cause.tolist() == ["ValueError: no"]
        assert seen == ["x"]
    failing.clear()
    again = Subscription(store, handler, inbox=True)
    assert again.dead_letters.redrive().handled.tolist() == [True]
    assert seen == ["x", "y"]


def test_a_part_that_was_redriven_sends_its_effects_although_a_later_one_fails(store):
    _moved(store)
    retired("Moved", by=_broken, into=(Left, Came))
    told: list[str] = []

    def tell(place: str) -> None:
        told.append(place)

    @on(Left, Came)
    def handler(event, effects: Effects):
        effects.call(tell, event.at)
        if event == Came(at="y"):
            raise ValueError("no")

    mine = Subscription(store, handler, outbox=True).catch_up()
    retired("Moved", by=_mended, into=(Left, Came))
    assert mine.dead_letters.redrive().cause.tolist() == ["ValueError: no"]
    assert told == ["x"]
    assert mine.effects().status.tolist() == ["done"]


# --- effects -----------------------------------------------------------------------------------------------


sent: list[int] = []
mood: list[str] = []


def mail(amount: int) -> None:
    sent.append(amount)


@on(Paid)
def mailing(event: Paid, effects: Effects) -> None:
    """Mail, and fail before or after that where it is told to."""
    if "quiet" in mood or ("early" in mood and event.amount == 5):
        if "early" in mood:
            raise ValueError("early")
        return
    effects.call(mail, event.amount)
    if "late" in mood:
        raise ValueError("late")
    if "interrupt" in mood:
        raise KeyboardInterrupt


@pytest.fixture(autouse=True)
def calm() -> None:
    """Begin with an outside world that has seen nothing, and a handler that does not fail."""
    sent.clear()
    mood.clear()


@pytest.mark.parametrize("anew", [False, True])
def test_the_letters_of_a_gated_replay_send_nothing(paid, anew):
    mood.append("quiet")
    mine = Subscription(paid, mailing, retry=ONCE).catch_up()
    mood[:] = ["early"]
    mine.replay()
    mood.clear()
    mine = Subscription(paid, mailing, retry=ONCE) if anew else mine
    assert mine.dead_letters.redrive().handled.all()
    assert sent == []
    assert mine.effects().status.tolist() == ["gated"] * 12


def test_letters_from_before_what_is_replayed_do_send(paid):
    mood.append("early")
    mine = Subscription(paid, mailing, retry=ONCE).catch_up()
    mine.replay(after=9)
    mood.clear()
    mine.dead_letters.redrive()
    assert sorted(sent) == list(range(1, 13))


@pytest.mark.parametrize("way", ["late", "interrupt"])
def test_what_a_failing_redrive_has_done_is_on_the_ledger(paid, way):
    mood.append("early")
    mine = Subscription(paid, mailing, retry=ONCE).catch_up()
    mood[:] = [way]
    if way == "late":
        assert mine.dead_letters.redrive().cause.tolist() == ["ValueError: late"]
    else:
        with pytest.raises(KeyboardInterrupt):
            mine.dead_letters.redrive()
    assert sent.count(5) == mine.effects().arguments.tolist().count('{"amount":5}') == 1
    mood.clear()
    again = Subscription(paid, mailing, retry=ONCE)
    assert again.dead_letters.redrive().handled.all()
    assert sorted(sent) == list(range(1, 13))


# --- crashes -----------------------------------------------------------------------------------------------


class Sum(Row):
    stream: Key[str]
    total: int = 0
    events: int = 0


def _adding(failing: list[bool]) -> Any:
    def adding(event: Paid, recorded: Any, rows: Rows[Sum], effects: Effects) -> None:
        row = rows.get(recorded.stream) or Sum(stream=recorded.stream)
        rows.put(row.but(total=row.total + event.amount, events=row.events + 1))
        effects.call(mail, event.amount)
        if failing and event.amount == 6:
            raise ValueError("no")

    adding.__annotations__.update(event=Paid, rows=Rows[Sum])
    return adding


def test_a_redrive_may_die_at_any_point_and_goes_on_where_it_was(paid):
    """Rows count each event once, and no letter is lost; what is in the outbox is sent."""
    name, reached = 0, True
    while reached:
        name, reached = name + 1, False
        sent.clear()
        failing = [True]
        adding = _adding(failing)
        retry = RetryPolicy(max_attempts=2, initial_interval=0)  # with one, a crash in an effect is its end
        options: dict[str, Any] = {"retry": retry, "sends": [mail]}
        mine = Subscription(paid, adding, f"s{name}", **options).catch_up()
        assert len(mine.dead_letters) == 2
        failing.clear()
        for number, _ in enumerate(steps := mine.dead_letters.steps(), 1):
            if number == name:
                steps.close()  # type: ignore[attr-defined]
                reached = True
        rest = Subscription(paid, adding, f"s{name}", **options)
        rest.dead_letters.redrive()
        assert len(rest.catch_up().dead_letters) == 0
        assert rest.df().events.tolist() == [3] * 4
        assert rest.df().total.sum() == sum(range(1, 13))
        assert set(sent) == set(range(1, 13))
        assert len(sent) <= 12 + reached
        assert rest.effects().status.tolist() == ["done"] * 12
    assert name > 2 * 5


def test_a_redrive_leaves_what_is_noted_of_the_event_at_hand(paid):
    """Attempts at one event count across restarts, whatever else is redriven in between."""
    failing = [2, 7]

    @on(Paid)
    def handler(event):
        if event.amount in failing:
            raise Crash if event.amount == 7 else ValueError("no")

    def anew() -> Subscription:
        return Subscription(paid, handler, retry=RetryPolicy(max_attempts=3, initial_interval=0))

    deaths = 0
    while True:
        try:
            mine = anew()
            if deaths:
                before = mine._progress.load()
                failing[:] = [7]
                mine.dead_letters.redrive("Order/o-2") if deaths == 1 else None
                assert mine._progress.load() == before
            mine.catch_up()
            break
        except Crash:
            deaths += 1
    assert deaths <= 3
    letters = mine.dead_letters.df()
    assert letters.cause_type[0] == "ProcessDied"
    assert letters.position.tolist() == [7, 11]


def test_a_redrive_of_a_stopped_subscription_leaves_it_stopped(paid):
    failing = [2, 7]

    @on(Paid)
    def handler(event):
        if event.amount in failing:
            raise ValueError("no")

    mine = Subscription(paid, handler, retry=ONCE).catch_up()
    stopping = Subscription(paid, handler, retry=ONCE, on_exhausted="stop")
    paid.append("Order/o-1", Paid(amount=7))
    with pytest.raises(Exception, match="position 13"):
        stopping.catch_up()
    failing.remove(2)
    stopping.dead_letters.redrive("Order/o-2")
    assert stopping.state.startswith("stopped: ValueError")
    assert mine.name == "handler"
