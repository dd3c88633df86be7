"""The zoo: classic bugs of event-driven programs, each with the schedule that shows it, and with its cure.

    ZOO["counted twice"].find()      # the naive code: a counterexample, as a picture
    ZOO["counted twice"].prove()     # the mended code: no schedule within the same bounds breaks it
    print(ZOO["counted twice"].code) # both, side by side

What is said of a fault in the catalogue is thereby shown: there is a bug for each of its rows.
"""

from __future__ import annotations

from esim import display, zoo_concurrency, zoo_delivery, zoo_handmade, zoo_order, zoo_rebuild, zoo_sagas
from esim.bug import Bug, Gallery

CATALOGUE = (
    "crash before handling",
    "crash after effect before checkpoint",
    "crash after checkpoint before handling",
    "crash between two writes",
    "crash between store and publish",
    "crash in the relay",
    "commit outcome unknown",
    "transient exception n times",
    "poison",
    "later event applied past a dead one",
    "timeout with a late finisher",
    "downstream down for long",
    "duplicate",
    "reordering across streams",
    "reordering within a stream",
    "lost message",
    "concurrent writers",
    "two consumers of one subscription",
    "saga step failing halfway",
    "clock skew",
    "crash in a rebuild",
    "handler changed mid-replay",
    "upcaster bug",
    "replay with side effects",
    "crash while dead-lettering",
    "crash while redriving",
    "plain emitter",
    "number before commit",
    "timestamps for order",
    "no expected version",
)
"""What can go wrong: faults, and the flaws of designs made by hand."""

ZOO: dict[str, Bug] = {
    found.name: found
    for module in (zoo_delivery, zoo_order, zoo_concurrency, zoo_sagas, zoo_rebuild, zoo_handmade)
    for found in vars(module).values()
    if isinstance(found, Bug)
}
"""Every bug by its name."""

GROUPS = tuple(dict.fromkeys(one.group for one in ZOO.values()))
"""The kinds of bugs, in the order of a reader's way through the zoo."""


def group(name: str, *without: str) -> Gallery:
    """Return the bugs of one group side by side, but for some; see `Gallery`."""
    return Gallery(one for one in ZOO.values() if one.group == name and one.name not in without)


class Catalogue:
    """What can go wrong, and the bugs that stand for it: a row for each fault."""

    rows: tuple[tuple[str, str], ...] = tuple(
        (row, ", ".join(one.name for one in ZOO.values() if row in one.rows)) for row in CATALOGUE
    )

    def __repr__(self) -> str:
        return "\n".join(f"{fault}: {bugs}" for fault, bugs in self.rows)

    def _repr_html_(self) -> str:
        return display.table(("fault", "bugs"), [tuple(map(display.escape, row)) for row in self.rows])


def catalogue() -> Catalogue:
    """Return a table of all faults, and of the bugs that stand for each."""
    return Catalogue()
