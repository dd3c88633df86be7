"""What must hold in every simulated run: at each moment, in the end, or at least sometimes.

A check is a function of a `Look`, the world as it is at a moment. It holds if it returns something true, or
nothing at all without raising; it is broken if it returns something false, or an `assert` of it fails.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from esim import display
from esim.contract import Store
from esim.errors import EsimError, InvalidArgument, said, text_of
from esim.event import Event
from esim.part import Part
from esim.progress import Letter
from esim.queues import Queue
from esim.rows import Row, Rows
from esim.service import Call, Service
from esim.state import State, fold
from esim.world import Table

if TYPE_CHECKING:
    import pandas as pd

    from esim.envelope import RecordedEvent
    from esim.subscription import Subscription

When = Literal["always", "eventually", "sometimes"]
PLAINLY = "it is False"
"""What is said of a check that says no more than that it does not hold."""


class Look:
    """The world at one moment: the log, the subscriptions, and what is outside. Only for looking."""

    def __init__(
        self, store: Store, parts: Mapping[str, Part], subscriptions: Mapping[str, Subscription]
    ) -> None:
        """Look at a store, at parts of a world, and at subscriptions by name."""
        self.store = store
        self._parts, self._subscriptions = parts, subscriptions
        self._asked: set[str] = set()

    @property
    def log(self) -> list[RecordedEvent[Any]]:
        """The recorded events in order of position."""
        return list(self.store.read())

    @property
    def tables(self) -> dict[str, Table]:
        """The tables of the world by name."""
        return {name: part for name, part in self._parts.items() if isinstance(part, Table)}

    def table(self, name: str) -> Table:
        """Return a table of the world by name."""
        found: Table = self._part(name, Table)
        return found

    def calls(self, name: str | None = None) -> list[Call]:
        """Return the calls that one service, or every one, has carried out, in order.

        A function that handlers call by `effects`, and that is not of the world, is known by its name.
        Raises InvalidArgument where no service can be of that name.
        """
        if name is not None:
            if name not in self._parts and any(one.handler.effects for one in self._subscriptions.values()):
                self._asked.add(name)
                return []  # not yet
            found: list[Call] = self._part(name, Service).calls
            return found
        return [call for part in self._parts.values() if isinstance(part, Service) for call in part.calls]

    def unknown(self) -> list[str]:
        """Return the services that were asked for and that nobody has called, each with what may be meant."""
        known = [name for name, part in self._parts.items() if isinstance(part, Service)]
        never = sorted(self._asked - set(known))
        return [f"nobody has called {name!r}{display.did_you_mean(name, known)}" for name in never]

    def queue(self, name: str) -> list[Any]:
        """Return the messages that wait in a queue, or are taken and not yet acknowledged."""
        return [body for _, body, _ in self._part(name, Queue).snapshot()[0]]

    def rows(self, name: str | None = None) -> list[Row]:
        """Return the rows that a subscription (the only one that writes some) has committed."""
        return list(self._subscription(name, writing=True)._progress.all_rows())

    def position(self, name: str | None = None) -> int:
        """Return the checkpoint of a subscription, or of the only one."""
        return self._subscription(name).position

    def dead_letters(self, name: str | None = None) -> list[Letter]:
        """Return the dead letters of one subscription, or of all."""
        names = list(self._subscriptions) if name is None else [name]
        return [letter for one in names for letter in self._subscription(one)._progress.letters()]

    def df(self, name: str) -> pd.DataFrame:
        """Return the rows of a subscription, or a table of the world (columns key, value), as a dataframe."""
        import pandas as pd

        if name in self._subscriptions:
            return self._subscription(name).df()
        table = self._part(name, Table)
        return pd.DataFrame({"key": list(table), "value": [table[key] for key in table]})

    def _part(self, name: str, kind: Any) -> Any:
        part = self._parts.get(name)
        if not isinstance(part, kind):
            known = [each for each, part in self._parts.items() if isinstance(part, kind)]
            raise InvalidArgument(
                f"there is no {kind.__name__.lower()} {name!r}{display.did_you_mean(name, known)}"
            )
        return part

    def _subscription(self, name: str | None, *, writing: bool = False) -> Subscription:
        known = [
            key for key, one in self._subscriptions.items() if not writing or one.handler.row is not None
        ]
        if name is None and len(known) == 1:
            name = known[0]
        if name not in known:
            raise InvalidArgument(
                f"there is no subscription {name!r}{display.did_you_mean(str(name), known)}"
                if name is not None
                else f"say which subscription: there is {', '.join(known) or 'none'}"
            )
        return self._subscriptions[name]

    def __repr__(self) -> str:
        return f"<Look at {self.store!r}, {', '.join([*self._subscriptions, *self._parts])}>"


@dataclass(frozen=True)
class Invariant:
    """A check, and when it must hold."""

    when: When
    check: Callable[[Look], object]
    about: Callable[[Look], object] | None = None
    """What it looks at, if that is known: where there never is any, nothing was asked."""

    def had_any(self, look: Look) -> bool:
        """Say whether there is what it looks at; for a `sometimes`, whether it has come true."""
        if self.when == "sometimes":
            return self.broken(look) is None
        return self.about is None or bool(self.about(look))

    def broken(self, look: Look) -> str | None:
        """Return why the check does not hold, or None if it does."""
        try:
            held = self.check(look)
        except AssertionError as failed:
            return text_of(failed).partition("\n")[0] or "an assertion failed"
        except EsimError:
            raise
        except Exception as error:
            name = getattr(self.check, "__name__", "the check")
            raise InvalidArgument(
                f"{name} of an invariant raised {said(error)}: a check says whether it holds, or asserts it"
            ) from error
        if held is None and self.when == "sometimes":
            return "it gave nothing; return something true where it came about"
        if held is None or _true(held):
            return None
        return "it does not hold" if held is False else f"it is {display.short(held)}"


def _true(held: object) -> bool:
    try:
        return bool(held)
    except ValueError:  # a series or a frame: all of it
        return bool(held.all().all()) if getattr(held, "ndim", 1) > 1 else bool(held.all())  # type: ignore[attr-defined]


def always(check: Callable[[Look], object]) -> Invariant:
    """Return an invariant that must hold at every moment: after each write, call, append and commit."""
    return Invariant("always", check)


def eventually(check: Callable[[Look], object]) -> Invariant:
    """Return an invariant that must hold in the end: faults are over, everything is up and delivered."""
    return Invariant("eventually", check)


def sometimes(check: Callable[[Look], object]) -> Invariant:
    """Return a check that must hold at some moment of some run: a proof about what never happens is empty."""
    return Invariant("sometimes", check)


def named(invariants: object) -> dict[str, Invariant]:
    """Return invariants by name; a bare function must hold in the end, and has its own name.

    Raises InvalidArgument for anything else.
    """
    if isinstance(invariants, Mapping):
        return {str(name): _invariant(one, str(name)) for name, one in invariants.items()}
    several = (
        [invariants] if isinstance(invariants, str) or not isinstance(invariants, Iterable) else invariants
    )
    found: dict[str, Invariant] = {}
    for one in several:
        check = one.check if isinstance(one, Invariant) else one
        name = str(getattr(check, "__name__", "invariant")).replace("_", " ").replace("<lambda>", "it")
        while name in found:
            name += "'"
        found[name] = _invariant(one, name)
    return found


def _invariant(given: object, name: str) -> Invariant:
    check = given.check if isinstance(given, Invariant) else given
    if inspect.iscoroutinefunction(check) or inspect.isgeneratorfunction(check):
        raise InvalidArgument(
            f"{name}: {display.short(check)} is async or yields: a check is a plain function"
        )
    if isinstance(given, Invariant):
        return given
    if callable(given):
        return Invariant("eventually", given)
    raise InvalidArgument(f"{name}: {display.short(given)} is no invariant: write eventually(lambda look: …)")


# --- ready-made --------------------------------------------------------------------------------------------


def no_effect_twice(service: str | None = None, *, by: Sequence[str] = ()) -> Invariant:
    """Return the invariant that no call (of one service) is carried out twice with the same arguments.

    `by` names the arguments that count, by default all but `key`, unless there is no other.
    """

    def no_effect_twice(look: Look) -> None:
        seen = Counter((call.service, repr(_counting(call.arguments, by))) for call in look.calls(service))
        for (name, told), count in seen.items():
            assert count == 1, f"{name} was called {count} times with {told}"  # noqa: S101 - that is the check

    return Invariant("always", no_effect_twice, lambda look: look.calls(service))


def _counting(arguments: Mapping[str, Any], by: Sequence[str]) -> list[tuple[str, Any]]:
    names = by or [name for name in arguments if name != "key"] or ["key"]
    return [(name, value) for name, value in arguments.items() if name in names]


def nothing_lost(service: str, event: type[Event], *, by: str) -> Invariant:
    """Return the invariant that in the end a service was called for each event of a class.

    `by` names the field, and the argument, that tells which event a call is for; dead letters count as known.
    """

    def nothing_lost(look: Look) -> None:
        parked = {letter.position for letter in look.dead_letters()}
        called = {call.arguments.get(by) for call in look.calls(service)}
        for one in look.store.read(type=event):
            value = getattr(one.event, by)
            assert value in called or one.position in parked, f"{service} was never called for {value}"  # noqa: S101

    return Invariant("eventually", nothing_lost, lambda look: list(look.store.read(type=event)))


def contiguous_versions() -> Invariant:
    """Return the invariant that the versions of each stream run from 1 without a gap."""

    def contiguous_versions(look: Look) -> None:
        heads: Counter[str] = Counter()
        for one in look.log:
            heads[one.stream] += 1
            assert one.version == heads[one.stream], f"{one.stream} goes on with version {one.version}"  # noqa: S101

    return Invariant("always", contiguous_versions, lambda look: look.log)


def never_negative(table: str) -> Invariant:
    """Return the invariant that no value of a table of the world is below zero."""

    def never_negative(look: Look) -> None:
        for key, value in look.table(table).items():
            assert value >= 0, f"{key} is {value}"  # noqa: S101 - that is the check

    return Invariant("always", never_negative, lambda look: look.table(table))


def equals_fold(table: str, expected: Callable[[list[Any]], Mapping[Any, Any]]) -> Invariant:
    """Return the invariant that in the end a table of the world is what `expected` makes of all events."""

    def equals_fold(look: Look) -> None:
        found, wanted = dict(look.table(table)), dict(expected([one.event for one in look.log]))
        assert found == wanted, f"{table} is {display.short(found)}, and the log says {display.short(wanted)}"  # noqa: S101

    return Invariant("eventually", equals_fold, lambda look: look.log)


def rows_equal_replay(name: str | None = None) -> Invariant:
    """Return the invariant that the rows of a subscription are always what its handler makes of the log.

    The log is handled anew, each event up to the checkpoint once and in order. Not for handlers that are
    async or have effects, nor where there are dead letters.
    """

    def rows_equal_replay(look: Look) -> None:
        follower = look._subscription(name, writing=True)
        handler, rows = follower.handler, Rows(follower.handler.row or Row)
        wanted = {kind.event_type for kind in handler.types}
        for one in look.store.read(until=follower.position):
            call = handler.calls.get(one.type) or handler.calls.get("")
            if call is not None and (not wanted or one.type in wanted):
                call(one, rows, None)
        same = sorted(map(repr, look.rows(name))) == sorted(map(repr, rows))
        assert same, f"{follower.name} has other rows than its log says"  # noqa: S101 - that is the check

    return Invariant("always", rows_equal_replay, lambda look: look.rows(name))


def state_of(look: Look, state: type[State[Any]], id: str) -> Any:
    """Return the state of an aggregate, folded from the log as it is."""
    return fold(state, [one.event for one in look.store.read(f"{state.category}/{id}")])


def completed_xor_compensated(
    completed: type[Event], compensated: type[Event], *, started: type[Event]
) -> Invariant:
    """Return the invariant that in the end each started process is completed or compensated, and not both.

    The events of one process are those of one correlation.
    """

    def completed_xor_compensated(look: Look) -> None:
        found: dict[str, list[str]] = {}
        for one in look.log:
            kinds = found.setdefault(one.correlation_id or str(one.event_id), [])
            kinds.append(one.type)
        for kinds in found.values():
            if started.event_type in kinds:
                done, undone = completed.event_type in kinds, compensated.event_type in kinds
                assert done != undone, (  # noqa: S101 - that is the check
                    "both completed and compensated" if done else "neither completed nor compensated"
                )

    return Invariant(
        "eventually", completed_xor_compensated, lambda look: list(look.store.read(type=started))
    )
