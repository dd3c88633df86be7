"""Commands as messages, and who carries them out; queries, and who answers them.

A command is what a decision is asked: `PayOrder = command(Order.pay)` is a frozen model with the id of the
aggregate and the decision's own parameters, so it can be kept, sent and read again as JSON. What a decision
needs beside them, such as a price list, has the default `injected()`, and the dispatcher hands it in.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Concatenate, ParamSpec, TypeVar, cast, get_origin, get_type_hints
from uuid import UUID

from pydantic import create_model

from esim import display
from esim.arguments import storable, whole
from esim.contract import Store, must_be_store
from esim.envelope import RecordedEvent, derived_id, keyed, metadata
from esim.errors import InvalidArgument
from esim.projection import Projection, SqlProjection
from esim.reading import Recorded
from esim.repository import Repository
from esim.state import State, current_state, state_of
from esim.value import Value

S = TypeVar("S", bound=State[Any])
P = ParamSpec("P")


class _Injected:
    """Stands for what a dispatcher will hand in; used before that, it says so."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise InvalidArgument(
            f"nobody handed in what a decision asks {name!r} of: pass it, or send the command by a "
            "Dispatcher that provides it"
        )

    def __repr__(self) -> str:
        return "injected()"


def injected() -> Any:
    """Be the default of a decision's parameter that a dispatcher supplies; its annotation says what."""
    return _Injected()


class Command(Value):
    """What somebody wants of an aggregate; see `command`."""

    id: str
    name: ClassVar[str] = "Command"
    state: ClassVar[type[State[Any]]]
    decision: ClassVar[str]

    def __init__(self, id: str, *args: Any, **values: Any) -> None:
        """Ask aggregate `id`; the rest are the decision's arguments, in its order or by name."""
        names = [name for name in type(self).__pydantic_fields__ if name != "id"]
        if len(args) > len(names):
            raise InvalidArgument(
                f"{type(self).__name__} takes {len(names)} arguments after the id ({', '.join(names)}), and "
                f"here are {len(args)}"
            )
        given = {"id": id, **dict(zip(names, args, strict=False)), **values}
        super().__init__(**given)


_known: dict[str, type[Command]] = {}


def command(
    decision: Callable[Concatenate[S, P], Any], name: str | None = None
) -> Callable[Concatenate[str, P], Command]:
    """Return the message class of a decision: its fields are `id` and the decision's parameters.

    Its name is that of the decision and the state, `PayOrder`, unless given; asked again, it replaces the
    former class. Raises InvalidArgument if this is no decision, or a parameter has no type.
    """
    state = _state_of(decision)
    told = getattr(decision, "__name__", "")
    title = "".join(part.capitalize() for part in told.split("_")) + state.__name__
    hints = _hints(decision)
    fields: dict[str, Any] = {}
    for each in list(inspect.signature(decision).parameters.values())[1:]:
        if each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD):
            raise InvalidArgument(f"{state.__name__}.{told} takes *{each.name}: a message has named fields")
        if each.name == "id":
            raise InvalidArgument(f"{state.__name__}.{told} has a parameter 'id', which names the aggregate")
        if each.name not in hints:
            raise InvalidArgument(f"{state.__name__}.{told}: its parameter {each.name!r} has no type")
        if not isinstance(each.default, _Injected):
            default = ... if each.default is each.empty else each.default
            fields[each.name] = (hints[each.name], default)
    made = create_model(
        storable(title if name is None else name, "name"),
        __base__=Command,
        __module__=sys._getframe(1).f_globals.get("__name__", __name__),
        __doc__=inspect.getdoc(decision),
        **fields,
    )
    made.name, made.state, made.decision = made.__name__, state, told
    _known[made.name] = made
    return cast("Callable[Concatenate[str, P], Command]", made)


def command_class(name: str) -> type[Command]:
    """Return the message class of a name. Raises InvalidArgument if there is none."""
    if name not in _known:
        raise InvalidArgument(f"there is no command {name!r}{display.did_you_mean(name, list(_known))}")
    return _known[name]


