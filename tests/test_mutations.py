"""esim's own delivery, proven by its own simulator: whichever defence is taken out, a schedule shows it.

Each mutation replaces one line of the loaded code. The scenario is proven before, and broken after it.
"""

from __future__ import annotations

import inspect
import sys
import textwrap
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

from esim.contract import Store
from esim.delivery import Delivery
from esim.effects import Effects
from esim.errors import Conflict, Refused
from esim.event import Event
from esim.explore import Search
from esim.faults import Faults
from esim.invariant import always, contiguous_versions, eventually, no_effect_twice
from esim.messages import command
from esim.outbox import Relay
from esim.process import Deadline, DeadlinePassed, Process, ProcessManager
from esim.progress_memory import MemoryProgress
from esim.projection import Key, Row, Rows, on
from esim.retry import CircuitBreaker, RetryPolicy
from esim.scenario import Scenario, follow, task
from esim.stage import Stage
from esim.state import State
from esim.subscription import Subscription
from esim.world import World


class Placed(Event):
    n: int


class Added(Event):
    n: int


class Sold(Row):
    name: Key[str]
    total: int = 0


def numbers(count: int, streams: int = 9) -> list[tuple[str, Event]]:
    return [(f"Order/{n % streams}", Placed(n=n + 1)) for n in range(count)]


def policy(attempts: int) -> RetryPolicy:
    return RetryPolicy(max_attempts=attempts, initial_interval=0.0, jitter="none")


# --- what is defended --------------------------------------------------------------------------------------


def rows_are_counted_once() -> Scenario:
    """A handler writes rows and calls a service after that; both can fail and die."""
    world = World()
    check = world.service("check")

    def sell(event: Placed, rows: Rows[Sold]) -> None:
        row = rows.get("all") or Sold(name="all")
        rows.put(row.but(total=row.total + event.n))
        check(event.n)

    right = eventually(lambda look: [row.total for row in look.rows()] == [6])
    actors = [follow(sell, batch=2, retry=policy(5))]
    return Scenario(numbers(3), actors, {"right": right}, faults=Faults(crash=2, error=1), world=world)


def nothing_is_lost() -> Scenario:
    """At least once: each event reaches the table, whatever dies."""
    world = World()
    seen = world.table("seen")

    def note(event: Placed) -> None:
        seen[event.n] = True

    all_seen = eventually(lambda look: len(look.table("seen")) == 3)
    return Scenario(
        numbers(3), [follow(note, batch=2)], {"all": all_seen}, faults=Faults(crash=2), world=world
    )


def nothing_is_done_twice() -> Scenario:
    """At most once: no mail goes out twice, whatever dies."""
    world = World()
    mail = world.service("mail")

    def notify(event: Placed) -> None:
        mail(event.n)

    actors = [follow(notify, checkpoint="before_handler", retry=policy(2))]
    return Scenario(numbers(2), actors, [no_effect_twice()], faults=Faults(crash=1, unknown=1), world=world)


def an_inbox_knows_what_was_handled() -> Scenario:
    """With an inbox, what is delivered once more is not handled once more."""
    world = World()
    stock = world.table("stock", {"mug": 9})

    def deduct(event: Placed) -> None:
        stock["mug"] -= event.n

    right = eventually(lambda look: look.table("stock")["mug"] == 6)
    actors = [follow(deduct, inbox=True)]
    return Scenario(numbers(2), actors, {"right": right}, faults=Faults(duplicate=2), world=world)


def streams_stay_in_order() -> Scenario:
    """No event of a stream is handled after an earlier one was given up, and none is unaccounted for."""
    world = World()
    seen = world.table("seen")

    def note(event: Placed) -> None:
        seen[event.n] = True

    def ordered(look: Any) -> bool:
        parked = {letter.position for letter in look.dead_letters()}
        return not any(position in parked for position in range(1, max(look.table("seen"), default=0)))

    def accounted(look: Any) -> bool:
        parked = {letter.position for letter in look.dead_letters()}
        return parked | set(look.table("seen")) == {1, 2, 3}

    checks = {"ordered": always(ordered), "accounted for": eventually(accounted)}
    actors = [follow(note, retry=policy(2))]
    history = numbers(3, streams=1)
    return Scenario(history, actors, checks, faults=Faults(poison=1, crash=1), world=world)


