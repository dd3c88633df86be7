"""A consumer group: one handler, several shares of the streams, each delivered in a thread of its own."""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Self

from esim.arguments import whole
from esim.errors import InvalidArgument
from esim.handler import handler_of
from esim.keeper import progress_of
from esim.progress import Mark, Progress
from esim.subscription import Subscription, forget

if TYPE_CHECKING:
    import pandas as pd

    from esim.contract import Store


class ConsumerGroup:
    """Subscriptions that share the streams of a log: the events of a stream are handled by one, in order.

    They stand beside each other as `name-1-of-3` and so on, each with its checkpoint and dead letters. A
    group that is made with another number of members goes on where the former members stand.
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
        position, or have dead letters, and as `Subscription` does.
        """
        if whole(members, "members", "give 1 or more") < 1:
            raise InvalidArgument("members=0: give 1 or more")
        known = handler_of(handler)
        if known.row is not None:
            raise InvalidArgument(
                f"{known.name} writes rows, and each member would keep a table of its own: use a Subscription"
            )
        self.name = known.name if name is None else name
        former = self._former(store, members)
        self.members = tuple(
            Subscription(
                store, handler, f"{self.name}-{share + 1}-of-{members}", partition=(share, members), **options
            )
            for share in range(members)
        )
        if former:
            position = former[0].load().position
            for member in self.members:
                member._progress.commit(Mark(position=position, begun=position))
            self.members[0]._progress.inherit([one.name for one in former])
        for one in former:
            forget(store, one.name)

    def _former(self, store: Store, members: int) -> list[Progress]:
        """Return what is kept of the members where there were more of them, or less."""
        share = re.compile(re.escape(self.name) + r"-\d+-of-(\d+)")
        named = ((name, share.fullmatch(name)) for name in progress_of(store, "").names())
        found = [progress_of(store, name) for name, match in named if match and int(match[1]) != members]
        places = sorted({one.load().position for one in found})
        parked = sum(len(one.letters()) for one in found)
        if len(places) > 1 or parked:
            where = " and ".join(f"{place:,}" for place in (places[0], places[-1])[: len(places)])
            raise InvalidArgument(
                f"the group {self.name!r} has {len(found)} members, which stand at position {where} with "
                f"{parked} dead letters: catch up with members={len(found)}, and redrive, before there are "
                f"{members}"
            )
        return found

    def catch_up(self) -> Self:
        """Deliver up to the head, all members at once. Raises the first failure that stopped one."""
        with ThreadPoolExecutor(len(self.members)) as pool:
            for done in [pool.submit(member.catch_up) for member in self.members]:
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
