"""All peers, in the order of the table."""

from __future__ import annotations

from benchmarks.peer import Peer
from benchmarks.peers import rf_jobs
from benchmarks.peers.arq import Arq
from benchmarks.peers.bullmq import BullMq
from benchmarks.peers.dramatiq import Dramatiq
from benchmarks.peers.saq import Saq
from benchmarks.peers.taskiq import TaskiqList, TaskiqStream

OURS = "rf-jobs"
"""What the names of our own variants begin with."""


def all_peers() -> list[Peer]:
    """One of each."""
    return [
        rf_jobs.RfJobs(f"{OURS} bare", rf_jobs.OFF),
        rf_jobs.RfJobs(f"{OURS} metrics", rf_jobs.METRICS),
        rf_jobs.RfJobs(f"{OURS} traced", rf_jobs.TRACED),
        BullMq(),
        TaskiqList(),
        TaskiqStream(),
        Dramatiq(),
        Saq(),
        Arq(),
    ]


def chosen(names: str | None) -> list[Peer]:
    """The peers whose name holds one of the comma-separated words; raises ``ValueError`` for a word that fits none."""
    peers = all_peers()
    if not names:
        return peers
    words = [word.strip().lower() for word in names.split(",") if word.strip()]
    for word in words:
        if not any(word in peer.name.lower() for peer in peers):
            raise ValueError(f"--peers: no peer is called {word!r}; known are {', '.join(p.name for p in peers)}")
    return [peer for peer in peers if any(word in peer.name.lower() for word in words)]
