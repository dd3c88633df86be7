"""Subscriptions: what is delivered, when it is committed, and what becomes of failures."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Annotated, Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esim import caused_by
from esim.clock import ManualClock, SeededIds
from esim.contract import Store
from esim.effects import Effects
from esim.envelope import RecordedEvent
from esim.errors import (
    CheckpointAhead,
    HandlerFailed,
    InvalidArgument,
    NotCaughtUp,
    StoreClosed,
    Superseded,
)
from esim.event import Event, Tag
from esim.memory import MemoryStore
from esim.points import Point
from esim.progress import Mark
from esim.projection import Key, Projection, Row, Rows, on
from esim.retry import CircuitBreaker, RetryPolicy
from esim.store import EventStore
from esim.subscription import Subscription, forget, subscriptions


class Paid(Event):
    customer: Annotated[str, Tag()]
    amount: int


class Noted(Event):
    text: str


class Spend(Row):
    customer: Key[str]
    total: int = 0
    events: int = 0


def spend(event: Paid, rows: Rows[Spend]) -> None:
    """Add a payment to its customer's row."""
    row = rows.get(event.customer) or Spend(customer=event.customer)
    rows.put(row.but(total=row.total + event.amount, events=row.events + 1))


class Crash(BaseException):
    """The process ends here, as far as a delivery can tell."""


@pytest.fixture(params=[EventStore, MemoryStore])
def store(request) -> Iterator[Store]:
    """A store of twelve payments in four streams, by three customers; of either kind."""
    with request.param(clock=ManualClock(), ids=SeededIds(3)) as opened:
        yield filled(opened)


@pytest.fixture
def log() -> Iterator[EventStore]:
    """The same, where it matters that DuckDB keeps it."""
    with EventStore(clock=ManualClock(), ids=SeededIds(3)) as opened:
        yield filled(opened)


def filled(store: Any) -> Any:
    for number in range(1, 13):
        store.append(f"Order/o-{number % 4}", Paid(customer=f"c-{number % 3}", amount=number))
    return store


class Watch:
    """A handler that keeps what it saw, and fails where it is told to."""

    def __init__(self, *failing: int, times: int = 10**9) -> None:
        self.seen: list[int] = []
        self.failing, self.times = set(failing), times

    def __call__(self, event: Paid, recorded: RecordedEvent[Any]) -> None:
        if event.amount in self.failing and self.times > 0:
            self.times -= 1
            raise ConnectionError(f"no answer for {event.amount}")
        self.seen.append(recorded.position)


def crash_at(subscription: Subscription, name: str, position: int, count: int = 1) -> bool:
    """Deliver until a point is reached for the `count`-th time, and die there; say whether it was."""
    steps = subscription.steps()
    for point in steps:
        count -= point == Point(name, position)
        if not count:
            steps.close()  # type: ignore[attr-defined]
            return True
    return False


# --- what is delivered -------------------------------------------------------------------------------------


def test_every_event_is_handled_once_in_order_and_later_ones_when_it_catches_up_again(store):
    watch = Watch()
    mails = Subscription(store, watch, "mails").catch_up()
    assert watch.seen == list(range(1, 13))
    store.append("Order/o-9", Paid(customer="eve", amount=99))
    assert mails.lag == 1
    mails.catch_up().catch_up()
    assert watch.seen == list(range(1, 14))
    assert (mails.position, mails.lag, mails.state) == (13, 0, "idle")


def test_the_annotation_says_which_events_are_handled(store):
    store.append("Note/n-1", Noted(text="hello"))
    seen: list[Any] = []

    def payments(event: Paid) -> None:
        seen.append(event.amount)

    def both(event: Paid | Noted) -> None:
        seen.append(type(event).__name__)

    def everything(event: Event) -> None:
        seen.append(event.event_type)

    def raw(recorded: RecordedEvent) -> None:
        seen.append(recorded.json)

    # the annotations of local classes cannot be evaluated here, so they are given as the classes themselves
    payments.__annotations__["event"] = Paid
    both.__annotations__["event"] = Paid | Noted
    everything.__annotations__["event"] = Event
    raw.__annotations__["recorded"] = RecordedEvent
    for handler, told in (
        (payments, list(range(1, 13))),
        (both, ["Paid"] * 12 + ["Noted"]),
        (everything, ["Paid"] * 12 + ["Noted"]),
        (raw, [one.json for one in store.read()]),
    ):
        seen.clear()
        Subscription(store, handler).catch_up()
        assert seen == told


def test_a_marked_function_needs_no_annotation(store):
    seen: list[int] = []

    @on(Paid)
    def marked(event, recorded):
        seen.append(recorded.version)

    Subscription(store, marked).catch_up()
    assert seen == [1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3]


def test_category_and_tag_narrow_what_is_delivered(store):
    store.append("Gift/g-1", Paid(customer="c-1", amount=50))
    for wanted, told in (
        ({"category": "Gift"}, [13]),
        ({"tag": "customer:c-2"}, [2, 5, 8, 11]),
        ({"tag": "customer:c-1", "category": "Gift"}, [13]),
        ({"tag": "customer:nobody"}, []),
    ):
        watch = Watch()
        narrowed = Subscription(store, watch, f"w-{wanted}", **wanted).catch_up()
        assert watch.seen == told
        assert narrowed.position == 13


def test_an_empty_log_is_caught_up_with():
    with EventStore() as empty:
        assert Subscription(empty, Watch(), "w").catch_up().position == 0


def test_an_async_handler_is_awaited_event_by_event_also_while_a_loop_runs(store):
    seen: list[str] = []

    async def handler(event: Paid) -> None:
        seen.append(f"begin {event.amount}")
        await asyncio.sleep(0)
        seen.append(f"end {event.amount}")

    async def in_a_notebook() -> None:
        Subscription(store, handler).catch_up()

    with ThreadPoolExecutor(1) as other:  # this thread may have a loop of the browser tests
        other.submit(asyncio.run, in_a_notebook()).result()
    assert seen == [f"{what} {number}" for number in range(1, 13) for what in ("begin", "end")]


def test_an_async_handler_that_cancels_itself_has_failed(store):
    async def cancelled(event: Paid) -> None:
        if event.amount == 4:
            raise asyncio.CancelledError

    cancelled.__annotations__["event"] = Paid
    mails = Subscription(store, cancelled, retry=RetryPolicy(max_attempts=2)).catch_up()
    assert mails.dead_letters.df().cause_type.tolist()[0] == "CancelledError"
    assert mails.position == 12


def test_an_async_handler_that_fails_is_tried_again(store):
    failures = [1, 1]

    async def handler(event: Paid) -> None:
        await asyncio.sleep(0)
        if failures and failures.pop():
            raise ValueError("not yet")

    assert len(Subscription(store, handler).catch_up().dead_letters) == 0
    assert not failures


