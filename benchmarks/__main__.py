"""Measure rf-jobs beside its peers: ``python -m benchmarks``, or ``make bench ARGS=…``; see README.md."""

from __future__ import annotations

import argparse
import dataclasses
import datetime as dt
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.measure import MEASUREMENTS, ONCE, QUICK, Numbers, Sizes
from benchmarks.peer import HERE, ROOT, Peer, PeerUnavailableError
from benchmarks.peers import all_peers, chosen
from benchmarks.processes import ProgramFailedError
from benchmarks.report import Results, goals, markdown, save
from benchmarks.server import find_server, private_server


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--peers", help=f"comma-separated words of names: {', '.join(p.name for p in all_peers())}")
    parser.add_argument("--measure", help=f"comma-separated, of {', '.join(MEASUREMENTS)}")
    parser.add_argument("--jobs", type=_positive, help="jobs of a drain; fast peers get a multiple of it")
    parser.add_argument("--repeat", type=_positive, help="runs of each measurement, of which the median counts (3)")
    parser.add_argument("--in-flight", type=_positive, help="concurrent producers (100)")
    parser.add_argument("--batch", type=_positive, help="jobs of one bulk call (1000)")
    parser.add_argument("--quick", action="store_true", help="small and once: whether it works, not how fast it is")
    parser.add_argument("--server", help="redis-server or valkey-server to start (the one on the PATH)")
    parser.add_argument("--output", type=Path, default=HERE / "results", help="folder of the JSON and Markdown")
    parser.add_argument("--setup-only", action="store_true", help="install the peers, measure nothing")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """0 when every peer at hand was measured, 1 when one failed, 2 for a wrong argument."""
    args = arguments(argv)
    try:
        peers, measures = chosen(args.peers), _measures(args.measure)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    present, absent = set_up(peers)
    if args.setup_only:
        return 0
    program, sizes = find_server(args.server), _sizes(args)
    repeat = args.repeat or (1 if args.quick else 3)
    results = Results(machine=machine(program), sizes=dataclasses.asdict(sizes), repeat=repeat, absent=absent)
    results.versions = {peer.name: peer.versions() for peer in present}
    started = time.monotonic()
    measure_all(present, measures, repeat, program, sizes, results)
    results.machine["load_after"] = _load()
    results.machine["seconds"] = round(time.monotonic() - started)
    print(markdown(results))
    print(goals(results))
    save(results, args.output, "quick" if args.quick else "benchmark")
    return 1 if results.failures else 0


def set_up(peers: Sequence[Peer]) -> tuple[list[Peer], dict[str, str]]:
    """Those that can run here, and why the others can't."""
    present: list[Peer] = []
    absent: dict[str, str] = {}
    for peer in peers:
        try:
            peer.install()
        except PeerUnavailableError as reason:
            absent[peer.name] = str(reason)
            print(f"skipping {peer.name}: {reason}", file=sys.stderr)
        else:
            present.append(peer)
    return present, absent


def measure_all(
    peers: Sequence[Peer], measures: Sequence[str], repeat: int, program: str, sizes: Sizes, results: Results
) -> None:
    """Peers take turns within every repetition, each time from another one on, so that noise meets all alike."""
    for measure in measures:
        for turn in range(1 if measure in ONCE else repeat):
            first = turn * 2 % max(1, len(peers))
            for peer in [*peers[first:], *peers[:first]]:
                numbers = measure_one(peer, measure, program, sizes, results)
                said = "  ".join(f"{name} {value:,.1f}" for name, value in (numbers or {}).items()) or "failed"
                print(f"{measure:8} {turn + 1}/{repeat}  {peer.name:16} {said}", file=sys.stderr, flush=True)


def measure_one(peer: Peer, measure: str, program: str, sizes: Sizes, results: Results) -> Numbers | None:
    """One measurement on a fresh server; a failure is noted, and the others go on."""
    try:
        with private_server(program) as server:
            numbers = MEASUREMENTS[measure](peer, server, sizes)
    except ProgramFailedError as reason:
        results.failures.append(f"{peer.name}, {measure}: {str(reason).splitlines()[-1]}")
        print(f"{peer.name} failed: {reason}", file=sys.stderr)
        return None
    results.samples.setdefault(measure, {}).setdefault(peer.name, []).append(numbers)
    return numbers


def machine(program: str) -> dict[str, object]:
    """Where and when."""
    with private_server(program) as server:
        version = server.version()
    git = shutil.which("git")
    commit = (
        subprocess.run([git, "rev-parse", "--short", "HEAD"], check=False, cwd=ROOT, capture_output=True, text=True)
        if git
        else None
    )
    return {
        "at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "server": version,
        "commit": commit.stdout.strip() if commit else "",
        "load_before": _load(),
    }


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _load() -> float:
    return round(os.getloadavg()[0], 2)


def _sizes(args: argparse.Namespace) -> Sizes:
    sizes = QUICK if args.quick else Sizes()
    given = {"drain": args.jobs, "in_flight": args.in_flight, "batch": args.batch}
    return dataclasses.replace(sizes, **{name: value for name, value in given.items() if value is not None})


def _measures(words: str | None) -> list[str]:
    names = [word.strip() for word in words.split(",")] if words else list(MEASUREMENTS)
    for name in names:
        if name not in MEASUREMENTS:
            raise ValueError(f"--measure: there is no {name!r}; known are {', '.join(MEASUREMENTS)}")
    return names


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 1")
    return value


if __name__ == "__main__":
    raise SystemExit(main())