def attempts_are_bounded() -> Scenario:
    """An event is tried three times at most, also if it kills its process each time."""
    world = World()
    tries, check = world.table("tries", {"1": 0}), world.service("check")

    def note(event: Placed) -> None:
        tries["1"] += 1
        check(event.n)

    few = always(lambda look: look.table("tries")["1"] <= 3)
    actors = [follow(note, retry=policy(3))]
    return Scenario(numbers(1), actors, {"few": few}, faults=Faults(crash=4, error=3), world=world)


def a_stop_is_a_stop() -> Scenario:
    """A subscription that is to stop at a failure handles nothing behind it."""
    world = World()
    seen = world.table("seen")

    def note(event: Placed) -> None:
        seen[event.n] = True

    gapless = always(lambda look: sorted(look.table("seen")) == [*range(1, len(look.table("seen")) + 1)])
    actors = [follow(note, retry=policy(2), on_exhausted="stop")]
    return Scenario(numbers(2), actors, {"no gap": gapless}, faults=Faults(poison=1), world=world)


def an_outage_parks_nothing() -> Scenario:
    """With a circuit breaker an outage gives no event up."""
    world = World()
    mail = world.service("mail", outage=3)

    def notify(event: Placed) -> None:
        mail(event.n)

    none = eventually(lambda look: not look.dead_letters() and len(look.calls("mail")) == 2)
    actors = [follow(notify, retry=policy(1), breaker=CircuitBreaker(failures=1, cooldown=9.0))]
    return Scenario(numbers(2), actors, {"none": none}, faults=Faults(outage=1), world=world)


def effects_are_on_a_ledger() -> Scenario:
    """An effect that is done is not done again when its event is delivered once more."""
    world = World()
    mail = world.service("mail")

    def notify(event: Placed, effects: Any) -> None:
        effects.call(mail, event.n)

    return Scenario(numbers(2), [notify], [no_effect_twice()], faults=Faults(duplicate=2), world=world)


def a_further_attempt_has_what_the_first_got() -> Scenario:
    """What an effect returned is returned at a further attempt, which does not do it again."""
    world = World()
    receipts, check = world.table("receipts"), world.service("check")

    @world.service
    def charge(n: int) -> str:
        return f"receipt {n}"

    def pay(event: Placed, effects: Any) -> None:
        receipt = effects.call(charge, event.n)
        check(event.n)
        receipts[event.n] = receipt

    kept = always(lambda look: None not in look.table("receipts").values())
    checks = {"once": no_effect_twice("charge"), "kept": kept}
    actors = [follow(pay, retry=policy(4))]
    return Scenario(numbers(2), actors, checks, faults=Faults(error=2), world=world)


def mails_are_sent_once() -> Scenario:
    """By an outbox, and to one who knows the key, each mail is sent exactly once."""
    world = World()

    @world.service(once_by="key")
    def mail(n: int, key: str) -> None:
        pass

    def notify(event: Placed, effects: Any) -> None:
        effects.call(mail, event.n)

    sent = eventually(lambda look: [call.arguments["n"] for call in look.calls("mail")] == [1, 2])
    actors = [follow(notify, outbox=True, retry=policy(3), sends=[mail])]
    faults = Faults(crash=1, error=1, unknown=1)
    return Scenario(numbers(2), actors, {"sent": sent}, faults=faults, world=world)


def sendings_are_bounded() -> Scenario:
    """What waits in the outbox is tried three times at most, also if it kills the process each time."""
    world = World()
    mail = world.service("mail")

    def notify(event: Placed, effects: Any) -> None:
        effects.call(mail, event.n)

    few = always(lambda look: len(look.calls("mail")) <= 3)
    actors = [follow(notify, outbox=True, retry=policy(3), sends=[mail])]
    return Scenario(numbers(1), actors, {"few": few}, faults=Faults(crash=4, unknown=2), world=world)


def mails_are_of_what_was_handled() -> Scenario:
    """By an outbox, nothing is sent for an event whose handler has failed."""
    world = World()
    mail, check = world.service("mail"), world.service("check")

    def notify(event: Placed, effects: Any) -> None:
        effects.call(mail, event.n)
        check(event.n)

    def honest(look: Any) -> bool:
        parked = {letter.position for letter in look.dead_letters()}
        return not parked & {call.arguments["args"][0] for call in look.calls("mail")}

    actors = [follow(notify, outbox=True, retry=policy(1), sends=[mail])]
    faults = Faults(error=1, crash=1)
    return Scenario(numbers(2), actors, {"honest": always(honest)}, faults=faults, world=world)