def test_what_a_handler_appends_is_caused_by_its_event(store):
    @on(Paid)
    def react(event, recorded):
        if recorded.position == 5:
            store.append("Note/n-5", Noted(text="seen"))

    Subscription(store, react).catch_up()
    cause = store.read(after=4).first()
    note = store.read("Note/n-5").first()
    assert note.causation_id == str(cause.event_id) == note.correlation_id
    store.append("Note/n-6", Noted(text="of nobody"))
    assert store.read("Note/n-6").first().causation_id is None


def test_the_shares_of_a_partition_are_disjoint_and_whole(store):
    watches = [Watch() for _ in range(3)]
    for share, watch in enumerate(watches):
        Subscription(store, watch, f"w-{share}", partition=(share, 3)).catch_up()
    seen = [set(watch.seen) for watch in watches]
    assert set().union(*seen) == set(range(1, 13))
    assert sum(map(len, seen)) == 12
    for stream in store.streams():
        positions = {one.position for one in store.read(stream)}
        assert sum(bool(positions & each) for each in seen) == 1


@pytest.mark.parametrize("verb", ["catch_up", "start", "reset", "replay"])
@pytest.mark.parametrize("kind", ["plain", "async"])
def test_a_handler_is_not_asked_to_go_on_by_itself(store, kind, verb):
    """It is told, wherever it runs; an async one runs in a thread of its own."""

    @on(Paid)
    def plain(event):
        getattr(mine, verb)()

    @on(Paid)
    async def in_a_loop(event):
        getattr(mine, verb)()

    mine = Subscription(store, plain if kind == "plain" else in_a_loop, "greedy")
    in_time(mine.catch_up)
    assert mine.dead_letters.df().cause_message[0].startswith("the handler of 'greedy' asks")


@pytest.mark.parametrize("kind", ["plain", "async"])
def test_a_handler_may_pause_its_subscription_after_its_event(store, kind):
    seen: list[int] = []

    def enough(event: Paid) -> None:
        seen.append(event.amount)
        if event.amount == 3:
            mine.pause()

    async def in_a_loop(event: Paid) -> None:
        enough(event)

    handler = on(Paid)(enough if kind == "plain" else in_a_loop)
    mine = Subscription(store, handler, "mine")
    in_time(mine.catch_up)
    assert (seen, mine.position, mine.state, len(mine.dead_letters)) == ([1, 2, 3], 3, "paused", 0)
    in_time(mine.catch_up)
    assert Subscription(store, handler, "mine").state == "paused"
    assert seen == [1, 2, 3]
    mine = Subscription(store, handler, "mine").resume()
    in_time(mine.catch_up)
    assert seen == list(range(1, 13))


def test_what_a_handler_asked_for_before_the_process_died_is_not_done(store):
    """A pause is committed after its event, and what died committed nothing."""

    @on(Paid)
    def handler(event):
        mine.pause()

    mine = Subscription(store, handler)
    assert crash_at(mine, "handled", 1)
    assert (mine.state, mine.position) == ("idle", 0)
    assert mine.catch_up().state == "paused"


@pytest.mark.parametrize("kind", ["plain", "async"])
def test_a_handler_may_stop_the_thread_that_it_runs_in(store, kind):
    seen: list[int] = []

    def enough(event: Paid) -> None:
        seen.append(event.amount)
        if event.amount == 3:
            mine.stop()

    async def in_a_loop(event: Paid) -> None:
        enough(event)

    mine = Subscription(store, on(Paid)(enough if kind == "plain" else in_a_loop), "mine").start()
    assert mine._follower._thread is not None
    mine._follower._thread.join(30)
    assert (seen, mine.position, mine.state) == ([1, 2, 3], 3, "idle")
    assert mine.wait_for(12).position == 12
    assert seen == list(range(1, 13))


def test_steps_of_two_subscriptions_may_take_turns(store):
    """And afterwards neither is taken for one whose handler runs."""
    first, second = Watch(), Watch()
    both = [Subscription(store, watch, name) for watch, name in ((first, "a"), (second, "b"))]
    steps = [each.steps() for each in both]
    while steps:
        steps = [each for each in steps if next(each, None) is not None]
    assert first.seen == second.seen == list(range(1, 13))
    assert [each.catch_up().state for each in both] == ["idle", "idle"]


def in_time(function) -> None:
    """Call a function in a thread, and fail where it hangs."""
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    thread.join(30)
    assert not thread.is_alive(), "it hangs"


# --- registration ------------------------------------------------------------------------------------------


def _nothing() -> None: ...


def _unannotated(event): ...


def _number(event: int): ...


def _odd(event: Paid, effect): ...


def _bare_rows(event: Paid, rows): ...


def _yields(event: Paid):
    yield


class _Yielding:
    def __call__(self, event: Paid):
        yield


class _AsyncYielding:
    async def __call__(self, event: Paid):
        yield


def _unknown(event: Missing):  # type: ignore[name-defined]  # noqa: F821
    ...


@pytest.mark.parametrize(
    ("handler", "told"),
    [
        (_nothing, "takes no event"),
        (_unannotated, "does not say which events"),
        (_number, "does not say which events it handles .*int"),
        (_odd, "asks for 'effect'.*did you mean 'effects'"),
        (_bare_rows, "rows: Rows"),
        (_yields, "_yields yields"),
        (partial(_yields), "_yields yields"),
        (_Yielding(), "_Yielding yields"),
        (_AsyncYielding(), "_AsyncYielding yields"),
        (partial(_Yielding()), "_Yielding yields"),
        (_unknown, "'Missing' is not defined.*@on"),
        ("mail", "no handler"),
        (Paid, "no handler"),
        (None, "no handler"),
    ],
)
def test_a_handler_that_cannot_be_called_is_told_when_it_is_subscribed(store, handler, told):
    with pytest.raises(InvalidArgument, match=told):
        Subscription(store, handler)
    assert len(subscriptions(store)) == 0


def test_what_is_a_handlers_own_is_bound_with_partial(store):
    def mail(event: Paid, server: list[int]) -> None:
        server.append(event.amount)

    mail.__annotations__["event"] = Paid
    box: list[int] = []
    with pytest.raises(InvalidArgument, match=r"'server'.*functools\.partial"):
        Subscription(store, mail)
    Subscription(store, partial(mail, server=box)).catch_up()
    assert box == list(range(1, 13))


