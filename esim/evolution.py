"""Trying upcasters on a real log before they count, pinning what they do, and moving a log on to a new file.

A dry run reads every stored event as today's classes and upcasters would, and changes nothing. Golden samples
pin down, for each stored shape, what it is read as. A log is transformed into a new file, never in place.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid5

from esim import display
from esim.bar import Bar
from esim.contract import Payload, Store
from esim.envelope import Row
from esim.errors import EsimError, InvalidArgument, InvalidEvent, SpecFailed, UnknownEventType
from esim.event import batch_decoder, decode, encode, tags_of
from esim.query import Filter, Query, QueryItem
from esim.state import State, evolve_all
from esim.upcast import Read, read_as, road, roads, upcast

if TYPE_CHECKING:
    import pandas as pd

_FOUND = ("type", "schema_version", "outcome", "events", "read_as", "told", "position")
_CHANGED = ("state", "id", "outcome", "told")


# --- the dry run -------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class DryRun:
    """What a dry run found: two dataframes, and a table of both in a notebook.

    `events` has a row for each stored type, schema version and outcome: type, schema_version, outcome (fits,
    upcast, filled with defaults, coerced, split, dropped, no class, fails), events (how many), read_as (the
    types), told (which fields, or the error), position (of the first). `states` has a row for each aggregate
    whose state is not as without upcasters: state, id, outcome (changes, becomes readable, fails), told.
    """

    events: pd.DataFrame
    states: pd.DataFrame

    @property
    def failed(self) -> pd.DataFrame:
        """The rows of `events` that could not be read."""
        return self.events[self.events["outcome"] == "fails"]

    def __repr__(self) -> str:
        counts = self.events.groupby("outcome", sort=False)["events"].sum()
        told = ", ".join(f"{count:,} {outcome}" for outcome, count in counts.items()) or "an empty log"
        changed = f"{len(self.states):,} state{'s' * (len(self.states) != 1)}"
        return f"<DryRun: {told}; {changed} not as without upcasters>"

    def _repr_html_(self) -> str:
        shown = ((self.events, _FOUND), (self.states.head(20), _CHANGED))
        return "".join(
            display.table(names, map(_cells, part.to_numpy())) for part, names in shown if len(part)
        )


def _cells(row: Iterable[object]) -> list[str]:
    return [display.escape("" if cell == "" else display.plain(cell)) for cell in row]


def dry_run(store: Store, *states: type[State[Any]]) -> DryRun:
    """Read every stored event as today's classes and upcasters do; fold `states` with and without them.

    Nothing is changed and nothing raised: what fails is a row of the result.
    """
    import pandas as pd

    found: dict[tuple[Any, ...], list[int]] = {}
    for row in _progress(store):
        outcome, types, told = _outcome(row)
        found.setdefault((row[3], row[4], outcome, types, told), [0, row[0]])[0] += 1
    events = [
        (kind, shape, out, n, types, told, first)
        for (kind, shape, out, types, told), (n, first) in found.items()
    ]
    changed = [line for state in states for line in _states(store, state)]
    table = pd.DataFrame(events, columns=list(_FOUND)).sort_values(["type", "schema_version", "position"])
    return DryRun(table.reset_index(drop=True), pd.DataFrame(changed, columns=list(_CHANGED)))


def _progress(store: Store) -> Iterator[Row]:
    with Bar(0, store.position, "reading") as bar:
        for rows in store._scan(Filter()):
            yield from rows
            bar.at(rows[-1][0])


def _outcome(row: Row) -> tuple[str, str, str]:
    """Return what becomes of a stored event, the types it is read as, and what there is to tell."""
    try:
        reads = read_as(*row[3:6])
        told = [_noticed(read) for read in reads]
    except UnknownEventType:
        return "no class", row[3], ""
    except EsimError as error:
        return "fails", row[3], str(error)
    types = ", ".join(read[0] for read in reads)
    if len(reads) != 1:
        return ("split" if reads else "dropped"), types, ""
    filled, coerced = told[0]
    if coerced:
        return "coerced", types, ", ".join(coerced)
    if road(row[3], row[4]) is not None:
        return "upcast", types, ""
    return ("filled" if filled else "fits"), types, ", ".join(filled)


def _noticed(read: Read) -> tuple[list[str], list[str]]:
    """Return the fields that a class fills in, and those whose value it takes for another."""
    given, made = json.loads(read[2]), json.loads(encode(decode(read[0], read[2])))
    coerced = [name for name in given if name in made and _other(given[name], made[name])]
    return [name for name in made if name not in given], coerced


def _other(given: object, made: object) -> bool:
    """Say whether a value became another one; defaults inside nested values do not count."""
    if isinstance(given, dict) and isinstance(made, dict):
        return any(name not in made or _other(value, made[name]) for name, value in given.items())
    if isinstance(given, list) and isinstance(made, list):
        return len(given) != len(made) or any(map(_other, given, made))
    return type(given) is not type(made) or given != made


def _states(store: Store, state: type[State[Any]]) -> Iterator[tuple[str, str, str, str]]:
    """Give a row for each aggregate that is read otherwise than without upcasters."""
    kinds = tuple(roads())
    if not kinds:
        return
    touched = Filter(category=state.category, query=Query(QueryItem(kinds)))
    streams = dict.fromkeys(row[1] for rows in store._scan(touched) for row in rows)
    for stream in streams:
        id = stream.partition("/")[2]
        before = _folded(state, store._payloads(stream, 0, None, None))
        after = _folded(state, _raised(store._payloads(stream, 0, None, None)))
        if isinstance(after, str):
            yield state.__name__, id, "fails", after
        elif isinstance(before, str):
            yield state.__name__, id, "becomes readable", _fields(after)
        elif before != after:
            yield state.__name__, id, "changes", _difference(before, after)


def _raised(rows: Iterable[Payload]) -> Iterator[Payload]:
    return ((row[0], *read) for row in rows for read in read_as(*row[1:]))


def _folded(state: type[State[Any]], rows: Iterable[Payload]) -> State[Any] | str:
    """Return the state after payloads, or why there is none."""
    decoder = batch_decoder(state.event_types())
    try:
        events = (event for row in rows for event in decoder((row[1],), (row[3],)))
        return evolve_all(state.initial(), events)
    except EsimError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - what evolve raises is told, not raised
        return f"{type(error).__name__}: {error}"


def _fields(state: State[Any]) -> str:
    names = type(state).__pydantic_fields__
    return "; ".join(f"{name}: {display.plain(getattr(state, name))}" for name in names)


def _difference(before: State[Any], after: State[Any]) -> str:
    fields = ((name, getattr(before, name), getattr(after, name)) for name in type(after).__pydantic_fields__)
    return "; ".join(f"{name}: {display.plain(a)} → {display.plain(b)}" for name, a, b in fields if a != b)


# --- golden samples ----------------------------------------------------------------------------------------


def keep_samples(store: Store, path: str | PathLike[str]) -> int:
    """Add to a file of golden samples the first event of each stored type and shape that it lacks.

    A line each of JSON: type, schema_version, stored (the payload's text) and read_as (a list of type and
    payload). What is in the file stays. Returns how many were added; raises as `read` does if one fails.
    """
    file = Path(path)
    known = {(one["type"], one["schema_version"]) for one in _samples(file)} if file.exists() else set()
    added: dict[tuple[str, int], str] = {}
    for row in _progress(store):
        if (row[3], row[4]) not in known and (row[3], row[4]) not in added:
            sample = {"type": row[3], "schema_version": row[4], "stored": row[5], "read_as": _told(*row[3:6])}
            added[row[3], row[4]] = json.dumps(sample, ensure_ascii=False)
    with file.open("a", encoding="utf-8") as out:
        out.writelines(f"{line}\n" for line in added.values())
    return len(added)


def check_samples(path: str | PathLike[str]) -> int:
    """Hold that every golden sample is read as it was when it was kept; return how many there are.

    Raises SpecFailed, which names each that is not.
    """
    samples = list(_samples(Path(path)))
    wrong = [line for sample in samples for line in _compared(sample)]
    if wrong:
        raise SpecFailed(
            "\n".join((f"{len(wrong)} of {len(samples)} golden samples are read otherwise:", *wrong))
        )
    return len(samples)


def _samples(file: Path) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        try:
            sample = json.loads(line)
            yield {name: sample[name] for name in ("type", "schema_version", "stored", "read_as")}
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidArgument(
                f"line {number} of {file.name!r} is no golden sample ({error}): restore the file"
            ) from None


def _compared(sample: dict[str, Any]) -> Iterator[str]:
    name = f"  {sample['type']} of shape {sample['schema_version']}"
    try:
        now = _told(sample["type"], sample["schema_version"], sample["stored"])
    except EsimError as error:
        yield f"{name}: {error}"
        return
    if now != sample["read_as"]:
        yield f"{name}: expected {json.dumps(sample['read_as'])}, came {json.dumps(now)}"


def _told(type: str, schema_version: int, text: str) -> list[list[Any]]:
    """Return what a stored payload is read as: type and payload, with every default in it."""
    reads = read_as(type, schema_version, text)
    return [[read[0], json.loads(encode(decode(read[0], read[2])))] for read in reads]


# --- transforming a log ------------------------------------------------------------------------------------


def transform(store: Store, path: str | PathLike[str]) -> Counter[str]:
    """Write the log as it is read today into a new store file; return how many events of each type it has.

    Positions and versions count anew, without gaps; the rest of the envelope stays, and so do payloads that
    need no upcaster. The second and later parts of a split event have ids derived from its own, so that the
    same log gives the same file.

    Nothing else is copied: no snapshots, no read models, and nothing of subscriptions, no checkpoints, dead
    letters or ledger. One that writes rows simply begins anew. One with effects would do them all again, so
    catch up with it and redrive its letters first, and begin behind what was handled:
    `Subscription(new, send_receipt).reset(after=new.position)`.

    Raises InvalidArgument if the file exists, and as reading does if an event fails; then there is no file.
    """
    from esim.store import EventStore

    target = Path(path)
    if target.exists():
        raise InvalidArgument(
            f"{target.name!r} exists already, and a log is never transformed in place: choose a new name"
        )
    part = target.with_name(target.name + ".part")
    part.unlink(missing_ok=True)
    counts: Counter[str] = Counter()
    try:
        with EventStore(part) as made:
            made.restore(_moved(_progress(store), counts))
        part.rename(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return counts


def _moved(stored: Iterable[Row], counts: Counter[str]) -> Iterator[Row]:
    """Give rows with new positions and versions; those before which upcasters stand as these leave them."""
    versions: Counter[str] = Counter()
    position = 0
    for old in stored:
        for row in [old] if road(old[3], old[4]) is None else _rewritten(old):
            position += 1
            versions[row[1]] += 1
            counts[row[3]] += 1
            yield (position, row[1], versions[row[1]], *row[3:])


def _rewritten(old: Row) -> Iterator[Row]:
    for row, part in upcast([old]):
        try:
            event = decode(row[3], row[5])
        except EsimError as error:
            raise InvalidEvent(f"{old[1]!r} version {old[2]}, position {old[0]}: {error}") from None
        tags = tuple(dict.fromkeys((*(row[12] or ()), *tags_of(event))))
        key = uuid5(UUID(str(row[9])), str(part)) if part else row[9]
        shape = (row[3], event.schema_version, encode(event))
        yield (*row[:3], *shape, *row[6:9], key, *row[10:12], tags, row[13])
