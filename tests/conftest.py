"""What every test shares: event names of its own module, repeatable input, and marks that may be required.

One process has one registry of event types, in which the latest class of a name wins. So that two test
modules may both say `Paid`, each test begins with its module's classes, and those of the test modules that it
has something from, and leaves the registry as it was.

`ESIM_REQUIRE=browser,acceptance` turns the skips of tests so marked into failures, so that a machine which is
meant to run them cannot pass by missing what they need.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Generator
from typing import Any

import pytest

from esim import event, upcast

REQUIRED = {word for word in os.environ.get("ESIM_REQUIRE", "").split(",") if word}

collect_ignore = ["benchmarks", "typing"]  # run by hand, and for type checkers


def pytest_configure() -> None:
    """Make generated input the same in every run, and judge no example by its time.

    Ctrl-C is heard where a shell has started the tests in the background, too, and so would have it ignored.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        from hypothesis import settings
    except ImportError:  # the tests that need it say so themselves
        return
    settings.register_profile("esim", derandomize=True, database=None, deadline=None)
    settings.load_profile("esim")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    """Let a test see the event classes of its module, and none that an earlier test defined."""
    registries: tuple[dict[Any, Any], ...] = (
        event._by_type,
        event._by_name,
        event._by_former,
        upcast._retired,
    )
    before = [dict(registry) for registry in registries]
    module = getattr(item, "module", None) or event
    named = [
        (getattr(one, "__module__", None), getattr(one, "__name__", None)) for one in vars(module).values()
    ]
    shared = {str(name) for pair in named for name in pair}
    helpers = [
        sys.modules[name] for name in sorted(shared) if name.startswith("tests.") and name in sys.modules
    ]
    for cls in [one for each in (*helpers, module) for one in vars(each).values()]:
        if isinstance(cls, type) and issubclass(cls, event.Event) and cls is not event.Event:
            event._by_type[cls.event_type] = cls
            event._rename(cls.event_type, cls._was)
    event.note_definition()
    try:
        return (yield)
    finally:
        for registry, content in zip(registries, before, strict=True):
            registry.clear()
            registry.update(content)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """Fail a skipped test whose mark is required."""
    report = yield
    if (
        report.skipped
        and not hasattr(report, "wasxfail")
        and REQUIRED & {mark.name for mark in item.iter_markers()}
    ):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome, report.longrepr = "failed", f"ESIM_REQUIRE asks for this test, yet: {reason}"
    return report