def test_two_partials_of_one_function_need_names_of_their_own(store):
    """What the second would take over is told; the same one again is a cell that is run again."""
    seen: list[tuple[str, int]] = []

    @on(Paid)
    def mail(event, server, to):
        server.append((to, event.amount))

    first = Subscription(store, partial(mail, server=seen, to="ann"))
    with pytest.raises(InvalidArgument, match=r"'mail' is bound to another 'to'.* name=…, or adopt=True"):
        Subscription(store, partial(mail, server=seen, to="bob"))
    first.catch_up()
    other = Subscription(store, partial(mail, server=seen, to="bob"), "mail bob").catch_up()
    assert seen == [*(("ann", n) for n in range(1, 13)), *(("bob", n) for n in range(1, 13))]
    anew: list[tuple[str, int]] = []
    again = Subscription(store, partial(mail, server=anew, to="ann"))
    store.append("Order/o-1", Paid(customer="c-1", amount=13))
    again.catch_up()
    assert anew == [("ann", 13)]
    assert Subscription(store, partial(mail, server=anew, to="eve"), adopt=True).position == 13
    assert other.lag == 1


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"checkpoint": "sometimes"}, "checkpoint='sometimes'"),
        ({"checkpoint": "transactional"}, "writes no rows"),
        ({"on_exhausted": "cry"}, "on_exhausted='cry'"),
        ({"retry": 3}, "RetryPolicy"),
        ({"breaker": 3}, "CircuitBreaker"),
        ({"batch": -1}, "batch=-1"),
        ({"batch": 0}, "batch=0"),
        ({"name": ""}, "name=''"),
        ({"partition": (3, 3)}, "partition"),
        ({"partition": 3}, "partition"),
        ({"name": 5}, "name"),
        ({"tag": 5}, "tag"),
        ({"sends": [lambda: None]}, "no name"),
    ],
)
def test_options_that_make_no_sense_are_told(store, options, told):
    with pytest.raises(InvalidArgument, match=told):
        Subscription(store, Watch(), **{"name": "w", **options})


def test_rows_are_committed_with_their_checkpoint_and_in_no_other_way(store):
    with pytest.raises(InvalidArgument, match="leave checkpoint out"):
        Subscription(store, spend, checkpoint="after_handler")


def test_the_past_takes_no_subscription():
    with EventStore() as opened, pytest.raises(InvalidArgument, match="EventStore"):
        Subscription(opened.as_of(0), Watch())  # type: ignore[arg-type]


def test_a_name_belongs_to_its_handler_until_another_adopts_it(store):
    Subscription(store, spend, "mine").catch_up()

    def other(event: Paid, rows: Rows[Spend]) -> None: ...

    other.__annotations__.update(event=Paid, rows=Rows[Spend])
    with pytest.raises(InvalidArgument, match=r"'mine' belongs to .*spend.*adopt=True"):
        Subscription(store, other, "mine")
    assert Subscription(store, other, "mine", adopt=True).position == 12


def test_a_cell_that_is_run_again_goes_on_where_it_stood_and_the_former_object_stops(store):
    first = Subscription(store, spend).catch_up()
    store.append("Order/o-1", Paid(customer="c-1", amount=100))
    second = Subscription(store, spend)
    with pytest.raises(Superseded, match="'spend' has been made anew"):
        first.catch_up()
    assert second.catch_up().df().total.sum() == 178


def test_what_a_wider_filter_would_miss_is_told(store):
    def handler(*types: type[Event]) -> Any:
        @on(*types)
        def mails(event): ...

        return mails

    Subscription(store, handler(Paid), category="Order").catch_up()
    wider: list[tuple[Any, dict[str, Any]]] = [
        (handler(Paid, Noted), {"category": "Order"}),
        (handler(Event), {"category": "Order"}),
        (handler(Paid), {}),
        (handler(Paid), {"category": "Else"}),
    ]
    for wanted, options in wider:
        with pytest.raises(InvalidArgument, match=r"position 12, and is for more.*adopt=True.*replay\(\)"):
            Subscription(store, wanted, **options)
    Subscription(store, handler(Paid), category="Order", tag="customer:c-1", partition=(0, 2))
    with pytest.raises(InvalidArgument, match="more events"):
        Subscription(store, handler(Paid), category="Order", tag="customer:c-1", partition=(1, 2))
    with pytest.raises(InvalidArgument, match="more events"):
        Subscription(store, handler(Paid), category="Order", partition=(0, 2))
    assert Subscription(store, handler(Paid, Noted), adopt=True).replay().position == 12


def test_a_renamed_type_is_the_same_event(store):
    @on(Noted)
    def mails(event): ...

    store.append("Note/n-1", Noted(text="a"))
    Subscription(store, mails).catch_up()

    class Written(Event, was="Noted"):
        text: str

    seen: list[str] = []

    @on(Written)
    def mails(event):
        seen.append(event.text)

    store.append("Note/n-1", Written(text="b"))
    Subscription(store, mails).catch_up()
    assert seen == ["b"]


def test_rows_of_other_columns_need_a_new_beginning(store):
    Subscription(store, spend).catch_up()

    class Wider(Row):
        customer: Key[str]
        total: int = 0
        note: str = ""

    def wider(event: Paid, rows: Rows[Wider]) -> None:
        rows.put(Wider(customer=event.customer, total=event.amount))

    wider.__annotations__.update(event=Paid, rows=Rows[Wider])
    with pytest.raises(InvalidArgument, match="other columns"):
        Subscription(store, wider, "spend", adopt=True)
    forget(store, "spend")
    assert list(Subscription(store, wider, "spend").catch_up().df()) == ["customer", "total", "note"]


@pytest.mark.parametrize("begun", [True, False])
def test_rows_of_other_columns_are_no_matter_where_there_are_no_rows(store, begun):
    """At the beginning the table is made anew, whether nothing was handled yet or it was reset."""
    first = Subscription(store, spend)
    if begun:
        first.catch_up().reset()

    class Narrow(Row):
        customer: Key[str]
        events: str = "some"

    @on(Paid)
    def narrow(event, rows: Rows[Narrow]):
        rows.put(Narrow(customer=event.customer))

    narrow.__annotations__["rows"] = Rows[Narrow]
    again = Subscription(store, narrow, "spend", adopt=True)
    assert list(again.df()) == ["customer", "events"]
    assert again.catch_up().df().events.tolist() == ["some"] * 3
    again.reset()
    assert Subscription(store, spend, adopt=True).catch_up().df().total.sum() == 78


def test_a_read_model_and_a_subscription_do_not_share_a_table(log):
    class Totals(Projection[Spend], name="spend"):
        @on(Paid)
        def paid(self, event, rows):
            spend(event, rows)

    Totals(log).df()
    with pytest.raises(InvalidArgument, match="follows the log by itself"):
        Subscription(log, spend)
    with pytest.raises(InvalidArgument, match="hand in its class"):
        Subscription(log, Totals(log))


# --- rows --------------------------------------------------------------------------------------------------


def test_a_function_and_a_projection_class_give_the_same_rows(store):
    class Totals(Projection[Spend]):
        @on(Paid)
        def paid(self, event, rows):
            spend(event, rows)

    mine, model = Subscription(store, spend).catch_up(), Subscription(store, Totals).catch_up()
    assert mine.df().equals(model.df())
    assert mine.df().to_dict("list") == {
        "customer": ["c-0", "c-1", "c-2"],
        "total": [30, 22, 26],
        "events": [4, 4, 4],
    }


def test_sql_reads_the_rows_of_a_handler(log):
    Subscription(log, spend).catch_up()
    assert log.sql("select sum(total) as n from spend").n[0] == 78


