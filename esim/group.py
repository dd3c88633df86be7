"""A consumer group: one handler, several shares of the streams, each delivered in a thread of its own."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Self

from esim.arguments import whole
from esim.errors import InvalidArgument
from esim.handler import handler_of
from esim.subscription import Subscription

if TYPE_CHECKING:
    import pandas as pd

    from esim.contract import Store


class ConsumerGroup:
    """Subscriptions that share the streams of a log: the events of a stream are handled by one, in order.

    They stand beside each other as `name-1-of-3` and so on, each with its checkpoint and dead letters.
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
        table of its own), and as `Subscription` does.
        """
        if whole(members, "members", "give 1 or more") < 1:
            raise InvalidArgument("members=0: give 1 or more")
        known = handler_of(handler)
        if known.row is not None:
            raise InvalidArgument(
                f"{known.name} writes rows, and each member would keep a table of its own: use a Subscription"
            )
        self.name = known.name if name is None else name
        self.members = tuple(
            Subscription(
                store, handler, f"{self.name}-{share + 1}-of-{members}", partition=(share, members), **options
            )
            for share in range(members)
        )

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
