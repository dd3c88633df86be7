"""One run in full: what happened step by step, what could have been chosen, and the world at each step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Self

from esim import display
from esim.arguments import whole
from esim.errors import InvalidArgument, SimulationFailed, TokenMismatch
from esim.faults import FAILED, Faults
from esim.invariant import PLAINLY, Invariant, Look
from esim.progress import Letter, frame
from esim.scenario import DIGITS, SIDES, Scenario
from esim.stage import Moment, Stage
from esim.svg import img
from esim.timeline import Step, picture, worth_telling

if TYPE_CHECKING:
    import pandas as pd

Pick = Callable[[Stage, Sequence[str], str, str], int]
_VERSION = "e2"
ENDLESS = "it comes to an end"
"""The invariant that holds by itself: no run goes round in circles, and no process waits for ever."""


class Choice(NamedTuple):
    """A place where something else could have been chosen."""

    number: int
    step: int
    lane: str
    told: str
    process: str
    position: int
    place: str
    options: tuple[str, ...]
    taken: str


def token_of(fingerprint: str, choices: Mapping[int, int]) -> str:
    """Return the short text that stands for a schedule of a scenario: the choices that are not 0."""
    told = "-".join(f"{at}.{index}" for at, index in sorted(choices.items()))
    return f"{_VERSION}:{fingerprint}:{told or '0'}"


def token_read(token: str) -> tuple[str, dict[int, int]]:
    """Return the fingerprint and the choices of a token. Raises TokenMismatch if it is none, or too old."""
    version, _, rest = str(token).partition(":")
    fingerprint, colon, told = rest.partition(":")
    if version != _VERSION and version[:1] == "e" and version[1:].isdigit():
        raise TokenMismatch(f"the token {token!r} is of version {version}, and this esim reads {_VERSION}")
    choices: dict[int, int] = {}
    try:
        pairs = [one.split(".") for one in told.split("-")] if told != "0" else []
        choices = {int(at): int(index) for at, index in pairs}
    except ValueError:
        colon = ""
    if version != _VERSION or not colon or len(fingerprint) != len(SIDES) * DIGITS:
        raise TokenMismatch(f"{token!r} is no token: it looks like '{_VERSION}:69da17c2b03f5e8810aa:4.1-9.2'")
    return fingerprint, choices


def _where(stage: Stage, lane: str) -> tuple[str, int, str]:
    """Return the process at hand, the position of its event, and the place that it has come to."""
    process = stage.at
    return (process.name, process.position, process.place(lane)) if process else ("", 0, "")


class Recording:
    """A driver that keeps all that happens in one run."""

    records = watches = True

    def __init__(self, stage: Stage, invariants: Mapping[str, Invariant], pick: Pick) -> None:
        """Record a run of `stage` whose choices `pick` makes."""
        self._stage, self._invariants, self._pick = stage, invariants, pick
        self._steps: list[Step] = []
        self._moments: list[Moment] = []
        self._asked: list[Choice] = []
        self._choices: dict[int, int] = {}
        self._checks = False
        self._checked: set[tuple[str, Hashable]] = set()
        self._path: set[Hashable] = set()
        self._broken: tuple[str, str] | None = None
        self.seen: set[str] = set()
        """The invariants that had something to look at; of the `sometimes`, those that came true."""
        self._wanted: set[int] = set()

    @classmethod
    def of(
        cls, stage: Stage, invariants: Mapping[str, Invariant], choices: Mapping[int, int], *, strict: bool
    ) -> Self:
        """Record the run of given choices. With `strict` each must fit its place (TokenMismatch)."""

        def pick(stage: Stage, options: Sequence[str], lane: str, told: str) -> int:
            index = choices.get(stage.choices, 0)
            if index < len(options):
                return index
            if strict:
                raise TokenMismatch(
                    f"choice {stage.choices} takes option {index}, and {lane} has {len(options)} ({told}): "
                    "the code has other places to fail at than when the token was made"
                )
            return 0

        made = cls(stage, invariants, pick)
        made._wanted = set(choices) if strict else set()
        return made

    @classmethod
    def where(cls, stage: Stage, invariants: Mapping[str, Invariant], taken: Iterable[Choice]) -> Self:
        """Record the run in which what was taken elsewhere is taken at the same places, in the same order."""
        waiting = list(taken)

        def pick(stage: Stage, options: Sequence[str], lane: str, told: str) -> int:  # noqa: ARG001
            if waiting and (waiting[0].lane, waiting[0][4:7]) == (lane, _where(stage, lane)):
                one = waiting[0].taken
                if one in options:
                    waiting.pop(0)
                    return options.index(one)
            return 0

        return cls(stage, invariants, pick)

    @property
    def states(self) -> set[Hashable]:
        """The states at which the invariants were looked at."""
        return {key[1] for key in self._checked}

    def run(self, first: Moment | None, *, checks: bool) -> Run:
        """Run from the first moment; with `checks`, up to where an invariant is broken."""
        self._checks = checks
        begun = self._stage.choices if first is None else first.choices  # what was chosen before is done
        self._wanted = {at for at in self._wanted if at >= begun}
        ended = self._stage.play(self, first)
        if ended:
            self._look_back("eventually")
        elif self._broken is None and (why := self._stage.endless()):
            self._broken = ENDLESS, why
        self._remember()
        self._must_be_reached()
        run = Run(self._stage, self._steps, self._moments, self._asked, self._choices, self._broken)
        run.last = self._stage.moment()
        return run

    def _must_be_reached(self) -> None:
        """Raise TokenMismatch if a choice that was to be made has no place in the run."""
        missed = sorted(self._wanted - set(self._choices))
        if missed:
            raise TokenMismatch(
                f"choice {missed[0]} is never reached: the code has other places to fail at than when the "
                "token was made"
            )

    # --- what the stage asks -------------------------------------------------------------------------------

    def pick(self, stage: Stage, options: Sequence[str], lane: str, told: str) -> int:
        """Ask for the choice, and remember it."""
        index = self._pick(stage, options, lane, told)
        if index:
            self._choices[stage.choices] = index
        place, where = told or " or ".join(options), _where(stage, lane)
        asked = Choice(stage.choices, len(self._steps), lane, place, *where, tuple(options), options[index])
        self._asked.append(asked)
        return index

    def rest(self, stage: Stage) -> bool:
        """Go on, unless it goes round in circles, or something is broken."""
        key = stage.rest_key() if stage.kept else len(self._steps)
        if key in self._path and stage.kept:
            self._broken = self._broken or (ENDLESS, "the same state comes again and again")
            return False
        self._path.add(key)
        self._look_back("always")
        return not (self._checks and self._broken)

    def step(self, stage: Stage) -> bool:  # noqa: ARG002 - a driver's way
        """Check what must always hold, and go no further than to where it does not."""
        self._look_back("always")
        self._remember()
        return not (self._checks and self._broken)

    def note(self, stage: Stage, lane: str, told: str, fault: str) -> None:  # noqa: ARG002 - a driver's way
        """Keep what happened."""
        if self._checks and self._broken:
            return
        self._remember()
        failed = fault == FAILED
        self._steps.append(Step(len(self._steps) + 1, lane, told, "" if failed else fault, failed=failed))

    def _remember(self) -> None:
        """Take a picture for each step since the last one."""
        if len(self._moments) < len(self._steps):
            moment = self._stage.moment()
            self._moments += [moment] * (len(self._steps) - len(self._moments))

    def _look_back(self, when: str) -> None:
        key = when, self._stage.key() if self._stage.kept else len(self._steps)
        if self._broken or key in self._checked:
            return
        self._checked.add(key)
        for name, invariant in self._invariants.items():
            if name not in self.seen and invariant.had_any(self._stage.look):
                self.seen.add(name)
            if invariant.when == when:
                why = invariant.broken(self._stage.look)
                if why is not None:
                    self._broken = name, why
                    return


class Run:
    """A run that was recorded: a timeline to look at, and the world at each of its steps."""

    seed: int | None = None
    last: Moment | None = None
    """The moment at which it ended."""

    def __init__(  # noqa: PLR0917 - made in one place
        self,
        stage: Stage,
        steps: list[Step],
        moments: list[Moment],
        asked: list[Choice],
        choices: dict[int, int],
        broken: tuple[str, str] | None,
    ) -> None:
        """Keep what a recording has found."""
        self.stage, self.choices, self.asked, self.broken = stage, choices, asked, broken
        self._steps, self._moments = steps, moments

    @property
    def scenario(self) -> Scenario:
        """What it was a run of."""
        return self.stage.scenario

    @property
    def token(self) -> str:
        """What `replay` runs again."""
        return token_of(self.stage.fingerprint, self.choices)

    @property
    def look(self) -> Look:
        """The world as the run left it."""
        if self.last is None or not self.stage.kept:
            return self.stage.look
        self.stage.back_to(self.last._replace(died=None))
        return self.stage.look

    def at(self, step: int) -> Look:
        """Return the world as it was after a step, counted from 1; 0 is before the first.

        Look at one step at a time: the next call of `at` moves the world on, or back.
        Raises InvalidArgument for a step that there is not.
        """
        if whole(step, "step", f"give 0 to {len(self._steps)}") > len(self._steps):
            raise InvalidArgument(f"there is no step {step}: give 0 to {len(self._steps)}")
        if not self.stage.kept:
            raise InvalidArgument("a run on a DuckDB store cannot go back; replay its token in memory")
        if self._moments:
            if step:
                self.stage.back_to(self._moments[step - 1]._replace(died=None))
            else:
                self.stage.back_to(self.stage.first)
        return self.stage.look

    @property
    def steps(self) -> list[Step]:
        """Every step: its number, lane, what happened, and the kind of fault if it is one."""
        return list(self._steps)

    def df(self) -> pd.DataFrame:
        """Return the steps as a dataframe: step, lane, what, fault."""
        import pandas as pd

        rows = [(one.number, one.lane, one.text, one.fault) for one in self._steps]
        return pd.DataFrame(rows, columns=["step", "lane", "what", "fault"])

    def tables(self) -> dict[str, pd.DataFrame]:
        """Return the tables of the world, and the rows of subscriptions, in the end: by name, as dataframes.

        Those of the world have the columns key and value.
        """
        look = self.look
        writing = [name for name, one in self.stage.subscriptions.items() if one.handler.row is not None]
        return {name: look.df(name) for name in [*look.tables, *writing]}

    def effects(self) -> pd.DataFrame:
        """Return the calls of services in the end: service, arguments (as text)."""
        import pandas as pd

        rows = [(call.service, display.arguments(call.arguments)) for call in self.look.calls()]
        return pd.DataFrame(rows, columns=["service", "arguments"])

    def dead_letters(self) -> pd.DataFrame:
        """Return the dead letters of all subscriptions in the end; columns as those of a subscription."""
        return frame(self.look.dead_letters(), Letter).drop(columns="part")

    def must_hold(self) -> Self:
        """Return the run if it has broken nothing. Raises SimulationFailed, and says what is broken."""
        if self.broken is not None:
            raise SimulationFailed(f"{self.broken[0]}: {self.broken[1]}; the schedule is {self.token}")
        return self

    def svg(self) -> str:
        """Return the timeline as SVG."""
        first = [one.name for one in self.stage.players]
        broken = () if self.broken is None else ("broken", *self.broken)
        ending = ": ".join(broken).removesuffix(f": {PLAINLY}")
        return picture(worth_telling(self._steps), [*first, "log"], self._title(), ending)

    def _title(self) -> str:
        counts = Counter(one.fault for one in self._steps if one.fault)
        return f"A run with {Faults(**counts).told().removeprefix('at most ')}"

    def _ending(self) -> str:
        return f"{self.broken[0]!r} is broken: {self.broken[1]}" if self.broken else "nothing is broken"

    def __repr__(self) -> str:
        faults = sum(bool(one.fault) for one in self._steps)
        told = "no fault" if not faults else f"{faults} fault{'' if faults == 1 else 's'}"
        seed = "" if self.seed is None else f", seed {self.seed}"
        return f"<Run of {len(self._steps)} steps with {told}{seed}: {self._ending()}>"

    def image(self) -> str:
        """Return the timeline as an HTML image, with its steps as the text in place of it."""
        alt = "; ".join(f"{one.lane} {one.text}" for one in worth_telling(self._steps)[:60])
        return img(self.svg(), f"{self._title()}: {alt}")

    def _repr_html_(self) -> str:
        return f"<div>{display.escape(repr(self).strip('<>'))}</div>{self.image()}"
