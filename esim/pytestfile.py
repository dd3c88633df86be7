"""A counterexample as a test file, which imports its scenario."""

from __future__ import annotations

import inspect

from esim.errors import InvalidArgument
from esim.scenario import Scenario


def as_test(scenario: Scenario, token: str, invariant: str, module: str | None, name: str) -> str:
    """Return the source of a test. Raises InvalidArgument where the scenario cannot be imported."""
    found = module or _module_of(scenario, name)
    slug = "_".join("".join(c if c.isalnum() and c.isascii() else " " for c in invariant).split()).lower()
    told = " ".join(invariant.replace('"', "'").replace("\\", "/").split())
    return (
        f'"""A schedule that once broke "{told}", found by esim."""\n\n'
        f"from {found} import {name}\n\n"
        "from esim.errors import TokenMismatch\n"
        "from esim.simulation import explore, replay\n\n\n"
        f"def test_{slug or 'schedule'}_whatever_goes_wrong():\n"
        f'    """Neither this schedule nor another within its bounds breaks it any more."""\n'
        "    try:\n"
        f'        replay("{token}", {name}).must_hold()\n'
        "    except TokenMismatch:\n"
        "        pass  # the code has other places to fail at by now; all of them are tried here\n"
        f"    verdict = explore({name}, confirm=None)\n"
        "    assert verdict.holds, verdict\n"
    )


def _module_of(scenario: Scenario, name: str) -> str:
    import sys

    for module, loaded in list(sys.modules.items()):
        if getattr(loaded, name, None) is scenario and module != "__main__" and inspect.ismodule(loaded):
            return str(module)
    raise InvalidArgument(
        f"a test needs to import the scenario: put it into a module, as `{name} = Scenario(…)`, and give "
        "to_pytest(path, module='shop_scenarios')"
    )