def a_replay_sends_nothing() -> Scenario:
    """A handler that has got an effect since sends none for what its former self has handled."""
    world = World()
    mail, flag = world.service("mail"), world.table("flag", {"sends": False})

    def notify(event: Placed, effects: Any) -> None:
        if flag["sends"]:
            effects.call(mail, event.n)

    def actors(store: Store) -> list[Any]:
        subscription = Subscription(store, notify)

        def first() -> None:
            subscription.catch_up()

        def again() -> None:
            flag["sends"] = True
            subscription.replay()

        return [task(first), task(again)]

    none = eventually(lambda look: not look.calls("mail"))
    return Scenario(numbers(2), actors, {"none": none}, world=world)


def a_redrive_loses_nothing() -> Scenario:
    """Whatever dies while letters are driven again, each event is handled once, or still a letter."""
    world = World()
    mended, mail = world.table("mended", {"yes": False}), world.service("mail")

    def sell(event: Placed, rows: Rows[Sold]) -> None:
        if not mended["yes"]:
            raise ValueError("not yet")
        mail(event.n)
        row = rows.get("all") or Sold(name="all")
        rows.put(row.but(total=row.total + event.n))

    def actors(store: Store) -> list[Any]:
        subscription = Subscription(store, sell, retry=policy(1))

        def first() -> None:
            subscription.catch_up()

        def again() -> Iterator[Any]:
            mended["yes"] = True
            yield from subscription.dead_letters.steps()

        return [task(first, restart=True), task(again, restart=True)]

    def whole(look: Any) -> bool:
        parked = sum(letter.position for letter in look.dead_letters())
        return parked + sum(row.total for row in look.rows()) == 3

    return Scenario(numbers(2), actors, {"whole": eventually(whole)}, faults=Faults(crash=1), world=world)


class Sum(State[Placed | Added]):
    total: int = 0

    def add(self, n: int) -> Added:
        if n > 9:
            raise Refused("too much")
        return Added(n=n)

    def evolve(self, event: Placed | Added) -> Any:
        return self.but(total=self.total + 1) if isinstance(event, Added) else self


AddIt = command(Sum.add, "AddIt")


class Adding(Process):
    late: bool = False


class Adder(ProcessManager[Adding]):
    @on(Placed)
    def placed(self, event: Placed, process: Adding) -> Any:
        return AddIt(process.id, n=event.n), Deadline("soon", minutes=1)

    @on(DeadlinePassed)
    def passed(self, event: DeadlinePassed, process: Adding) -> Any:
        return process.but(late=True)


def commands_and_deadlines_are_told_once() -> Scenario:
    """Each command of a process takes effect once, and each deadline is told once."""

    def once(look: Any) -> bool:
        kinds = [one.type for one in look.log]
        return all(kinds.count(kind) <= 1 for kind in set(kinds))

    def told(look: Any) -> bool:
        kinds = [one.type for one in look.log]
        return sorted(kinds) == ["Added", "Placed", "esim.DeadlinePassed"] and look.rows()[0].late

    checks = {"once": always(once), "told": eventually(told)}
    return Scenario([("Sum/1", Placed(n=1))], [Adder], checks, faults=Faults(crash=1))


def a_refusal_is_told_once() -> Scenario:
    """That a command was refused is recorded once, whatever dies."""
    once = always(lambda look: [one.type for one in look.log].count("esim.CommandRefused") <= 1)
    history = [("Sum/1", Placed(n=10))]
    return Scenario(history, [Adder], {"once": once}, faults=Faults(crash=1, unknown=1))


def two_managers_tell_a_deadline_once() -> Scenario:
    """Where one is taken for dead and goes on, beside its successor, a deadline is told once all the same."""
    once = always(lambda look: [one.type for one in look.log].count("esim.DeadlinePassed") <= 1)
    history = [("Sum/1", Placed(n=1))]
    return Scenario(history, [follow(Adder), follow(Adder)], {"once": once}, faults=Faults(preempt=1))


def writers_do_not_overwrite() -> Scenario:
    """Of two that decide on the same version, one is told to decide again."""

    def actors(store: Store) -> list[Any]:
        def reserve() -> Iterator[None]:
            version = store.version("Seat/1")
            yield
            if version == 0:
                try:
                    store.append("Seat/1", Added(n=1), expected=version)
                except Conflict:
                    return

        return [task(reserve, name="ann"), task(reserve, name="bob")]

    checks = {"once": always(lambda look: len(look.log) <= 1), "versions": contiguous_versions()}
    return Scenario([], actors, checks, faults=Faults(preempt=2))


