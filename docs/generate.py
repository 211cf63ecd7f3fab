"""Pages that are made from the code: ``python -m docs.generate [--check]``. The state machine, the keys, the settings,
the events, all public names."""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any, get_type_hints

from docs.api import api
from rf_jobs.model import events
from rf_jobs.store.keys import FINAL_CHANNEL, KEYS
from rf_jobs.words.config_keys import KEYS as SETTINGS
from rf_jobs.words.config_keys import Key
from rf_jobs.words.config_settings import Settings
from rf_jobs.words.config_values import expected_form
from rf_jobs.words.states import EDGES, FINAL, LEDGER_EVENTS, State, mermaid
from rf_jobs.words.timing import MAX_DURATION_SECONDS

FOLDER = Path(__file__).parent / "reference"
NOTICE = "<!-- Made by `python -m docs.generate`; change the code instead. -->\n"


def state_machine() -> str:
    """The diagram and the table of edges."""
    rows = "\n".join(
        f"| {edge.verb} | {edge.source or 'new'} | {edge.target or 'gone'} | `{edge.event}` | {edge.because} |"
        for edge in EDGES
    )
    return f"""{NOTICE}
# The state machine

Drawn from `rf_jobs/words/states.py`. A job is in exactly one of {len(State)} states; {", ".join(FINAL)} are final, though a
dead letter can be replayed. Every edge is one Lua script that moves the job and counts the event in the ledger;
what follows from it for other jobs (those that waited for it, those that a limit held back) happens in the same script.

```mermaid
{mermaid()}
```

| edge | from | to | ledger event | when |
|---|---|---|---|---|
{rows}

`evicted` stands in the ledger as `evicted_<state>`; a clear counts `cancelled` and `evicted_cancelled`. Events that no edge
has: {", ".join(f"`{event}`" for event in LEDGER_EVENTS if event not in {e.event for e in EDGES})}. It is a dispatch that found its job
there already, or another one in its place.

**Conservation**, for each queue and at every instant: `dispatched + replayed + restored` = the jobs that stand in
ready, scheduled, blocked, parked and running, plus all that ever became completed, dead, cancelled or expired. And for each
final state: all that became so = those still kept + those that left (evicted; of the dead also replayed and discarded, of the cancelled restored).
`rf_ledger_imbalance_jobs` is how many jobs these sums miss, each as an absolute number; `rf-jobs doctor --deep` checks it job
by job.
"""


def keys() -> str:
    """The table of keys."""
    rows = "\n".join(f"| `{key.name}` | {key.type} | {_cell(key.holds)} | {key.lives} |" for key in KEYS)
    return f"""{NOTICE}
# Keys

Drawn from `rf_jobs/store/keys.py`. All keys of a shard begin with `{{<namespace>}}:` (default `{{rf}}:`), of others than the first with `{{<namespace>/<n>}}:`: one hash tag, so
that every transition is one atomic script. Nothing else may write them; read as you like.

| key | type | holds | lives |
|---|---|---|---|
{rows}

Ends of watched jobs are published on the channel `{{<namespace>}}:{FINAL_CHANNEL}` as `<id> <state>`.
"""


def configuration() -> str:
    """Every setting."""
    parts = [
        NOTICE,
        "# Settings\n",
        "In `rf-jobs.toml`, in `config/default.toml`, or under `[tool.rf-jobs]` in `pyproject.toml`; overridden by variables,",
        "overridden by arguments. `rf-jobs config` shows what holds and why. Durations are seconds, up to a hundred years. A value",
        "that does not fit is an error that names the key, the value, where it came from, and what was expected.",
    ]
    hints = get_type_hints(Settings)
    for section, keys_ in groupby(SETTINGS.values(), key=lambda key: key.section):
        title = "jobs" if section == "jobs" else f"jobs.{section}"
        parts += [f"\n## `[{title}]`\n", f"{_cell(hints[section].__doc__ or '')}\n"]
        parts += ["| key | takes | default | variable | meaning |", "|---|---|---|---|---|"]
        parts += [
            f"| `{key.name}` | {_takes(key)} | {_shown(key.default)} | `{key.variable}` | {_cell(key.description)} |"
            for key in keys_
        ]
    return "\n".join(parts) + "\n"


def _takes(key: Key) -> str:
    return _cell(expected_form(key).replace(f" and at most {MAX_DURATION_SECONDS}", ""))


def _shown(value: Any) -> str:
    return "" if value is None or value in ((), "") else f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _cell(text: str) -> str:
    """Text for a cell of a table; docstrings' double backticks become single ones."""
    return text.replace("|", "\\|").replace("``", "`")


def event_catalogue() -> str:
    """Every event type with its fields."""
    rows = []
    for name, cls in sorted(vars(events).items(), key=lambda item: str(item[0])):
        if isinstance(cls, type) and issubclass(cls, events.Event) and not cls.__subclasses__():
            fields = ", ".join(f"`{field}`" for field in cls.__struct_fields__)
            first = (cls.__doc__ or "").strip().splitlines()[0]
            rows.append(f"| `{name}` | {first} | {fields} |")
    return f"""{NOTICE}
# Events

Drawn from `rf_jobs/model/events`. The core emits one typed event for each transition, after the store has accepted it.
`manager.bus.subscribe(JobCompleted, handler)` is how metrics, traces and logs hear of them, and how your code can.

| event | says | fields |
|---|---|---|
{chr(10).join(rows)}
"""


PAGES: dict[str, Callable[[], str]] = {
    "state-machine.md": state_machine,
    "keys.md": keys,
    "configuration.md": configuration,
    "events.md": event_catalogue,
    "api.md": lambda: NOTICE + api(),
}


def main() -> int:
    """Write the pages, or with ``--check`` say which differ."""
    stale = [
        name for name, make in PAGES.items() if not (FOLDER / name).exists() or (FOLDER / name).read_text() != make()
    ]
    if "--check" in sys.argv:
        for name in stale:
            print(f"docs/reference/{name} is not what the code says; run python -m docs.generate")  # noqa: T201 (a command)
        return 1 if stale else 0
    for name in stale:
        (FOLDER / name).write_text(PAGES[name]())
    return 0


if __name__ == "__main__":
    sys.exit(main())
