"""A consumer group: one handler, several shares of the streams, each delivered in a thread of its own."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any, Self

from esim.arguments import whole
from esim.bar import Bar
from esim.errors import InvalidArgument
from esim.handler import handler_of
from esim.intake import share_of
from esim.keeper import progress_of
from esim.progress import Mark, Progress
from esim.query import Filter
from esim.subscription import Subscription, forget

if TYPE_CHECKING:
    import pandas as pd

    from esim.contract import Store


class ConsumerGroup:
    """Subscriptions that share the streams of a log: the events of a stream are handled by one, in order.

    They stand beside each other as `name-1-of-3` and so on, each with its checkpoint and dead letters. A
    group that is made with another number of members goes on where the former members stand: each member has
    the ledger and the inbox of its streams, and what was gated is.
    """

    def __init__(
        self,
        store: Store,
        handler: Callable[..., Any],
        members: int,
        name: str | None = None,
        **options: Any,
    ) -> None:
        """Share the streams among so many members; `options` are those of `Subscription`.

        Raises InvalidArgument for less than one member, a handler that writes rows (each member would have a
        table of its own), where the group had another number of members that do not stand at the same
        position, are replayed up to different ones, or have dead letters, and as `Subscription` does.
        """
        if whole(members, "members", "give 1 or more") < 1:
            raise InvalidArgument("members=0: give 1 or more")
        known = handler_of(handler)
        if known.row is not None:
            raise InvalidArgument(
                f"{known.name} writes rows, and each member would keep a table of its own: use a Subscription"
            )
        self.name = known.name if name is None else name
        others = self._others(store, members)
        begun = [each for each in others if any(one.load() != Mark() for one in each)]
        former = [one for each in begun for one in each]
        mark = _common(self.name, former, members)
        self.members = tuple(
            Subscription(
                store, handler, f"{self.name}-{share + 1}-of-{members}", partition=(share, members), **options
            )
            for share in range(members)
        )
        if mark is not None:
            self._take_over(store, former, mark)
        for one in (one for each in others for one in each):
            forget(store, one.name)

    def _others(self, store: Store, members: int) -> list[list[Progress]]:
        """Return what is kept of the members where there were more of them, or less, by their number."""
        share = re.compile(re.escape(self.name) + r"-\d+-of-(\d+)")
        found: dict[int, list[Progress]] = {}
        for name in progress_of(store, "").names():
            match = share.fullmatch(name)
            if match and int(match[1]) != members:
                found.setdefault(int(match[1]), []).append(progress_of(store, name))
        return list(found.values())

    def _take_over(self, store: Store, former: Sequence[Progress], mark: Mark) -> None:
        """Stand where the former members stand, each with what they have kept of its streams."""
        names = [one.name for one in former]
        last = max(one.farthest(table) for one in former for table in ("effects", "inbox"))
        shares: list[list[int]] = [[] for _ in self.members]
        with Bar(0, last, self.name) as bar:
            for rows in store._scan(Filter(until=last)) if last else ():
                for row in rows:
                    shares[share_of(row[1], len(shares))].append(row[0])
                bar.at(rows[-1][0])
        for member, positions in zip(self.members, shares, strict=True):
            member._progress.inherit(names, positions)
            member._progress.commit(mark)

    def catch_up(self) -> Self:
        """Deliver up to the head, all members at once. Raises the first failure that stopped one.

        Ctrl-C ends each member after the event at hand, and keeps what was handled.
        """
        lock, under_way, halted = threading.Condition(), set[Subscription](), threading.Event()

        def deliver(member: Subscription) -> None:
            with lock:
                if halted.is_set():
                    return
                under_way.add(member)
            try:
                member.catch_up()
            finally:
                with lock:
                    under_way.discard(member)
                    member._halting.clear()
                    lock.notify_all()

        pool = ThreadPoolExecutor(len(self.members))
        try:
            running = [pool.submit(deliver, member) for member in self.members]
            wait(running)
        except KeyboardInterrupt:
            with lock:
                halted.set()
                for member in under_way:
                    member._halting.set()
                lock.wait_for(lambda: not under_way)  # the pool knows no thread whose start was interrupted
            raise
        finally:
            pool.shutdown()
        for done in running:
            done.result()
        return self

    def start(self) -> Self:
        """Follow the log, each member in a thread of its own."""
        for member in self.members:
            member.start()
        return self

    def stop(self) -> Self:
        """End the threads after the events at hand."""
        for member in self.members:
            member.stop()
        return self

    def redrive(self) -> pd.DataFrame:
        """Redrive the dead letters of all members; see `DeadLetters.redrive`."""
        import pandas as pd

        return pd.concat([member.dead_letters.redrive() for member in self.members], ignore_index=True)

    @property
    def position(self) -> int:
        """The position up to which every member has delivered."""
        return min(member.position for member in self.members)

    def __repr__(self) -> str:
        return f"<ConsumerGroup {self.name!r} of {len(self.members)} at position {self.position:,}>"


def _common(name: str, former: Sequence[Progress], members: int) -> Mark | None:
    """Return where all the former members stand; None if there were none.

    Raises InvalidArgument where they stand apart, or have dead letters.
    """
    marks = [one.load() for one in former]
    places = sorted({mark.position for mark in marks})
    gates = sorted({max(mark.gate, mark.position) for mark in marks})
    parked = sum(len(one.letters()) for one in former)
    if len(places) > 1 or len(gates) > 1 or parked:
        gated = f" (replayed up to position {_between(gates)})" if gates != places else ""
        raise InvalidArgument(
            f"the group {name!r} has {len(former)} members, which stand at position {_between(places)}{gated}"
            f" with {parked} dead letters: catch up with members={len(former)}, and redrive, before there "
            f"are {members}"
        )
    paused = any(mark.paused for mark in marks)
    return Mark(position=places[0], begun=places[0], gate=gates[0], paused=paused) if marks else None


def _between(positions: Sequence[int]) -> str:
    return " and ".join(f"{each:,}" for each in dict.fromkeys((positions[0], positions[-1])))