def test_a_handler_that_fails_halfway_leaves_none_of_its_rows(store):
    def halfway(event: Paid, rows: Rows[Spend]) -> None:
        rows.put(
            Spend(customer="total", total=(rows.get("total") or Spend(customer="")).total + event.amount)
        )
        rows.delete("c-0")
        if event.amount == 5:
            raise ValueError("halfway")
        spend(event, rows)

    halfway.__annotations__.update(event=Paid, rows=Rows[Spend])
    rows = Subscription(store, halfway).catch_up().df().set_index("customer").total
    waiting = [5, 9]  # the next of its stream waits behind it
    assert rows["total"] == sum(number for number in range(1, 13) if number not in waiting)
    assert rows["c-2"] == 2 + 8 + 11
    assert rows["c-1"] == 1 + 4 + 7 + 10


# --- failures ----------------------------------------------------------------------------------------------


def test_a_handler_that_fails_after_it_looked_at_all_rows_loses_none_of_them(store):
    def careful(event: Paid, rows: Rows[Spend]) -> None:
        if event.amount < 0:
            rows.put(Spend(customer=event.customer))
            raise ValueError(f"{len(rows)} rows are too many")
        spend(event, rows)

    once = RetryPolicy(max_attempts=1)
    store.append("Order/o-9", [Paid(customer=f"d-{number}", amount=1) for number in range(40)])
    Subscription(store, careful, retry=once).catch_up()
    store.append("Order/bad", Paid(customer="d-7", amount=-1))
    store.append("Order/o-9", Paid(customer="d-7", amount=1))
    subscription = Subscription(store, careful, retry=once).catch_up()  # as after a restart
    assert len(subscription.dead_letters) == 1
    assert subscription.df().set_index("customer").loc["d-7"].tolist() == [2, 2]


def test_a_passing_failure_is_retried_under_the_stores_clock(store):
    watch = Watch(3, times=2)
    before = store.clock.now()
    policy = RetryPolicy(initial_interval=600, maximum_interval=3600, jitter="none")
    Subscription(store, watch, "w", retry=policy).catch_up()
    assert watch.seen == list(range(1, 13))
    assert (store.clock.now() - before).total_seconds() == 600 + 1200


def test_a_dead_letter_holds_its_stream_and_no_other(store):
    watch = Watch(2)
    mails = Subscription(store, watch, "mails", retry=RetryPolicy(max_attempts=3)).catch_up()
    assert watch.seen == [1, 3, 4, 5, 7, 8, 9, 11, 12]
    letters = mails.dead_letters.df()
    assert letters.position.tolist() == [2, 6, 10]
    assert letters.sequence_index.tolist() == [0, 1, 2]
    assert letters.attempts.tolist() == [3, 0, 0]
    assert letters.cause_type.tolist()[0] == "ConnectionError"
    assert letters.cause_message.tolist()[0] == "no answer for 2"
    assert set(letters.sequence_id) == {"Order/o-2"}
    assert "test_subscription.py" in letters.diagnostics[0]
    assert mails.position == 12


def test_redrive_goes_on_in_sequence_and_a_letter_that_fails_again_stays(store):
    watch = Watch(2, 6)
    mails = Subscription(store, watch, "mails").catch_up()
    told = mails.dead_letters.redrive()
    assert told.handled.tolist() == [False]
    assert mails.dead_letters.df().attempts.tolist() == [6, 0, 0]
    watch.failing = {6}
    told = mails.dead_letters.redrive()
    assert told.position.tolist() == [2, 6]
    assert told.handled.tolist() == [True, False]
    assert told.cause[1] == "ConnectionError: no answer for 6"
    letters = mails.dead_letters.df()
    assert letters.position.tolist() == [6, 10]
    assert letters.cause_message.tolist()[0] == "no answer for 6"
    watch.failing = set()
    mails.dead_letters.redrive("Order/o-2")
    assert len(mails.dead_letters) == 0
    assert watch.seen[-3:] == [2, 6, 10]
    store.append("Order/o-2", Paid(customer="c-1", amount=50))
    mails.catch_up()
    assert watch.seen[-1] == 13


def test_later_events_wait_until_the_sequence_is_empty(store):
    watch = Watch(2)
    mails = Subscription(store, watch, "mails").catch_up()
    store.append("Order/o-2", Paid(customer="c-1", amount=50))
    mails.catch_up()
    assert mails.dead_letters.df().position.tolist() == [2, 6, 10, 13]
    mails.dead_letters.evict(mails.dead_letters.df().dead_letter_id[0])
    watch.failing = set()
    assert 13 not in watch.seen
    mails.dead_letters.redrive()
    assert watch.seen[-3:] == [6, 10, 13]
    assert 2 not in watch.seen


def test_redrive_and_evict_name_what_there_is(store):
    mails = Subscription(store, Watch(2), "mails").catch_up()
    with pytest.raises(InvalidArgument, match="did you mean 'Order/o-2'"):
        mails.dead_letters.redrive("Order/o-3")
    with pytest.raises(InvalidArgument, match="there is no dead letter 99; there is 1, 2, 3"):
        mails.dead_letters.evict(99)
    assert "1 dead letter" in repr(mails.dead_letters)
    assert "no answer for 2" in mails.dead_letters._repr_html_()
    assert '<td style="text-align:left">mails</td>' in mails._repr_html_()


def test_a_redriven_letter_counts_once_in_the_rows(store):
    failing = [True]

    def handler(event: Paid, rows: Rows[Spend]) -> None:
        spend(event, rows)
        if event.amount == 2 and failing:
            raise ValueError("bad")

    handler.__annotations__.update(event=Paid, rows=Rows[Spend])
    mine = Subscription(store, handler).catch_up()
    mine.dead_letters.redrive()
    failing.clear()
    mine.dead_letters.redrive()
    assert mine.df().equals(Subscription(store, spend).catch_up().df())


def test_an_exhausted_event_may_be_skipped_and_then_its_stream_goes_on(store):
    watch = Watch(2)
    mails = Subscription(store, watch, "mails", on_exhausted="skip").catch_up()
    assert watch.seen == [1, *range(3, 13)]
    assert len(mails.dead_letters) == 0


def test_an_exhausted_event_may_stop_the_subscription_which_goes_on_there_once_it_is_mended(store):
    watch = Watch(6)
    mails = Subscription(store, watch, "mails", on_exhausted="stop")
    with pytest.raises(HandlerFailed, match=r"position 6 .*no answer for 6") as failure:
        mails.catch_up()
    assert isinstance(failure.value.__cause__, ConnectionError)
    assert mails.position == 5
    assert mails.state == "stopped: ConnectionError: no answer for 6"
    watch.failing = set()
    assert mails.catch_up().state == "idle"
    assert watch.seen == list(range(1, 13))