class Dispatcher:
    """Carries out commands on the aggregates of a store, and answers queries from its projections."""

    def __init__(
        self,
        store: Store,
        *,
        provides: Iterable[object] = (),
        retries: int = 3,
        snapshot_every: int | None = None,
    ) -> None:
        """Serve `store`; each of `provides` is handed to the decisions that ask for its class."""
        self.store = must_be_store(store)
        self._provides = tuple(provides)
        self._retries, self._snapshot_every = whole(retries, "retries"), snapshot_every
        self._repositories: dict[type[State[Any]], Repository[Any]] = {}
        self._models: dict[type[Any], Any] = {}

    def send(self, message: Command, *, key: str | UUID | None = None) -> Recorded:
        """Carry out a command, and return the recorded events, none if the decision saw no need.

        A command sent again under the same `key` does nothing, and returns what was recorded the first time.
        The key is the cause of the events. Raises what the decision raises, Conflict when the retries are
        used up, and InvalidArgument for what is no command, or needs what nobody provides.
        """
        if not isinstance(message, Command):
            raise InvalidArgument(f"{display.short(message)} is no command: make one by command(Order.pay)")
        decision = getattr(current_state(message.state), message.decision)
        arguments = {
            name: getattr(message, name) for name in type(message).__pydantic_fields__ if name != "id"
        }
        arguments |= self._injected(decision)
        repository = self._repository(message.state)
        if key is None:
            return _several(repository.run(message.id, decision, **arguments))
        text = storable(str(key), "key")
        known = self._known(text)
        if known is not None:
            return known
        with metadata(causation_id=text), keyed(text):
            return _several(repository.run(message.id, decision, **arguments))

    def ask(self, model: type[Any], *key: Any, after: int | Recorded | None = None) -> Any:
        """Return the row of a key in a projection, or its dataframe without a key, as it is stored.

        That may be older than the log. With `after`, a position or what `send` returned, it has seen at least
        that: you read what you wrote. Raises NotCaughtUp if the log is shorter.
        """
        if not (isinstance(model, type) and issubclass(model, Projection | SqlProjection)):
            raise InvalidArgument(f"{display.short(model)} is no projection: give its class")
        asked = self._models.get(model) or self._models.setdefault(model, model(self.store))
        if after is not None:
            position = after if isinstance(after, int) else max((one.position for one in after), default=0)
            asked.wait_for(position)
        if not key:
            return asked.df(fresh=asked.position == 0)
        wanted = key[0] if issubclass(model, Projection) and len(key) == 1 else key
        return (
            asked.get(wanted, fresh=False) if issubclass(model, Projection) else asked.get(*key, fresh=False)
        )

    def _repository(self, state: type[State[Any]]) -> Repository[Any]:
        latest = current_state(state)
        if latest not in self._repositories:
            self._repositories[latest] = Repository(
                self.store, latest, retries=self._retries, snapshot_every=self._snapshot_every
            )
        return self._repositories[latest]

    def _known(self, key: str) -> Recorded | None:
        """Return the events that were recorded under a key, or None."""
        first = self.store._find([derived_id(key, 0)])
        if not first:
            return None
        (row,) = first.values()
        rows, number = [row], 1
        while more := self.store._find([derived_id(key, number)]):
            rows += more.values()
            number += 1
        return Recorded(rows)

    def _injected(self, decision: Callable[..., Any]) -> dict[str, Any]:
        hints = _hints(decision)
        asked = inspect.signature(decision).parameters.values()
        return {
            one.name: self._provided(decision, one.name, hints[one.name])
            for one in asked
            if isinstance(one.default, _Injected)
        }

    def _provided(self, decision: Callable[..., Any], name: str, wanted: Any) -> object:
        kind = get_origin(wanted) or wanted
        found = [one for one in self._provides if isinstance(one, kind)]
        if len(found) == 1:
            return found[0]
        told, kind_name = getattr(decision, "__qualname__", repr(decision)), getattr(kind, "__name__", kind)
        if found:
            raise InvalidArgument(
                f"{told} needs {name}, a {kind_name}, and the dispatcher provides {len(found)}: which one is "
                f"meant? {display.short(found[0])}, {display.short(found[1])}"
            )
        raise InvalidArgument(
            f"{told} needs {name}, a {kind_name}, and the dispatcher provides none: "
            f"Dispatcher(store, provides=[{name}])"
        )


def _state_of(decision: object) -> type[State[Any]]:
    owner = state_of(cast("Any", decision)) if inspect.isfunction(decision) else None
    if owner is None:
        raise InvalidArgument(f"{display.short(decision)} is no decision: give the method, as in Order.pay")
    return owner


def _hints(decision: Callable[..., Any]) -> dict[str, Any]:
    try:
        return get_type_hints(decision, include_extras=True)
    except NameError as error:
        told = getattr(decision, "__qualname__", repr(decision))
        raise InvalidArgument(f"the types of {told} cannot be read: {error}") from None


def _several(recorded: RecordedEvent[Any] | Recorded | None) -> Recorded:
    if recorded is None:
        return Recorded(())
    if isinstance(recorded, RecordedEvent):
        return Recorded([recorded._row], [recorded.event])
    return recorded
