"""Checks and exercises of the notebooks."""

from __future__ import annotations

import pytest

from esim.errors import Refused, SpecFailed
from esim.lesson import Exercise, check


def test_a_claim_that_holds_shows_a_tick():
    """A true claim is shown as text and as escaped HTML."""
    shown = check("<b> is small", holds=True)
    assert repr(shown) == "✓ <b> is small"
    assert "&lt;b&gt; is small" in shown._repr_html_()


def test_a_claim_that_does_not_hold_stops_the_notebook():
    """A false claim raises, naming itself."""
    with pytest.raises(SpecFailed, match="this does not hold: pigs fly"):
        check("pigs fly", holds=False)


def _exercise() -> Exercise:
    checks = [("it is even", lambda n: n % 2 == 0), ("it is large", lambda n: n > 10)]
    return Exercise("Give a large even number.", checks, ["more than ten", "twelve"], "12")


@pytest.mark.parametrize(
    ("answer", "told"),
    [(12, "✓ it is even; it is large"), (3, "✗ not yet: it is even"), (2, "✗ not yet: it is large")],
)
def test_an_answer_is_judged_by_the_first_sentence_that_fails(answer, told):
    """The learner hears what holds, or the first thing that does not."""
    assert repr(_exercise().check(answer)) == told


def test_an_answer_that_raises_is_told_and_not_thrown():
    """An exception in the answer becomes a sentence."""
    assert "your answer raised TypeError" in repr(_exercise().check(None))


def test_a_refusal_is_told_in_its_own_words():
    """A Refused in a check is quoted."""

    def refuse(_):
        raise Refused("the order is new, not pending")

    assert "the order is new, not pending" in repr(Exercise("?", [("it pays", refuse)]).check(0))


def test_hints_come_one_by_one_and_the_last_one_stays():
    """Each call gives one hint more, in order."""
    exercise = _exercise()
    assert [repr(exercise.hint()) for _ in range(3)] == [
        "hint 1 of 2: more than ten",
        "hint 2 of 2: twelve",
        "hint 2 of 2: twelve",
    ]


def test_the_solution_is_source_to_read():
    """The solution is shown as it was written."""
    assert repr(_exercise().solution()) == "12"


def test_without_hints_the_learner_is_sent_to_the_solution():
    """An exercise without hints says so."""
    assert "solution()" in repr(Exercise("?", []).hint())


def test_the_question_is_escaped_and_says_how_to_go_on():
    """An exercise shows its question and the three verbs."""
    html = Exercise("is 1 < 2?", [])._repr_html_()
    assert "is 1 &lt; 2?" in html
    assert ".hint()" in html