def test_a_payload_that_cannot_be_read_is_a_dead_letter_at_once(store):
    store.append("Order/o-7", Paid(customer="c-1", amount=70))

    class Paid2(Event, type="Paid"):
        customer: str
        amount: int
        iban: str

    seen: list[int] = []

    @on(Paid2)
    def handler(event):
        seen.append(event.amount)

    mails = Subscription(store, handler).catch_up()
    letters = mails.dead_letters.df()
    assert seen == []
    assert letters.cause_type.dropna().unique().tolist() == ["InvalidEvent"]
    assert letters.attempts.max() == 1


def test_an_event_whose_upcaster_fails_is_a_dead_letter_and_the_others_go_on(store):
    def no_text(data: dict[str, Any]) -> dict[str, Any]:
        return {"text": data["text"].upper()}

    def told(data: dict[str, Any]) -> dict[str, Any]:
        return {"text": str(data["text"]).upper()}

    class Told(Event):
        text: Any

    for number, text in enumerate(("a", 5, "c")):
        store.append(f"Told/{number}", Told(text=text))

    class Told(Event, schema_version=2, upcasters=[no_text]):
        text: str

    seen: list[str] = []

    @on(Told)
    def handler(event):
        seen.append(event.text)

    mine = Subscription(store, handler).catch_up()
    assert seen == ["A", "C"]
    assert mine.dead_letters.df().cause_type.tolist() == ["UpcasterFailed"]
    assert mine.dead_letters.redrive().handled.tolist() == [False]

    class Told(Event, schema_version=2, upcasters=[told]):
        text: str

    assert mine.dead_letters.redrive().handled.tolist() == [True]
    assert seen == ["A", "C", "5"]


class Untold(Exception):
    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (Untold, "its text cannot be told: __str__ raised RuntimeError"),
        (lambda: ValueError("half \udcff of one"), "half \\udcff of one"),
        (lambda: ValueError("x" * 1_000_000), "x" * 10_000 + "… (1,000,000 characters)"),
        (lambda: ExceptionGroup("many", [ValueError("a"), KeyError("b")]), "many (2 sub-exceptions)"),
        (lambda: StopIteration("x"), "x"),
    ],
)
def test_whatever_a_handler_raises_its_letter_is_kept(store, error, told):
    def failing(event: Paid) -> None:
        if event.amount == 4:
            raise error()

    failing.__annotations__["event"] = Paid
    mails = Subscription(store, failing, retry=RetryPolicy(max_attempts=2)).catch_up()
    assert mails.dead_letters.df().cause_message.tolist()[0] == told
    assert mails.dead_letters.redrive().cause[0] == f"{type(error()).__name__}: {told}"


def test_at_most_once_tries_once(store):
    watch = Watch(2)
    mails = Subscription(store, watch, "mails", checkpoint="before_handler").catch_up()
    assert mails.dead_letters.df().attempts.tolist() == [1, 0, 0]


def test_a_circuit_opens_when_events_fail_in_a_row_and_closes_when_one_goes_through(store):
    watch = Watch(*range(4, 13))
    breaker = CircuitBreaker(failures=3, cooldown=300)
    mails = Subscription(store, watch, "mails", breaker=breaker, retry=RetryPolicy(max_attempts=1))
    mails.catch_up()
    assert watch.seen == [1, 2, 3]
    assert mails.state == "circuit open"
    assert mails.dead_letters.df().position.tolist() == [4, 5]
    assert mails.position == 5
    watch.failing = set()
    assert mails.catch_up().position == 5
    store.clock.advance(minutes=5)
    mails.catch_up()
    assert watch.seen == [1, 2, 3, 6, 7, 10, 11]
    assert mails.state == "idle"
    mails.dead_letters.redrive()
    assert sorted(watch.seen) == list(range(1, 13))


def test_an_open_circuit_is_tried_once_after_each_cooldown(store):
    watch = Watch(*range(1, 13))
    mails = Subscription(store, watch, "mails", breaker=CircuitBreaker(failures=1, cooldown=60)).catch_up()
    for _ in range(3):
        store.clock.advance(minutes=2)
        watch.times = 1
        assert mails.catch_up().state == "circuit open"
        assert watch.times == 0
    assert len(mails.dead_letters) == 0
    assert mails.position == 0


def test_a_clock_that_goes_backwards_does_not_keep_a_circuit_open(store):
    watch = Watch(1)
    mails = Subscription(store, watch, "mails", breaker=CircuitBreaker(failures=1, cooldown=60)).catch_up()
    watch.failing = set()
    store.clock.set("2020-01-01T00:00:00Z")
    assert mails.catch_up().state == "idle"
    assert mails.lag == 0


def test_a_clock_that_goes_backwards_neither_loses_nor_doubles(store):
    watch = Watch(2)
    mails = Subscription(store, watch, "mails").catch_up()
    store.clock.set("2020-01-01T00:00:00Z")
    store.append("Order/o-1", Paid(customer="c-1", amount=50))
    watch.failing = set()
    mails.catch_up().dead_letters.redrive()
    assert sorted(watch.seen) == list(range(1, 14))


# --- crashes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "before", "during", "after"),
    [
        ("after_handler", (12, 0, 0), (12, 0, 0), (12, 0, 1)),
        ("before_handler", (11, 1, 0), (11, 1, 0), (12, 0, 0)),
    ],
)
def test_what_a_crash_costs_in_each_mode(store, mode, before, during, after):
    """Handled, lost and doubled events after a crash at position 6, and a restart."""
    for name, told in (("handle", before), ("during", during), ("handled", after)):
        dies = [name == "during"]

        def handler(event, recorded, seen, dies=dies):
            if recorded.position == 6 and dies[0]:
                dies[0] = False
                raise Crash
            seen.append(recorded.position)

        seen: list[int] = []
        marked = on(Paid)(handler)
        bound = partial(marked, seen=seen)
        mails = Subscription(store, bound, f"{mode} {name}", checkpoint=mode)
        if name == "during":
            with pytest.raises(Crash):
                mails.catch_up()
        else:
            assert crash_at(mails, name, 6)
        Subscription(store, bound, f"{mode} {name}", checkpoint=mode).catch_up()
        counts = [seen.count(position) for position in range(1, 13)]
        assert (sum(n > 0 for n in counts), counts.count(0), counts.count(2)) == told


@pytest.mark.parametrize("batch", [1, 3, 100])
def test_rows_count_each_event_once_whatever_the_point_of_the_crash(store, batch):
    whole = Subscription(store, spend, "whole").catch_up().df()
    points = ("begin", "handle", "handled", "commit", "committed")
    for number, (point, position) in enumerate((p, n) for p in points for n in range(1, 13)):
        mine = Subscription(store, spend, f"s{number}", batch=batch, adopt=True)
        if crash_at(mine, point, position):
            again = Subscription(store, spend, f"s{number}", batch=batch)
            assert again.catch_up().df().equals(whole), (point, position)


