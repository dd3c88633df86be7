"""What may go wrong: budgets, probabilities, and how they are told."""

from __future__ import annotations

import pytest

from esim.errors import InvalidArgument
from esim.faults import MEANINGS, Crash, Faults, OutcomeUnknown, Unavailable


def test_every_kind_of_fault_has_a_meaning_and_a_field():
    """The list of kinds is that of the fields."""
    assert Faults.all_names() == list(MEANINGS) == list(vars(Faults()))


def test_no_fault_is_the_default_and_says_so():
    """Nothing goes wrong unless it is asked for."""
    assert set(Faults().budgets().values()) == {0}
    assert Faults().told() == "no fault"
    assert repr(Faults()) == "Faults()"


def test_budgets_are_told_in_words():
    """One of a kind, several, and more kinds."""
    assert Faults(crash=1).told() == "at most 1 crash"
    assert Faults(crash=2, duplicate=1).told() == "at most 2 crashes and 1 duplicate"
    assert Faults(crash=1, preempt=3, delay=2).told() == "at most 1 crash, 3 preemptions and 2 delays"
    assert repr(Faults(crash=2)) == "Faults(crash=2)"


def test_probabilities_are_told_as_such():
    """At most is no word for chance."""
    assert "20%" in Faults(crash=0.2).told()


@pytest.mark.parametrize("value", [-1, 1.5, -0.1, True, "1", None, float("nan")])
def test_what_is_neither_a_number_nor_a_probability_is_told(value):
    """The name, the value, and what to give."""
    with pytest.raises(InvalidArgument, match=r"crash=.*give a whole number"):
        Faults(crash=value)


def test_a_probability_is_no_budget():
    """A search needs to know how many; the fault is named."""
    with pytest.raises(InvalidArgument, match=r"late=0\.5 is a probability"):
        Faults(crash=1, late=0.5).budgets()
    assert Faults(crash=1, late=0).budgets()["late"] == 0


def test_a_crash_passes_every_handler_of_exceptions_and_failures_do_not():
    """A process dies whatever it catches; what fails is an error as others are."""
    assert not issubclass(Crash, Exception)
    assert issubclass(Unavailable, ConnectionError)
    assert issubclass(OutcomeUnknown, TimeoutError)
