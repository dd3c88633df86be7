"""What a subscription is told, looked at as a whole before anything is delivered."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, get_args

from esim import display
from esim.arguments import whole
from esim.delivery import Checkpoint, Exhausted, Settings
from esim.effects import by_name
from esim.errors import InvalidArgument
from esim.handler import HandlerOf
from esim.query import Filter, Query
from esim.retry import CircuitBreaker, RetryPolicy

_BATCH = {"after_handler": 1, "before_handler": 1, "transactional": 10_000}


def settings_of(
    handler: HandlerOf,
    name: str,
    *,
    checkpoint: Checkpoint | None,
    category: str | None,
    tag: str | Iterable[str] | None,
    retry: RetryPolicy | None,
    on_exhausted: Exhausted,
    batch: int | None,
    inbox: bool,
    outbox: bool | None,
    sends: Iterable[Callable[..., Any]],
    breaker: CircuitBreaker | None,
    partition: tuple[int, int],
) -> Settings:
    """Return the settings of the subscription `name` of a handler, defaults filled in: see `Subscription`.

    Raises InvalidArgument for options that do not fit the handler, or each other.
    """
    retry = RetryPolicy() if retry is None else retry
    mode = checkpoint or ("transactional" if handler.row else "after_handler")
    _check_policies(retry, breaker, on_exhausted, partition)
    _check_mode(handler, mode)
    size = _BATCH[mode] if batch is None else whole(batch, "batch", "give 1 or more events")
    if not size or not name:
        raise InvalidArgument("batch=0: give 1 or more events" if name else "name='': give one")
    outboxed = (mode == "transactional" and handler.effects) if outbox is None else bool(outbox)
    if mode == "transactional" and handler.effects and not outboxed:
        raise InvalidArgument(
            f"{name} is transactional, and what it does outside cannot be taken back: leave outbox=False out"
        )
    return Settings(
        checkpoint=mode,
        wanted=Filter(category=category, query=_query(handler, tag)),
        retry=retry,
        on_exhausted=on_exhausted,
        batch=1 if retry.max_attempts == 1 else size,
        inbox=bool(inbox),
        outbox=outboxed,
        sends=by_name(sends),
        breaker=breaker,
        partition=partition,
    )


def _query(handler: HandlerOf, tag: str | Iterable[str] | None) -> Query:
    return Query.of(list(handler.types), tag) if handler.types or tag else Query()


def _check_policies(retry: object, breaker: object, on_exhausted: str, partition: tuple[int, int]) -> None:
    if on_exhausted not in get_args(Exhausted):
        known = display.did_you_mean(str(on_exhausted), list(get_args(Exhausted)))
        raise InvalidArgument(f"on_exhausted={on_exhausted!r} is nothing to do{known}")
    if not isinstance(retry, RetryPolicy):
        raise InvalidArgument(f"retry={retry!r}: give a RetryPolicy(…)")
    if not isinstance(breaker, CircuitBreaker | None):
        raise InvalidArgument(f"breaker={breaker!r}: give a CircuitBreaker(…)")
    match partition:
        case (int(share), int(among)) if 0 <= share < among:
            return
    raise InvalidArgument(f"partition={partition!r}: give (i, n), the i-th of n shares from 0 on")


def _check_mode(handler: HandlerOf, mode: str) -> None:
    if mode not in get_args(Checkpoint):
        known = display.did_you_mean(str(mode), list(get_args(Checkpoint)))
        raise InvalidArgument(f"checkpoint={mode!r} is no mode{known}")
    if handler.row is not None and mode != "transactional":
        raise InvalidArgument(
            f"{handler.name} writes rows, which are committed with the checkpoint: leave checkpoint out"
        )
    if handler.row is None and mode == "transactional":
        raise InvalidArgument(
            f"{handler.name} writes no rows that a checkpoint could be committed with: give it a parameter "
            "rows: Rows[…], or choose 'after_handler'"
        )
