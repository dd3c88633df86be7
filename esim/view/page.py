"""A timeline without a kernel: static HTML for a notebook, and a page of its own that needs no network."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.resources import files
from typing import Any

from esim import display
from esim.view.steps import ABSENT, Field, Happened, Step, Table, Timeline

STATIC_STEPS = 30
_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:"


@cache
def asset(name: str) -> str:
    """Return the text of a file that lies beside this module."""
    return files("esim.view").joinpath(name).read_text(encoding="utf-8")


# --- static ------------------------------------------------------------------------------------------------


def static_html(timeline: Timeline) -> str:
    """Return a timeline as tables with inline styles only: the steps, then where it all stands now."""
    happened = [step for step in timeline.steps if step.event]
    shown = happened[-STATIC_STEPS:]
    rows = [_line(step, step.event, timeline.unit) for step in shown if step.event]
    header = (timeline.unit, "event", "data", "what changed")
    last = timeline.steps[-1]
    hidden = len(happened) - len(shown)
    notes = ([f"{hidden:,} earlier steps are not in this table"] if hidden else []) + list(timeline.notes)
    parts = [
        _titled(f"{timeline.title}, step by step", display.table(header, rows)),
        _state(last) if timeline.unit == "version" else "",
        *(_model(table, last.rows[index]) for index, table in enumerate(timeline.tables)),
        *(f'<div style="color:{display.MUTED}">{display.escape(note)}</div>' for note in notes),
    ]
    return f"<div>{''.join(parts)}</div>"


def _titled(title: str, table: str) -> str:
    return f'<div style="font-weight:600;margin-top:8px">{display.escape(title)}</div>{table}'


def _line(step: Step, event: Happened, unit: str) -> tuple[str, ...]:
    number = event.version if unit == "version" else event.position
    place = "" if unit == "version" else f"<br>{display.escape(f'{event.stream} version {event.version}')}"
    when = "".join(
        f"<br>{_soft(fact.text if fact.name == 'recorded' else f'{fact.name} {fact.text}')}"
        for fact in event.facts
    )
    changes = list(step.changes) or ["nothing" if step.state else "–"]
    if step.state and step.state.problem:
        changes = [f"✗ {step.state.problem}"]
    return f"{number:,}", display.badge(event.type) + place + when, _fields(event.data), _lines(changes)


def _soft(text: str) -> str:
    return f'<span style="color:{display.MUTED};white-space:nowrap">{display.escape(text)}</span>'


def _fields(fields: Iterable[Field]) -> str:
    return "<br>".join(f"{_soft(field.name)} {_lines(field.text.split(chr(10)))}" for field in fields)


def _lines(lines: Iterable[str]) -> str:
    return "<br>".join(map(display.escape, lines))


def _state(step: Step) -> str:
    if step.state is None or step.state.problem:
        return ""
    rows = [(_soft(field.name), _lines(field.text.split("\n"))) for field in step.state.fields]
    return _titled(f"the state at {step.label}", display.table((step.state.name, "value"), rows))


def _model(table: Table, lines: Iterable[int]) -> str:
    rows = [tuple(map(display.escape, table.pool[line])) for line in lines if line != ABSENT]
    note = f" ({table.note})" if table.note else ""
    return _titled(f"read model {table.name} at the last step{note}", display.table(table.columns, rows))


def plain_text(timeline: Timeline) -> str:
    """Return a timeline as text: a line for each of its last steps."""
    return "\n".join(
        [f"time machine: {timeline.title}", *_told(timeline.steps[-STATIC_STEPS:]), *timeline.notes]
    )


def _told(steps: Iterable[Step]) -> Iterator[str]:
    for step in steps:
        changes = f" ({'; '.join(step.changes)})" if step.changes else ""
        yield f"  {step.label}: {step.event.type if step.event else 'before'}{changes}".replace("\n", " / ")


# --- a page of its own -------------------------------------------------------------------------------------


def page(timeline: Timeline) -> str:
    """Return a whole HTML document with the live time machine in it; it asks nothing of the network."""
    title = f"{timeline.title} · time machine"
    return document(title, "time_machine", timeline.as_json(), static_html(timeline))


def document(title: str, name: str, data: dict[str, Any], fallback: str) -> str:
    """Return a whole HTML document that hands `data` to the `mount` of a module that lies beside this one.

    `name` is that of its script and style, `fallback` the HTML for where no script runs.
    """
    text = json.dumps(data).replace("<", "\\u003c").replace("&", "\\u0026")
    element = name.replace("_", "-")
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<link rel="icon" href="data:,">
<title>{display.escape(title)}</title>
<style>
body {{ margin: 24px auto; padding: 0 16px; max-width: 60rem; }}
{asset(f"{name}.css")}</style>
</head>
<body>
<main id="{element}"><noscript>{fallback}</noscript></main>
<script id="data" type="application/json">{text}</script>
<script type="module">
{asset(f"{name}.js")}
mount(document.getElementById("{element}"), JSON.parse(document.getElementById("data").textContent));
</script>
</body>
</html>
"""
