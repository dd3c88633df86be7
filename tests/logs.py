"""What the tests of log formats share: logs that Hypothesis makes up, and what is the same in two of them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

from esim.arrowlog import ATTRIBUTES, LINKS, RELATIONS, Tables, key_of, utc_time

TIMES = st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))
_OURS = ["n", "e", "k", "links", "object_id", "event_id", "nothing", "kind", "id", "x", "source"]
TEXTS = st.one_of(
    st.sampled_from(_OURS),  # what our own SQL may call its columns
    st.sampled_from(
        ["", " ", "a", "Ünïcödé 名", "<b onclick='x'>&amp;\"]]>", "a\tb\r\nc", "1", "1.50", "true", "{}"]
    ),
    st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff"), max_size=6),
)
NAMES = TEXTS.filter(bool)
KINDS: dict[Any, Any] = {
    pa.string(): TEXTS,
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.float64(): st.floats(allow_nan=False),
    pa.bool_(): st.booleans(),
    utc_time(): TIMES,
}


@st.composite
def columns(draw: st.DrawFn, rows: int, names: st.SearchStrategy[str]) -> dict[str, pa.Array]:
    """Return columns of any types with gaps, whose names differ in more than case."""
    found = draw(st.lists(names, max_size=4, unique_by=lambda name: name.casefold()))
    made = {}
    for name in found:
        kind = draw(st.sampled_from(list(KINDS)))
        values = st.lists(st.none() | KINDS[kind], min_size=rows, max_size=rows)
        made[name] = pa.array(draw(values), kind)
    return made


@st.composite
def cases(draw: st.DrawFn) -> Tables:
    """Return a log of cases, one after the other."""
    sizes = draw(st.dictionaries(NAMES, st.integers(1, 3), max_size=4))
    case = [name for name, size in sizes.items() for _ in range(size)]
    rows = len(case)
    taken = {"position", "case", "activity", "at", "concept:name", "time:timestamp"}
    own = {
        "position": pa.array(range(1, rows + 1), pa.int64()),
        "case": pa.array(case, pa.string()),
        "activity": pa.array([draw(NAMES) for _ in case], pa.string()),
        "at": pa.array([draw(TIMES) for _ in case], utc_time()),
    }
    names = NAMES.filter(
        lambda name: name.casefold() not in taken and not name.startswith(("case:", "event:"))
    )
    events = pa.table({**own, **draw(columns(rows, names))})
    roles = {"case": "case", "activity": "activity", "time": "at", "order": "position"}
    return Tables(events, None, None, roles)


@st.composite
def object_logs(draw: st.DrawFn) -> Tables:
    """Return an object-centric log."""
    ids = draw(st.lists(NAMES, max_size=5, unique=True))
    rows = len(ids)
    reserved = {"position", "event_id", "type", "time", "ocel_id", "ocel_time", "ocel_type", "ocel:activity"}
    own = {
        "position": pa.array(range(1, rows + 1), pa.int64()),
        "event_id": pa.array(ids, pa.string()),
        "type": pa.array([draw(NAMES) for _ in ids], pa.string()),
        "time": pa.array([draw(TIMES) for _ in ids], utc_time()),
    }
    names = NAMES.filter(lambda name: name.casefold() not in reserved and "\0" not in name)
    events = pa.table({**own, **draw(columns(rows, names))})
    objects = draw(st.dictionaries(NAMES, st.sampled_from(["order", "item", "名"]), max_size=4))
    some = st.sampled_from(sorted(objects.items())) if objects else st.nothing()
    links = (
        draw(st.lists(st.tuples(st.sampled_from(ids), some, st.none() | NAMES), max_size=6))
        if ids and objects
        else []
    )
    place = {id_: number for number, id_ in enumerate(ids)}
    kept = sorted(dict.fromkeys(links), key=lambda link: place[link[0]])
    related = (
        draw(st.lists(st.tuples(some, some, st.none() | NAMES), max_size=3, unique=True)) if objects else []
    )
    told = [
        (kind, id_, "colour", draw(TEXTS), "string", draw(TIMES))
        for id_, kind in objects.items()
        for _ in range(draw(st.integers(0, 2)))
    ]
    return Tables(
        events,
        _table(LINKS, [(event, kind, id_, qualifier) for event, (id_, kind), qualifier in kept]),
        _table(ATTRIBUTES, told),
        {"event_id": "event_id", "activity": "type", "time": "time", "order": "position"},
        _table(RELATIONS, [(k1, s, k2, t, q) for (s, k1), (t, k2), q in related]) if related else None,
        {"format": "ocel"},
    )


def _table(names: tuple[str, ...], rows: list[tuple[Any, ...]]) -> pa.Table:
    kinds = {"time": utc_time()}
    values = zip(*rows, strict=True) if rows else [()] * len(names)
    found = [
        pa.array(list(each), kinds.get(name, pa.string())) for name, each in zip(names, values, strict=True)
    ]
    return pa.table(found, names=list(names))


def facts(events: pa.Table, **called: str) -> list[dict[str, Any]]:
    """Return what is said of each event, by the keys in the file; `called` renames them."""
    keys = [called.get(key_of(each), key_of(each)) for each in events.schema]
    rows = zip(*(column.to_pylist() for column in events.columns), strict=True)
    return [{key: cell for key, cell in zip(keys, row, strict=True) if cell is not None} for row in rows]


def known(table: pa.Table | None, *names: str) -> list[tuple[Any, ...]]:
    """Return the rows of a table in an order of their own."""
    if table is None:
        return []
    return sorted(zip(*(table.column(name).to_pylist() for name in names), strict=True), key=repr)