def test_an_event_that_kills_the_process_is_parked_after_max_attempts_and_the_rest_goes_on(store):
    for attempts, batch in ((1, 100), (2, 1), (3, 100), (5, 5)):
        seen: list[int] = []

        @on(Paid)
        def deadly(event, seen=seen):
            if event.amount == 6:
                raise Crash
            seen.append(event.amount)

        name, policy = f"s {attempts} {batch}", RetryPolicy(max_attempts=attempts)
        deaths = 0
        while True:
            mails = Subscription(store, deadly, name, retry=policy, batch=batch)
            try:
                mails.catch_up()
                break
            except Crash:
                deaths += 1
        assert deaths <= attempts
        letters = mails.dead_letters.df()
        assert letters.position.tolist() == [6, 10]
        assert letters.attempts[0] == attempts
        assert letters.cause_type[0] == "ProcessDied"
        assert set(seen) == set(range(1, 13)) - {6, 10}


def test_attempts_that_were_noted_before_a_crash_count_after_it(store):
    watch = Watch(6)
    mails = Subscription(store, watch, "mails", retry=RetryPolicy(max_attempts=5))
    assert crash_at(mails, "retry", 6, count=3)
    again = Watch(6)
    Subscription(store, again, "mails", retry=RetryPolicy(max_attempts=5)).catch_up()
    assert 10**9 - again.times <= 2


def test_an_interrupt_keeps_what_was_handled(store):
    def handler(event: Paid, rows: Rows[Spend]) -> None:
        spend(event, rows)
        if event.amount == 6 and interrupts:
            interrupts.pop()
            raise KeyboardInterrupt

    handler.__annotations__.update(event=Paid, rows=Rows[Spend])
    interrupts = [True]
    mine = Subscription(store, handler)
    with pytest.raises(KeyboardInterrupt):
        mine.catch_up()
    assert mine.position == 5
    assert mine.df().total.sum() == 15
    assert mine.catch_up().df().total.sum() == 78


# --- effects -----------------------------------------------------------------------------------------------


class Post:
    """A mail server that keeps what it was given, and by which key."""

    def __init__(self, *, down: int = 0) -> None:
        self.sent: list[tuple[str, int, str]] = []
        self.down = down

    def send(self, to: str, amount: int, key: str) -> str:
        if self.down:
            self.down -= 1
            raise ConnectionError("the mail server is down")
        self.sent.append((to, amount, key))
        return f"mail {len(self.sent)}"


def _mailing(post: Post) -> Any:
    @on(Paid)
    def mailing(event, effects):
        effects.call(post.send, event.customer, amount=event.amount)

    return mailing


def test_effects_are_on_the_ledger_and_a_replay_does_none_of_them_again(store):
    post = Post()
    mails = Subscription(store, _mailing(post)).catch_up()
    ledger = mails.effects()
    assert ledger.status.tolist() == ["done"] * 12
    assert ledger.arguments[0] == '{"to":"c-1","amount":1}'
    assert ledger.key.tolist() == [key for _, _, key in post.sent]
    mails.replay()
    mails.replay(after=6)
    assert len(post.sent) == 12
    assert mails.effects().equals(ledger)


def test_a_replay_gates_effects_that_the_ledger_does_not_have(store):
    post = Post()
    mailing = _mailing(post)
    quiet = [True]

    @on(Paid)
    def handler(event, effects):
        if not quiet:
            mailing(event, effects)

    mails = Subscription(store, handler).catch_up()
    quiet.clear()
    mails.replay()
    assert not post.sent
    assert mails.effects().status.tolist() == ["gated"] * 12
    store.append("Order/o-1", Paid(customer="c-1", amount=13))
    mails.catch_up()
    assert [amount for _, amount, _ in post.sent] == [13]
    mails.replay(effects="again")
    assert len(post.sent) == 14


def test_a_crash_between_effect_and_commit_is_the_window_in_which_it_happens_twice(store):
    post = Post()
    mails = Subscription(store, _mailing(post))
    assert crash_at(mails, "handled", 6)
    again = Subscription(store, _mailing(post), adopt=True).catch_up()
    keys = [key for _, _, key in post.sent]
    assert len(keys) == 13
    assert len(set(keys)) == 12
    assert len(again.effects()) == 12


def test_the_effects_of_a_failed_attempt_are_not_done_again_by_the_next(store):
    post = Post()
    failing = [True, True]

    @on(Paid)
    def handler(event, effects):
        assert effects.call(post.send, event.customer, event.amount) is not None
        if event.amount == 3 and failing:
            failing.pop()
            raise ValueError("after the effect")

    Subscription(store, handler).catch_up()
    assert len(post.sent) == 12


@pytest.mark.parametrize("point", ["handle", "handled", "commit", "committed", "send"])
def test_by_way_of_the_outbox_each_effect_is_sent_under_one_key(store, point):
    post = Post()
    for number, position in enumerate(range(1, 13)):
        post.sent.clear()
        name = f"m{number}"
        mails = Subscription(store, _mailing(post), name, outbox=True)
        crashed = crash_at(mails, point, position)
        again = Subscription(store, _mailing(post), name, outbox=True, sends=[post.send]).catch_up()
        keys = [key for _, _, key in post.sent]
        assert crashed
        assert len(set(keys)) == 12
        assert len(keys) <= 12 + (point == "send")
        assert again.effects().status.tolist() == ["done"] * 12


def test_an_outbox_retries_and_notes_what_cannot_be_sent(store):
    post = Post(down=2)
    mails = Subscription(store, _mailing(post), outbox=True).catch_up()
    assert len(post.sent) == 12
    post = Post(down=5)
    mails = Subscription(store, _mailing(post), "m2", outbox=True).catch_up()
    assert len(post.sent) == 11
    failed = mails.effects().iloc[0]
    assert (failed.status, failed.cause) == ("failed", "ConnectionError: the mail server is down")


def test_a_relay_says_which_function_it_does_not_know(store):
    post = Post()
    mails = Subscription(store, _mailing(post), outbox=True)
    assert crash_at(mails, "committed", 3)
    again = Subscription(store, Watch(), "mailing", outbox=True, adopt=True)
    with pytest.raises(InvalidArgument, match=r"'send' waits in the outbox.*sends=\[send\]"):
        again.catch_up()


def test_what_cannot_wait_in_an_outbox_is_told(store):
    @on(Paid)
    def handler(event, effects):
        effects.call(print, object())

    @on(Paid)
    def anonymous(event, effects):
        effects.call(lambda: None)

    for each, told in ((handler, "print"), (anonymous, "no name")):
        letters = Subscription(store, each, outbox=True).catch_up().dead_letters.df()
        assert told in letters.cause_message[0]
        assert letters.attempts[0] == 1


def test_effects_are_called_while_the_handler_runs(store):
    kept: list[Effects] = []

    @on(Paid)
    def handler(event, effects):
        kept.append(effects)

    Subscription(store, handler).catch_up()
    with pytest.raises(InvalidArgument, match="while the handler runs"):
        kept[0].call(print)


