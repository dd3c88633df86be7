"""Timelines as pictures."""

from __future__ import annotations

import re
from itertools import pairwise

from esim.display import FAILURE
from esim.envelope import RecordedEvent
from esim.event import Event
from esim.retry import RetryPolicy
from esim.simulation import Faults, World, consume, explore, follow, simulate, task
from esim.timeline import Step, picture, worth_telling


class Rung(Event):
    pass


def told(*steps: tuple[str, str, str]) -> list[Step]:
    return [Step(number, *one) for number, one in enumerate(steps, 1)]


def drawn(steps: list[Step], ending: str = "") -> str:
    return picture(steps, (), "a run", ending)


def starts(drawing: str) -> list[float]:
    return [float(x) for x in re.findall(r'<rect x="([0-9.]+)"', drawing)]


def test_no_label_reaches_into_the_next_lane():
    """A lane is as wide as the longest thing that is written in it; what is too long for any is cut."""
    steps = told(("narrow", "a", ""), ("wide", "b" * 24, ""), ("wider", "c" * 500, ""), ("last", "d", ""))
    drawing = drawn(steps)
    lanes = starts(drawing)
    widths = [right - left for left, right in pairwise(lanes)]
    assert widths[0] < widths[1] < widths[2] < 240
    assert "c" * 28 not in re.sub("<title>.*?</title>", "", drawing)


def test_the_line_of_a_lane_makes_room_for_what_is_written_over_it():
    """The words of a fault may reach over the next lanes, whose lines are broken there, and nowhere else."""
    short = [("one", "a", ""), ("two", "b", ""), ("three", "c", "")]
    crossed = drawn(told(*short, ("one", "before the handler, at 1", "crash"), *short))
    pieces = [path.count("V") for path in re.findall(r'<path d="(M[^"l]*V[^"]*)"', crossed)]
    assert pieces == [1, 2, 2]
    assert re.findall(r'<path d="(M[^"l]*V[^"]*)"', drawn(told(*short)))[1].count("V") == 1


def test_a_picture_is_as_wide_as_its_longest_line():
    """What is broken, a fault, and what is written in the last lane are told in full."""
    ending = "the turnover of last year stays what it was: it is 21, not 15"
    width = int(re.search(r'width="(\d+)"', drawn(told(("one", "a", "")), ending=ending))[1])
    assert width > 6.5 * len(ending)


def test_what_only_came_to_a_place_is_not_told():
    """Steps that changed nothing are left out, faults never."""
    steps = told(
        ("count", "is about to handle 1", ""),
        ("shelf", "mug: 9 → 8", ""),
        ("count", "has handled 1", ""),
        ("count", "has handled 1", "crash"),
    )
    assert [one.text for one in worth_telling(steps)] == ["mug: 9 → 8", "dies has handled 1"]


def test_going_first_is_no_failure():
    """Only what failed is red: another order is none."""
    assert FAILURE not in drawn(told(("bob", "goes first", "preempt"), ("bob", "takes 2", "reorder")))
    assert FAILURE in drawn(told(("news", "", "lost")))


def test_a_lost_message_is_told_once_and_a_death_says_before_what():
    """The timeline of a run does not claim that what was lost was sent, and names where a process died."""
    world = World()
    news, seen = world.queue("news"), world.table("seen")

    def note(body: str) -> None:
        seen[body] = True

    actors = [task(news.publish, "a", name="shop"), consume(news, note)]
    for fault, expected in (("lost", "is lost (a)"), ("crash", "dies before news")):
        found = explore(
            [], actors, lambda look: "a" in look.table("seen"), faults=Faults(**{fault: 1}), world=world
        ).counterexample
        assert found is not None
        assert [one.text for one in found.run.steps if one.lane != "note"] == [expected]


def test_keys_made_of_event_ids_are_cut_short():
    """A timeline shows the arguments of a call, but not the 36 letters of an id."""
    world = World()
    mail = world.service("mail")

    def send() -> None:
        mail("ann", key="00000000-0000-7000-8000-000000000001:1")

    found = explore([], [task(send)], lambda look: False, world=world).counterexample
    assert found is not None
    assert "mail('ann', key=…)" in [one.text for one in found.run.steps]


def test_what_a_handler_raises_and_what_becomes_of_its_event_is_told():
    """Each failed attempt in red with its cause, that it is given up, and what waits behind it."""
    world = World()
    table = world.table("table", {})

    def note(event: Rung, recorded: RecordedEvent[Rung]) -> None:
        table[recorded.position] = 1
        raise KeyError("boom")

    history = [("Bell/1", Rung()), ("Bell/1", Rung())]
    run = simulate(history, [follow(note, retry=RetryPolicy(max_attempts=2))], world=world)
    told = [(step.text, step.is_failure) for step in worth_telling(run.steps) if step.lane == "note"]
    assert told == [
        ("fails at 1 Rung: KeyError: 'boom'", True),
        ("will try 1 Rung again", False),
        ("fails at 1 Rung: KeyError: 'boom'", True),
        ("gives up 1 Rung", False),
        ("1 Rung is a dead letter now", False),
        ("committed 1 Rung", False),
        ("2 Rung is a dead letter now", False),
        ("committed 2 Rung", False),
    ]
    assert FAILURE in run.svg()
    assert "with no fault" in repr(run)


def test_what_consumers_tasks_and_services_raise_is_told_in_red():
    """With the message at hand."""
    world = World()
    queue = world.queue("queue")

    @world.service
    def pay() -> None:
        raise ValueError("declined")

    def take(_: str) -> None:
        pay()

    def fail() -> None:
        queue.publish("x")
        raise KeyError("boom")

    run = simulate([], [task(fail), consume(queue, take, attempts=1)], world=world)
    assert [(step.lane, step.text) for step in run.steps if step.is_failure] == [
        ("fail", "failed: KeyError: 'boom'"),
        ("pay", "fails: ValueError: declined"),
        ("take", "fails at x: ValueError: declined"),
    ]


def test_a_row_whose_key_reads_like_a_failure_is_none():
    """What is told in red is no question of how it reads."""
    world = World()
    table = world.table("table", {})

    def note(event: Rung) -> None:
        table["fails at once"] = True

    run = simulate([("Bell/1", Rung())], [note], world=world)
    assert not any(step.is_failure for step in run.steps)
