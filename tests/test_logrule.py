"""Conformance with transitions and rules, and the events that deviate."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esim.errors import InvalidArgument
from esim.logrule import Rule
from tests.test_eventlog import SHOP, logged, row


def rows(answer: Any, *names: str) -> list[list[Any]]:
    return [list(one) for one in answer.df[list(names)].itertuples(index=False, name=None)]


def test_transitions_that_are_not_declared_are_told_with_their_cases() -> None:
    """Each transition is counted, and those that deviate are found in their cases."""
    log = logged(SHOP)
    declared = [("Placed", "Paid"), ("Paid", "Shipped")]
    found = log.conformance(declared)
    assert rows(found, "source", "target", "declared", "count") == [
        ["Paid", "Shipped", True, 2],
        ["Placed", "Paid", True, 2],
        ["Paid", "Paid", False, 1],
        ["Placed", "Cancelled", False, 1],
    ]
    assert found.notes[-1] == "4 of 6 transitions are declared; 2 cases deviate"
    assert rows(log.deviations(declared), "case", "v", "deviation") == [
        ["b", 2, "Placed → Cancelled is not declared"],
        ["c", 3, "Paid → Paid is not declared"],
    ]


def test_an_activity_after_itself_is_a_transition_unless_it_is_to_be_left_out() -> None:
    """What is declared of other activities changes nothing; what is left out is counted."""
    log = logged([row("a", one, n, n) for n, one in enumerate(["Paid", "Paid", "Paid", "Shipped"])])
    for more, also in (([], 0), ([("Shipped", "Shipped")], 0), ([("Paid", "Paid")], 2)):
        declared = [("Paid", "Shipped"), *more]
        found = log.conformance(declared).notes[-1]
        assert found.startswith(f"{1 + also} of 3 transitions are declared")
        assert len(log.deviations(declared)) == 2 - also
        left = log.conformance(declared, repeats=False).notes[-1]
        assert left == (
            "1 of 1 transitions are declared; 0 cases deviate; 2 from an activity to itself are left out "
            "(repeats=False)"
        )
        assert len(log.deviations(declared, repeats=False)) == 0
    moves = [row("a", "Moved", 0, 0, x="new", y="new"), row("a", "Moved", 1, 1, x="new", y="old")]
    kept = logged(moves).conformance([("new", "old")], columns=("x", "y"), repeats=False)
    assert rows(kept, "source", "target", "declared") == [["new", "old", True]]


def test_beginnings_and_ends_count_where_they_are_declared() -> None:
    """None stands for begin and end."""
    log = logged(SHOP)
    declared = [(None, "Placed"), ("Shipped", None)]
    found = log.deviations(declared)
    assert ["b", 3, "Cancelled → (end) is not declared"] in rows(found, "case", "v", "deviation")
    assert not any("(begin)" in text for text in found.df["deviation"])


def test_transitions_may_be_in_columns() -> None:
    """With two expressions, each event that has both is a transition of its own."""
    moves = [row("a", "Moved", n, n, x=x, y=y) for n, (x, y) in enumerate([("new", "old"), ("old", None)])]
    found = logged(moves).conformance([("new", "old")], columns=("x", "y"))
    assert rows(found, "source", "target", "declared") == [["new", "old", True]]


RULES = [
    (Rule("Placed", then="Paid"), 3, 2, ["b"]),
    (Rule("Placed", then="Paid", within="2 minutes"), 3, 1, ["a", "b"]),
    (Rule("Shipped", before="Paid"), 2, 2, []),
    (Rule("Shipped", before="Paid", within=600), 2, 1, ["a"]),
    (Rule("Paid", never="Paid"), 3, 2, ["c"]),
    (Rule("Paid", given="Paid", then="Shipped"), 1, 1, []),
    (Rule("Paid", given=["Placed", "Paid"], never="Shipped"), 1, 0, ["c"]),
]


@pytest.mark.parametrize(("rule", "asked", "kept", "cases"), RULES, ids=[str(one[0]) for one in RULES])
def test_a_rule_is_kept_or_broken(rule: Rule, asked: int, kept: int, cases: list[str]) -> None:
    """It applies where it was given, and is judged at each event."""
    log = logged(SHOP)
    assert rows(log.conformance(rule), "rule", "asked", "kept", "cases") == [
        [str(rule), asked, kept, len(cases)]
    ]
    assert sorted(set(log.deviations([rule]).df["case"])) == cases


def test_what_may_still_happen_is_open() -> None:
    """Where the time of a rule is not over at the end of the log, it is neither kept nor broken."""
    log = logged(
        [row("a", "Placed", 0), row("b", "Placed", 50), row("b", "Paid", 55), row("c", "Placed", 60)]
    )
    names = ("asked", "kept", "broken", "open", "share")
    paid, unpaid = Rule("Placed", then="Paid", within="30 minutes"), Rule("Placed", never="Paid", within=1800)
    assert rows(log.conformance([paid, unpaid]), *names) == [[3, 1, 1, 1, 0.5], [3, 1, 1, 1, 0.5]]
    assert log.deviations(paid).df["case"].tolist() == ["a"]
    assert rows(log.conformance(Rule("Placed", then="Paid")), *names) == [[3, 1, 2, 0, 1 / 3]]
    early = log.between(end="2026-01-05T09:20:00Z")
    assert rows(early.where("true").conformance(Rule("Placed", then="Placed", within=1200)), *names) == [
        [1, 0, 1, 0, 0.0]
    ]
    assert rows(early.conformance(Rule("Placed", then="Placed", within=1201)), "open") == [[1]]
    one = log.with_value("case", "a")
    assert rows(one.conformance(Rule("Placed", then="Placed", within=1800)), "broken") == [[1]]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda log: log.conformance([]),
        lambda log: log.conformance("Placed"),
        lambda log: log.conformance([("a", "b", "c")]),
        lambda log: log.conformance([("a", "b"), Rule("Paid", then="Shipped")]),
        lambda log: log.conformance(Rule("Payed", then="Shipped")),
        lambda log: log.conformance([("a", "b")], columns=("who", "x; DROP")),
        lambda log: log.conformance([("a", "b")], columns=("who",)),
        lambda log: log.conformance([("a", "b")], columns="who"),
        lambda log: log.conformance([("a", "b")], columns=("who", 1)),
        lambda log: log.deviations([("a", "b")], columns=("who", "who", "who")),
        lambda _: Rule("Paid"),
        lambda _: Rule("Paid", then="a", never="b"),
        lambda _: Rule("Paid", then="a", within="soon"),
    ],
)
def test_what_declares_nothing_is_told(wrong: Any) -> None:
    """Neither pairs nor rules, a rule of no or two demands, an unknown activity: each is an error."""
    with pytest.raises(InvalidArgument):
        wrong(logged(SHOP))


@settings(max_examples=20)
@given(st.lists(st.sampled_from("xyz"), min_size=3, max_size=8).filter(lambda one: set(one) == set("xyz")))
def test_rules_say_what_a_plain_reading_says(story: list[str]) -> None:
    """Given, when, then over a case equals the same sentence in Python."""
    log = logged([row("a", one, at, at) for at, one in enumerate(story)])
    asked = [n for n, one in enumerate(story) if one == "y" and "x" in story[:n]]
    kept = [n for n in asked if "z" in story[n + 1 :]]
    assert rows(log.conformance(Rule("y", given="x", then="z")), "asked", "kept") == [[len(asked), len(kept)]]


def test_columns_that_are_not_there_are_told() -> None:
    """The expression is named, and what of it is unknown."""
    with pytest.raises(InvalidArgument, match=r"'nope' is no SQL expression of this log: .*nope.* not found"):
        logged(SHOP).conformance([("a", "b")], columns=("nope", "who"))


@pytest.mark.parametrize("within", [600, np.int64(600), np.float32(600), Decimal(600)], ids=repr)
def test_a_number_is_seconds_in_a_rule_too(within: Any) -> None:
    """Whatever made it, the rule says and means the same."""
    rule = Rule("Paid", then="Shipped", within=within)
    assert str(rule) == "when Paid, then Shipped within 600 s"
    assert rows(logged(SHOP).conformance(rule), "kept", "broken") == [[2, 1]]


@pytest.mark.parametrize("must", ["then", "never", "before"])
def test_an_activity_without_a_name_is_one(must: str) -> None:
    """A rule asks whether something was given, not whether it is empty."""
    log = logged([row("a", "", 0, 1), row("a", "Paid", 1, 2), row("a", "", 2, 3)])
    rule = Rule("Paid", **{must: ""})
    told = {"then": "then ''", "never": "then never ''", "before": "then '' came before"}[must]
    assert rows(log.conformance(rule), "rule", "kept") == [[f"when Paid, {told}", int(must != "never")]]


@pytest.mark.parametrize("wrong", [["a"], 1, None])
def test_an_activity_of_a_rule_is_a_text(wrong: Any) -> None:
    """Anything else is told when the rule is written."""
    for how in ({"when": wrong, "then": "b"}, {"when": "a", "then": "b", "given": [wrong]}):
        with pytest.raises(InvalidArgument, match="is no activity: give the name of one"):
            Rule(**how)
