"""What the fault tests of subscriptions share with the processes that they kill."""

from esim import Event, EventStore, Key, ManualClock, RetryPolicy, Row, Rows, Subscription

__all__ = ["Event", "EventStore", "Key", "ManualClock", "Paid", "RetryPolicy", "Row", "Rows"]
__all__ += ["Seen", "Spend", "Subscription", "spend"]


class Paid(Event):
    """A payment."""

    customer: str
    amount: int


class Spend(Row):
    """What a customer has spent."""

    customer: Key[str]
    total: int = 0
    events: int = 0


class Seen(Row):
    """How often a payment was handled."""

    amount: Key[int]
    times: int = 0


def spend(event: Paid, rows: Rows[Spend]) -> None:
    """Add a payment to its customer's row."""
    row = rows.get(event.customer) or Spend(customer=event.customer)
    rows.put(row.but(total=row.total + event.amount, events=row.events + 1))
