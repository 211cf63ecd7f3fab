"""From samples to medians, ratios, verdicts, and the files of ``results/``."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.measure import Numbers
from benchmarks.peers import OURS

MISSING = "-"
MAIN = f"{OURS} metrics"
"""The variant that the goals speak of: leases, ledger and metrics on."""


@dataclass
class Results:
    """Everything that was found, as it goes into the JSON."""

    machine: dict[str, object]
    sizes: dict[str, float]
    repeat: int
    absent: dict[str, str]
    versions: dict[str, dict[str, str]] = field(default_factory=dict)
    samples: dict[str, dict[str, list[Numbers]]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def median(self, peer: str, measure: str, name: str) -> float | None:
        """Of all runs of one number; ``None`` where it was not measured."""
        values = [run[name] for run in self.samples.get(measure, {}).get(peer, []) if name in run]
        return statistics.median(values) if values else None

    def peers(self) -> list[str]:
        """Measured ones, in the order of the table."""
        return [name for name in self.versions if any(name in by_peer for by_peer in self.samples.values())]


@dataclass(frozen=True)
class Column:
    """One number of the tables."""

    title: str
    measure: str
    name: str
    digits: int = 0
    more_is_better: bool = True
    """Decides which way round a ratio is taken: above 1, ours is better."""


COLUMNS = (
    Column("drain jobs/s", "drain", "jobs_per_second"),
    Column("worker CPU us/job", "drain", "worker_cpu_us", 1, more_is_better=False),
    Column("server CPU us/job", "drain", "server_cpu_us", 1, more_is_better=False),
    Column("commands/job", "drain", "commands", 1, more_is_better=False),
    Column("enqueue one by one /s", "enqueue", "one_by_one"),
    Column("concurrent /s", "enqueue", "concurrent"),
    Column("bulk /s", "enqueue", "bulk"),
    Column("lone job p50 ms", "latency", "p50_ms", 2, more_is_better=False),
    Column("p99 ms", "latency", "p99_ms", 2, more_is_better=False),
    Column("idle commands/s", "latency", "idle_commands_per_second", 1, more_is_better=False),
    Column("idle MB", "memory", "idle_mb", 1, more_is_better=False),
    Column("MB after many jobs", "memory", "after_mb", 1, more_is_better=False),
    Column("with supervisor MB", "memory", "with_supervisor_mb", 1, more_is_better=False),
    Column("server bytes/queued job", "queued", "bytes_per_job", 0, more_is_better=False),
)


def markdown(results: Results) -> str:
    """The tables, with what a reader must know to judge them."""
    parts = [_heading(results), _table(results)]
    parts += [_ratios(results, ours) for ours in results.peers() if ours.startswith(OURS)]
    parts.append(_notes(results))
    return "\n\n".join(part for part in parts if part) + "\n"


def _heading(results: Results) -> str:
    m = results.machine
    return (
        f"# rf-jobs beside its peers\n\n{m['at']}, {m['cores']} cores ({m['cpu']}), {m['system']}, Python {m['python']},"
        f" {m['server']} without persistence. Median of {results.repeat}, one worker process, no-op jobs; memory and"
        " bytes measured once. `benchmarks/README.md` says how; the machine is shared, so read the ratios."
    )


def _table(results: Results) -> str:
    columns = [c for c in COLUMNS if c.measure in results.samples]
    rows = []
    for peer in results.peers():
        cells = [_shown(results.median(peer, c.measure, c.name), c.digits) for c in columns]
        rows.append([f"**{peer}**" if peer.startswith(OURS) else peer, *cells])
    return _grid(["", *(c.title for c in columns)], rows)


def _ratios(results: Results, ours: str) -> str:
    columns = [c for c in COLUMNS if c.measure in results.samples]
    rows = []
    for peer in results.peers():
        if peer.startswith(OURS):
            continue
        rows.append([peer, *(_shown(ratio(results, ours, peer, c), 2) for c in columns)])
    if not rows:
        return ""
    return f"## {ours}: how many times better than\n\n" + _grid(["", *(c.title for c in columns)], rows)


def ratio(results: Results, ours: str, peer: str, column: Column) -> float | None:
    """Above 1, ours is better."""
    mine = results.median(ours, column.measure, column.name)
    theirs = results.median(peer, column.measure, column.name)
    if not mine or not theirs:
        return None
    return mine / theirs if column.more_is_better else theirs / mine


def _notes(results: Results) -> str:
    lines = [f"- {name}: {', '.join(f'{k} {v}' for k, v in found.items())}" for name, found in results.versions.items()]
    lines += [f"- not measured: {name}, {reason}" for name, reason in results.absent.items()]
    lines += [f"- FAILED: {failure}" for failure in results.failures]
    return "## Versions\n\n" + "\n".join(lines)


# ---------------------------------------------------------------- goals


@dataclass(frozen=True)
class Goal:
    """What rf-jobs means to reach, and the number that decides it."""

    says: str
    wanted: float
    found: Callable[[Results], float | None]
    at_least: bool = True


def goals(results: Results) -> str:
    """Each promise that this run can judge."""
    lines = []
    for goal in GOALS:
        found = goal.found(results)
        if found is None:
            continue
        met = found >= goal.wanted if goal.at_least else found <= goal.wanted
        sign = ">=" if goal.at_least else "<="
        lines.append(f"{'met   ' if met else 'MISSED'}  {goal.says}: {found:,.2f} ({sign} {goal.wanted:g})")
    return "\n".join(lines)


def _against(peer: str, column: Column, ours: str = MAIN) -> Callable[[Results], float | None]:
    return lambda results: ratio(results, ours, peer, column)


def _against_best(column: Column) -> Callable[[Results], float | None]:
    def found(results: Results) -> float | None:
        others = [p for p in results.peers() if not p.startswith(OURS)]
        ratios = [r for p in others if (r := ratio(results, MAIN, p, column)) is not None]
        return min(ratios) if ratios else None

    return found


def _value(peer: str, measure: str, name: str) -> Callable[[Results], float | None]:
    return lambda results: results.median(peer, measure, name)


_BY_NAME = {column.name: column for column in COLUMNS}
_DRAIN = _BY_NAME["jobs_per_second"]
GOALS = (
    Goal("drain, times arq", 20, _against("arq", _DRAIN)),
    Goal("drain, times BullMQ", 4, _against("BullMQ", _DRAIN)),
    Goal("drain with every job traced, times BullMQ", 1, _against("BullMQ", _DRAIN, f"{OURS} traced")),
    Goal("concurrent enqueue, times the best peer", 3, _against_best(_BY_NAME["concurrent"])),
    Goal("bulk enqueue, times the best peer", 1.5, _against_best(_BY_NAME["bulk"])),
    # Server to worker and back twice, and two processes that have to wake up: "about two" leaves half a trip for that.
    Goal("start of a lone job, bare round trips", 2.5, _value(MAIN, "latency", "round_trips"), at_least=False),
    Goal("commands/s of an idle worker", 5, _value(MAIN, "latency", "idle_commands_per_second"), at_least=False),
    Goal("MB of a worker, telemetry loaded", 50, _value(f"{OURS} traced", "memory", "after_mb"), at_least=False),
    Goal("MB of a worker, no telemetry", 40, _value(f"{OURS} bare", "memory", "after_mb"), at_least=False),
)


# ---------------------------------------------------------------- output


def save(results: Results, folder: Path, name: str) -> None:
    """``NAME.json`` with all samples and medians, ``NAME.md`` with the tables."""
    folder.mkdir(parents=True, exist_ok=True)
    medians = {
        peer: {f"{c.measure}.{c.name}": value for c in COLUMNS if (value := results.median(peer, c.measure, c.name))}
        for peer in results.peers()
    }
    verdicts = goals(results)
    text = json.dumps({**asdict(results), "medians": medians, "goals": verdicts.splitlines()}, indent=1)
    (folder / f"{name}.json").write_text(text + "\n")
    fenced = f"\n## Goals\n\n```\n{verdicts}\n```\n" if verdicts else ""
    (folder / f"{name}.md").write_text(markdown(results) + fenced)
    print(f"written: {folder / name}.json and .md")


def _shown(value: float | None, digits: int) -> str:
    return MISSING if value is None else f"{value:,.{digits}f}"


def _grid(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[i]) for row in [titles, *rows]) for i in range(len(titles))]
    lines = [titles, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) + " |" for line in lines
    )