# --- the mutations -----------------------------------------------------------------------------------------


class Mutation(NamedTuple):
    scenario: Callable[[], Scenario]
    owner: type
    method: str
    old: str
    new: str


MUTATIONS = {
    "rows are committed ahead of the checkpoint": Mutation(
        rows_are_counted_once,
        *(Delivery, "_all", 'yield "commit", batch.through'),
        'self.progress.commit(self.mark, rows=self._rows); yield "commit", batch.through',
    ),
    "rows are not committed with the checkpoint": Mutation(
        rows_are_counted_once, MemoryProgress, "commit", "dict(rows.changes())", "{}"
    ),
    "the position is noted too early": Mutation(
        rows_are_counted_once,
        *(Delivery, "_begin", 'if self.settings.checkpoint == "before_handler":', "if True:"),
    ),
    "the position is not noted with an attempt": Mutation(
        rows_are_counted_once,
        *(Delivery, "_batch", "self._position = position", "pass"),
    ),
    "rows are not undone after a failure": Mutation(
        rows_are_counted_once, Delivery, "_failed", "self._rows.undo()", "pass"
    ),
    "rows forget what they were before an event": Mutation(
        rows_are_counted_once, Delivery, "_handed", "rows.begin()", "pass"
    ),
    "acknowledged before it is handled": Mutation(
        nothing_is_lost,
        *(Delivery, "_begin", 'if self.settings.checkpoint == "before_handler":', "if True:"),
    ),
    "the whole batch is noted as done with the first attempt": Mutation(
        rows_are_counted_once,
        *(Delivery, "_batch", "self._position = position"),
        "self._position = batch.through",
    ),
    "acknowledged after it is handled": Mutation(
        nothing_is_done_twice,
        *(Delivery, "_begin", 'if self.settings.checkpoint == "before_handler":', "if False:"),
    ),
    "tried again although at most once": Mutation(
        nothing_is_done_twice,
        *(Delivery, "_retries", 'self.settings.checkpoint == "before_handler"', "False"),
    ),
    "the inbox is not asked": Mutation(
        an_inbox_knows_what_was_handled,
        *(Delivery, "_passes", "return self.settings.inbox and self._is_handled(recorded)", "return False"),
    ),
    "the inbox is not written": Mutation(
        an_inbox_knows_what_was_handled,
        *(Delivery, "_succeeded", "self._inbox.append((key_of(recorded), recorded.position))", "pass"),
    ),
    "the inbox is not asked beyond what it knew at the start": Mutation(
        an_inbox_knows_what_was_handled,
        *(MemoryProgress, "handled", "return key in self._kept().inbox", "return False"),
    ),
    "later events of a stream pass a dead one": Mutation(
        streams_stay_in_order, Delivery, "_passes", "if recorded.stream in self._parked:", "if False:"
    ),
    "a restart forgets which streams wait": Mutation(
        streams_stay_in_order,
        *(Delivery, "__init__", "self._parked = self._waiting()", "self._parked = {}"),
    ),
    "a dead letter is dropped": Mutation(
        streams_stay_in_order,
        *(Delivery, "_give_up", "self._park(recorded, attempts, error)", "pass"),
    ),
    "that a batch is begun is not noted": Mutation(
        attempts_are_bounded, Delivery, "_begin", "self._commit(begun=batch.through)", "pass"
    ),
    "an attempt is not noted before it is made": Mutation(
        attempts_are_bounded,
        *(Delivery, "_dares", "self._commit(trying=recorded, attempts=attempts + 1, begun=self.mark.begun)"),
        "pass",
    ),
    "a further attempt is not noted before it is made": Mutation(
        attempts_are_bounded,
        *(Delivery, "_again", "self._commit(trying=recorded, attempts=attempts + 1, begun=self.mark.begun)"),
        "pass",
    ),
    "a subscription that shall stop goes on": Mutation(
        a_stop_is_a_stop, Delivery, "_give_up", 'if self.settings.on_exhausted == "stop":', "if False:"
    ),
    "the circuit does not open": Mutation(
        an_outage_parks_nothing,
        *(Delivery, "_give_up", "if self._in_a_row >= breaker.failures:", "if False:"),
    ),
    "the ledger is not asked": Mutation(
        effects_are_on_a_ledger, Effects, "call", "if self._done(key, cause.position):", "if False:"
    ),
    "an effect of an earlier attempt is forgotten": Mutation(
        a_further_attempt_has_what_the_first_got,
        *(Effects, "call", "if key in self.fresh or key in self._results:", "if False:"),
    ),
    "an effect is not put on the ledger": Mutation(
        effects_are_on_a_ledger, Effects, "_keep", "self.fresh[effect.key] = effect", "pass"
    ),
    "the same effect has another key each time": Mutation(
        mails_are_sent_once,
        *(Relay, "_error", 'arguments["key"] = one.key', 'arguments["key"] = f"{one.key} {one.attempts}"'),
    ),
    "an attempt to send is not noted before it is made": Mutation(
        sendings_are_bounded, Relay, "_tried", "self._progress.tried(one.key, attempts + 1)", "pass"
    ),
    "a further attempt to send is not noted before it is made": Mutation(
        sendings_are_bounded, Relay, "_tried", "noted = True", "pass"
    ),
    "that a mail is sent is not noted": Mutation(
        mails_are_sent_once,
        *(Relay, "_sent", "self._progress.sent(one.key, self._now(), failure, attempts)", "pass"),
    ),
    "what waits in the outbox is not committed": Mutation(
        mails_are_sent_once,
        *(MemoryProgress, "commit", "{one.key: _entry(one, at) for one in effects}", "{}"),
    ),
    "a mail that waits is sent before the commit": Mutation(
        mails_are_of_what_was_handled,
        *(Effects, "call", "if self._outbox or cause.position <= self.gate:"),
        "if cause.position <= self.gate:",
    ),
    "the mail of a failed attempt stays in the outbox": Mutation(
        mails_are_of_what_was_handled, Effects, "take_back", "self.fresh.pop(key, None)", "pass"
    ),
    "a replay has no gate": Mutation(
        a_replay_sends_nothing,
        *(Effects, "call", "if self._outbox or cause.position <= self.gate:", "if self._outbox:"),
    ),
    "a letter is gone before its event is handled": Mutation(
        a_redrive_loses_nothing,
        *(
            Delivery,
            "redrive",
            "yield from self._amend(letter)  # before",
            "yield from self.dismiss(letter)  #",
        ),
    ),
    "a letter stays after its event is handled": Mutation(
        a_redrive_loses_nothing, Delivery, "dismiss", "gone=[letter.dead_letter_id]", "gone=[]"
    ),
    "a command has no key": Mutation(
        commands_and_deadlines_are_told_once,
        *(ProcessManager, "send_command", 'key=f"{self.name} {key}"', "key=None"),
    ),
    "a refusal has no key": Mutation(
        a_refusal_is_told_once,
        *(ProcessManager, "send_command", 'keyed(f"{self.name} {key} refused")', "keyed(str(id(message)))"),
    ),
    "a deadline is told without a key": Mutation(
        two_managers_tell_a_deadline_once,
        *(ProcessManager, "_key", '{due.name}"', '{due.name} {self.store.position}"'),
    ),
    "the expected version is not checked": Mutation(
        writers_do_not_overwrite, Store, "_admit", "check(stream, expected, heads[stream])", "pass"
    ),
}


