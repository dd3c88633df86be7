"""When a delivery is tried again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esim.errors import InvalidArgument
from esim.retry import CircuitBreaker, RetryPolicy


def test_waits_grow_by_the_coefficient_up_to_the_maximum():
    policy = RetryPolicy(initial_interval=1, backoff_coefficient=3, maximum_interval=20, jitter="none")
    assert [policy.wait(attempt, "") for attempt in (1, 2, 3, 4, 5)] == [1, 3, 9, 20, 20]
    steep = RetryPolicy(backoff_coefficient=1e300, maximum_interval=20, jitter="none")
    assert steep.wait(99, "") == 20


@given(st.integers(1, 10_000), st.text())
def test_full_jitter_lies_between_nothing_and_the_whole_wait_and_is_the_same_each_time(attempt, key):
    policy, whole = RetryPolicy(), RetryPolicy(jitter="none")
    assert 0 <= policy.wait(attempt, key) <= whole.wait(attempt, key)
    assert policy.wait(attempt, key) == policy.wait(attempt, key)


def test_full_jitter_spreads_different_events():
    waits = [RetryPolicy(initial_interval=10).wait(1, str(number)) for number in range(1_000)]
    assert 4.5 < sum(waits) / len(waits) < 5.5
    assert min(waits) < 0.1
    assert max(waits) > 9.9


def test_the_first_attempt_counts_among_the_attempts():
    policy = RetryPolicy(max_attempts=2)
    assert policy.retries(ValueError(), 1)
    assert not policy.retries(ValueError(), 2)


def test_a_non_retryable_error_and_its_subclasses_are_not_tried_again():
    policy = RetryPolicy(non_retryable=(LookupError,))
    assert not policy.retries(KeyError("x"), 1)
    assert policy.retries(ValueError("x"), 1)


def test_one_class_or_a_list_of_them_may_be_non_retryable():
    assert RetryPolicy(non_retryable=KeyError).non_retryable == (KeyError,)  # type: ignore[arg-type]
    assert RetryPolicy(non_retryable=[KeyError]).non_retryable == (KeyError,)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_attempts": 0},
        {"max_attempts": True},
        {"max_attempts": 2.5},
        {"initial_interval": -1},
        {"initial_interval": "1"},
        {"initial_interval": float("nan")},
        {"backoff_coefficient": 0.5},
        {"maximum_interval": float("inf")},
        {"jitter": "half"},
        {"non_retryable": ("ValueError",)},
        {"non_retryable": KeyboardInterrupt},
    ],
)
def test_a_policy_that_makes_no_sense_names_the_value(wrong):
    with pytest.raises(InvalidArgument, match=next(iter(wrong))):
        RetryPolicy(**wrong)


@pytest.mark.parametrize("wrong", [{"failures": 0}, {"failures": "3"}, {"cooldown": -1}])
def test_a_breaker_that_makes_no_sense_names_the_value(wrong):
    with pytest.raises(InvalidArgument, match=next(iter(wrong))):
        CircuitBreaker(**wrong)