def test_async_effects_are_awaited(store):
    sent: list[str] = []

    async def post(to: str) -> str:
        await asyncio.sleep(0)
        sent.append(to)
        return "done"

    @on(Paid)
    async def handler(event, effects):
        assert await effects.call(post, event.customer) == "done"

    @on(Paid)
    def boxed(event, effects):
        effects.call(post, event.customer)

    assert Subscription(store, handler).catch_up().effects().status.tolist() == ["done"] * 12
    assert Subscription(store, boxed, outbox=True).catch_up().effects().status.tolist() == ["done"] * 12
    assert len(sent) == 24


def test_an_inbox_handles_no_event_twice(store):
    watch = Watch()
    mails = Subscription(store, watch, "mails", inbox=True).catch_up()
    mails._progress.commit(Mark())
    Subscription(store, watch, "mails", inbox=True).catch_up()
    assert watch.seen == list(range(1, 13))
    Subscription(store, watch, "mails", inbox=True).replay()
    assert len(watch.seen) == 24
    assert mails.name == "mails"


# --- going back, holding, living ---------------------------------------------------------------------------


def test_a_replay_gates_no_effect_that_was_never_done(store):
    """Those of dead letters: they are redriven first, or given up."""
    sent: list[int] = []
    failing = [True]

    def send(amount: int) -> None:
        sent.append(amount)

    @on(Paid)
    def mails(event, effects: Effects):
        if event.amount == 5 and failing:
            raise ValueError("no")
        effects.call(send, event.amount)

    subscription = Subscription(store, mails, retry=RetryPolicy(max_attempts=1)).catch_up()
    with pytest.raises(InvalidArgument, match="2 dead letters whose effects were never done"):
        subscription.replay()
    assert subscription.reset(after=9).position == 9
    failing.clear()
    subscription.dead_letters.redrive()
    subscription.replay()
    assert sorted(sent) == list(range(1, 13))


def test_a_replay_makes_rows_anew_and_never_from_the_middle(store):
    mine = Subscription(store, spend).catch_up()
    before = mine.df()
    assert mine.replay().df().equals(before)
    with pytest.raises(InvalidArgument, match="cannot go back to position 5"):
        mine.replay(after=5)
    with pytest.raises(InvalidArgument, match="effects='maybe'"):
        mine.replay(effects="maybe")  # type: ignore[arg-type]


def test_a_reset_delivers_nothing_until_somebody_catches_up(store):
    watch = Watch()
    mails = Subscription(store, watch, "mails").catch_up().reset(after=9)
    assert (mails.position, mails.lag, len(watch.seen)) == (9, 3, 12)
    assert mails.catch_up().position == 12
    assert watch.seen[12:] == [10, 11, 12]


def test_a_replay_begins_at_a_time_too(store):
    at = store.clock.now()
    store.clock.advance(hours=1)
    store.append("Order/o-1", Paid(customer="c-1", amount=13))
    watch = Watch()
    Subscription(store, watch, "w").catch_up().replay(after=at)
    assert watch.seen == [*range(1, 14), 13]


def test_a_replay_forgets_the_dead_letters_that_will_come_again(store):
    watch = Watch(2, 8)
    mails = Subscription(store, watch, "mails").catch_up()
    mails.replay(after=6)
    assert mails.dead_letters.df().position.tolist() == [2, 6, 8, 10, 12]
    watch.failing = set()
    mails.replay()
    assert len(mails.dead_letters) == 0


def test_a_paused_subscription_delivers_nothing_also_when_it_is_made_again(store):
    watch = Watch()
    mails = Subscription(store, watch, "mails").pause()
    assert mails.catch_up().state == "paused"
    again = Subscription(store, watch, "mails").catch_up()
    assert watch.seen == []
    assert again.resume().catch_up().position == 12
    assert watch.seen == list(range(1, 13))


def test_a_paused_subscription_stays_paused_when_it_is_reset(store):
    watch = Watch()
    mails = Subscription(store, watch, "mails").catch_up().pause().reset()
    assert (mails.state, mails.position) == ("paused", 0)
    assert mails.catch_up().position == 0
    assert Subscription(store, watch, "mails").replay().position == 0
    assert Subscription(store, watch, "mails").resume().catch_up().position == 12
    assert watch.seen == [*range(1, 13), *range(1, 13)]


def test_a_pause_waits_for_no_further_attempt():
    """By the system's clock, the next one would come in an hour."""
    failed = threading.Event()

    @on(Paid)
    def handler(event):
        failed.set()
        raise ConnectionError("no answer")

    with EventStore() as store:
        store.append("Order/o-1", Paid(customer="c-1", amount=1))
        hourly = RetryPolicy(initial_interval=3600, maximum_interval=3600, jitter="none")
        mine = Subscription(store, handler, retry=hourly).start()
        assert failed.wait(30)
        in_time(mine.pause)
        assert (mine.state, mine.position, len(mine.dead_letters)) == ("paused", 0, 0)
        in_time(mine.stop)


def test_to_resume_ends_no_delivery_that_is_going_on(store):
    resumed, seen = threading.Event(), []

    def resume() -> None:
        resumed.set()
        mine.resume()

    def handler(event: Paid) -> None:
        if event.amount == 3:
            other.start()
            resumed.wait(30)
        seen.append(event.amount)

    other = threading.Thread(target=resume)
    mine = Subscription(store, on(Paid)(handler))
    mine.catch_up()
    other.join(30)
    assert (mine.position, seen) == (12, list(range(1, 13)))


def test_a_checkpoint_beyond_the_log_is_told(store):
    mails = Subscription(store, Watch(), "mails").catch_up()
    mails._progress.commit(Mark(position=99, begun=99))
    with pytest.raises(
        CheckpointAhead, match=r"position 99, and the log ends at 12.*replay\(\) begins again"
    ):
        Subscription(store, Watch(), "mails").catch_up()
    assert Subscription(store, Watch(), "mails").replay().position == 12
    assert mails.name == "mails"


def test_a_checkpoint_beyond_the_log_is_told_also_before_a_thread_begins(store):
    Subscription(store, Watch(), "mails").catch_up()._progress.commit(Mark(position=99, begun=99))
    mails = Subscription(store, Watch(), "mails")
    assert "stopped: mails stands at position 99, and the log ends at 12" in repr(mails)
    for ask in (mails.start, lambda: mails.pause().wait_for(3), mails.dead_letters.redrive):
        with pytest.raises(CheckpointAhead, match="position 99, and the log ends at 12"):
            ask()
    assert subscriptions(store).state[0].startswith("stopped: mails stands at position 99")
    assert mails.resume().replay().state == "idle"


def test_a_checkpoint_that_was_beyond_the_log_is_told_also_when_the_log_has_grown_past_it(store):
    """Else what was appended meanwhile would be passed over."""
    Subscription(store, Watch(), "mails").catch_up()._progress.commit(Mark(position=14, begun=14))
    watch = Watch()
    mails = Subscription(store, watch, "mails")
    store.append("Order/o-1", [Paid(customer="c-1", amount=amount) for amount in (13, 14, 15)])
    with pytest.raises(CheckpointAhead, match="position 14, and the log ends at 12"):
        mails.catch_up()
    assert mails.state.startswith("stopped: mails stands at position 14")
    assert mails.replay(after=12).position == 15
    assert watch.seen == [13, 14, 15]


