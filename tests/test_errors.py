"""Errors: one base, messages with value, cause and way out, whole in other processes, short in notebooks."""

from __future__ import annotations

import copy
import inspect
import pickle
from typing import Any

import pytest

from esim import errors
from esim.errors import ConditionFailed, Conflict, EsimError, InvalidArgument, Refused
from esim.event import Event
from esim.query import Query

ALL = [one for _, one in inspect.getmembers(errors, inspect.isclass) if one.__module__ == errors.__name__]


def test_all_errors_have_one_base():
    """Whoever catches EsimError catches everything that esim raises on purpose."""
    assert len(ALL) > 15
    assert all(issubclass(one, EsimError) for one in ALL)


@pytest.mark.parametrize(
    ("name", "builtin"),
    [
        ("InvalidEvent", ValueError),
        ("InvalidArgument", ValueError),
        ("UnknownEventType", LookupError),
        ("StreamNotFound", LookupError),
        ("NotCaughtUp", TimeoutError),
        ("SpecFailed", AssertionError),
        ("ConditionFailed", Conflict),
    ],
)
def test_errors_are_also_what_python_calls_them(name: str, builtin: type[Exception]):
    """Code that knows only Python's own errors catches them, too."""
    assert issubclass(getattr(errors, name), builtin)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            Conflict("Order/o-1", 3, 4),
            "'Order/o-1' is at version 4, not 3: someone appended since you loaded it; load again and decide",
        ),
        (Conflict("Order/o-1", 5, 4), "is at version 4, not 5: it is shorter"),
        (
            Conflict("Order/o-1", "no_stream", 4),
            "is at version 4, but 'no_stream' was expected (it must not exist yet)",
        ),
        (Conflict("Order/o-1", "stream_exists", 0), "(it must exist already)"),
        (
            ConditionFailed(Query.of("Paid", "order:o-1"), 3, 5),
            "position 5 matches Query(QueryItem(types=('Paid',), tags=('order:o-1',)))",
        ),
    ],
)
def test_a_conflict_tells_value_cause_and_way_out(error: Conflict, told: str):
    """Everything that one needs to know stands in the message."""
    assert told in str(error)
    assert "again" in str(error)


@pytest.mark.parametrize(
    "error",
    [
        Conflict("Order/o-1", 3, 4),
        Conflict("Order/o-1", "no_stream", 4),
        ConditionFailed(Query.of("Paid"), 3, 5),
        *[one("a message") for one in ALL if not issubclass(one, Conflict)],
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_are_whole_after_pickling_and_copying(error: Any):
    """Type, message and facts cross process borders."""
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):  # noqa: S301
        assert type(again) is type(error)
        assert str(again) == str(error)
        assert vars(again) == vars(error)


def shown(code: str) -> list[str]:
    """Run code as a cell and return what a notebook shows of its error."""
    with pytest.raises(EsimError) as caught:
        exec(compile(code, "<cell>", "exec"), {"Refused": Refused})
    return caught.value._render_traceback_()


def test_a_notebook_shows_the_message_and_not_the_libraries():
    """One line says what is wrong; no frame of a library is printed."""
    told = shown("raise Refused('the order is new')")
    assert told[0] == "Refused: the order is new"
    assert not any("site-packages" in line or "Traceback" in line for line in told)


def test_a_notebook_shows_the_cause():
    """An error that was caused by another says so, and notes are kept."""
    told = shown(
        "try:\n    1 / 0\nexcept ZeroDivisionError as error:\n"
        "    refused = Refused('no')\n    refused.add_note('a note')\n    raise refused from error\n"
    )
    assert "Refused: no" in told[0]
    assert any("a note" in line for line in told)
    assert any("ZeroDivisionError: division by zero" in line for line in told)


def test_what_a_class_definition_refuses_is_shown_at_the_users_line():
    """The machinery of classes between the user's line and the refusal is left out."""
    with pytest.raises(InvalidArgument) as caught:

        class Wrong(Event, schema_version=0):
            pass

    assert "class Wrong(Event, schema_version=0)" in caught.value._render_traceback_()[-1]