def mutate(monkeypatch: pytest.MonkeyPatch, mutation: Mutation) -> None:
    """Put a method in its place that differs in one line of its source."""
    owner, method = mutation.owner, mutation.method
    source = textwrap.dedent(inspect.getsource(vars(owner)[method]))
    assert source.count(mutation.old) == 1, f"{owner.__name__}.{method} has another text by now"
    changed = "from __future__ import annotations\n" + source.replace(mutation.old, mutation.new)
    made: dict[str, Any] = {}
    exec(compile(changed, f"<{method}, mutated>", "exec"), vars(sys.modules[owner.__module__]), made)
    monkeypatch.setattr(owner, method, made[method])


def broken(scenario: Scenario) -> str | None:
    """Return what a search within the bounds finds broken first, or None if it is proven."""
    search = Search(Stage(scenario), scenario.invariants)
    return next((one.invariant for one in search.nodes(scenario.faults, "exhaustive") if one), None)


@pytest.mark.parametrize("made", dict.fromkeys(one.scenario for one in MUTATIONS.values()))
def test_the_code_as_it_is_is_proven(made):
    """No schedule within the bounds breaks an invariant."""
    assert broken(made()) is None


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_defence_that_is_taken_out_is_missed(monkeypatch, name):
    """A schedule within the same bounds breaks an invariant."""
    scenario = MUTATIONS[name].scenario()
    mutate(monkeypatch, MUTATIONS[name])
    assert broken(scenario) is not None