def test_a_running_subscription_follows_the_log_and_stops(store):
    watch = Watch()
    mails = Subscription(store, watch, "mails").start().start()
    mails.wait_for(12)
    assert mails.state == "running"
    last = store.append("Order/o-1", Paid(customer="c-1", amount=13))[-1].position
    mails.wait_for(last).stop().stop()
    assert watch.seen == list(range(1, 14))
    assert mails.state == "idle"


def test_a_failure_that_stops_a_running_subscription_reaches_who_waits_for_it(store):
    mails = Subscription(store, Watch(4), "mails", on_exhausted="stop").start()
    with pytest.raises(HandlerFailed, match="position 4"):
        mails.wait_for(12)
    assert mails.state.startswith("stopped")
    mails.stop()


def test_whatever_ends_the_thread_of_a_subscription_is_its_state(store):
    """Until somebody delivers again."""
    failing = [SystemExit("bye")]

    @on(Paid)
    def handler(event):
        if failing:
            raise failing[0]

    mine = Subscription(store, handler).start()
    assert mine._follower._thread is not None
    mine._follower._thread.join(30)
    assert mine.state == "stopped: SystemExit: bye"
    assert subscriptions(store).state[0] == "stopped: SystemExit: bye"
    with pytest.raises(SystemExit):
        mine.wait_for(12)
    failing.clear()
    assert mine.catch_up().state == "idle"
    assert mine.wait_for(12).position == 12


def test_waiting_for_what_does_not_come_ends(store):
    with pytest.raises(NotCaughtUp, match="13 was not delivered within 0 s"):
        Subscription(store, Watch(), "w").wait_for(13, timeout=0)


def test_many_subscriptions_run_beside_writers(store):
    watches = [Watch() for _ in range(3)]
    running = [Subscription(store, watch, f"w{n}").start() for n, watch in enumerate(watches)]

    def write(who: int) -> None:
        for number in range(20):
            store.append(f"Order/t-{who}", Paid(customer="c", amount=1_000 + number))

    writers = [threading.Thread(target=write, args=(who,)) for who in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    for mails, watch in zip(running, watches, strict=True):
        mails.wait_for(72, timeout=60).stop()
        assert watch.seen == list(range(1, 73))


def test_a_store_shows_its_subscriptions(store):
    Subscription(store, Watch(2), "mails").catch_up()
    Subscription(store, spend).pause()
    table = subscriptions(store)
    assert table.name.tolist() == ["mails", "spend"]
    assert table.lag.tolist() == [0, 12]
    assert table.dead_letters.tolist() == [3, 0]
    assert table.state.tolist() == ["idle", "paused"]
    assert table.checkpoint.tolist() == ["after_handler", "transactional"]


def test_what_is_forgotten_begins_anew(store):
    watch = Watch(2)
    Subscription(store, watch, "mails").catch_up()
    with pytest.raises(InvalidArgument, match="no subscription 'mail'; did you mean 'mails'"):
        forget(store, "mail")
    forget(store, "mails")
    assert len(subscriptions(store)) == 0
    assert len(Subscription(store, Watch(), "mails").catch_up().dead_letters) == 0


def test_a_closed_store_is_told():
    with EventStore() as opened:
        mails = Subscription(opened, Watch(), "mails")
    assert repr(mails) == "<Subscription 'mails' of a closed store>"
    assert "of a closed store" in mails._repr_html_()
    with pytest.raises(StoreClosed):
        mails.catch_up()


def test_hostile_names_and_texts_do_no_harm(store):
    name = "x\"; drop table esim.events; --'é<b>"
    watch = Watch(2)
    mails = Subscription(store, spend, name).catch_up()
    assert mails.df().total.sum() == 78
    failing = Subscription(store, watch, name + "2").catch_up()
    assert "<b>" not in failing.dead_letters._repr_html_()
    forget(store, name)
    assert len(store.read()) == 12


def test_subscriptions_survive_the_file_being_closed(tmp_path):
    watch = Watch(2)
    with EventStore(tmp_path / "a.duckdb", clock=ManualClock()) as opened:
        for number in range(1, 9):
            opened.append(f"Order/o-{number % 4}", Paid(customer="c", amount=number))
        Subscription(opened, spend, batch=3).catch_up()
        Subscription(opened, watch, "mails").catch_up()
    with EventStore(tmp_path / "a.duckdb", clock=ManualClock()) as opened:
        assert subscriptions(opened).position.tolist() == [8, 8]
        opened.append("Order/o-2", Paid(customer="c", amount=100))
        assert Subscription(opened, spend, batch=3).catch_up().df().total.tolist() == [136]
        mails = Subscription(opened, watch, "mails").catch_up()
        assert mails.dead_letters.df().position.tolist() == [2, 6, 9]


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=30),
    st.integers(1, 7),
    st.lists(
        st.tuples(st.sampled_from(["begin", "handle", "handled", "commit"]), st.integers(1, 30)), max_size=4
    ),
)
def test_rows_are_the_fold_of_what_is_not_parked_under_any_crashes(events, batch, crashes):
    """Whatever fails and wherever it dies: rows hold each handled event once, all others are letters."""
    with EventStore(clock=ManualClock(), ids=SeededIds(1)) as log:
        for number, (stream, _) in enumerate(events):
            log.append(f"S/{stream}", Paid(customer=f"c{stream}", amount=number))
        bad = {number for number, (_, fails) in enumerate(events) if fails}

        def handler(event: Paid, rows: Rows[Spend]) -> None:
            spend(event, rows)
            if event.amount in bad:
                raise ValueError("bad")

        handler.__annotations__.update(event=Paid, rows=Rows[Spend])
        policy = RetryPolicy(max_attempts=2)
        for name, position in crashes:
            crash_at(Subscription(log, handler, "h", batch=batch, retry=policy), name, position)
        mine = Subscription(log, handler, "h", batch=batch, retry=policy).catch_up()
        parked = set(mine.dead_letters.df().position)
        dead: set[str] = set()
        for one in log.read():
            if one.event.amount in bad or one.stream in dead:
                dead.add(one.stream)
                assert one.position in parked
            else:
                assert one.position not in parked
        kept = [one.event.amount for one in log.read() if one.position not in parked]
        assert (mine.df().events.sum(), mine.df().total.sum()) == (len(kept), sum(kept))
        bad.clear()
        mine.dead_letters.redrive()
        assert mine.df().total.sum() == sum(range(len(events)))


def test_a_context_around_a_catch_up_is_kept(store):
    cause = store.read().first()

    @on(Paid)
    def react(event, recorded):
        if recorded.position == 12:
            store.append("Note/n", Noted(text="x"))

    with caused_by(cause):
        Subscription(store, react).catch_up()
    assert UUID(store.read("Note/n").first().causation_id) == list(store.read(until=12))[-1].event_id
