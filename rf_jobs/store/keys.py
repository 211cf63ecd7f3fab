"""Every key, with a sentence each. ``docs/reference/keys.md`` is made from this table.

All keys of a shard carry one hash tag, ``{<namespace>}`` or ``{<namespace>/<n>}``, so that any transition is one atomic
script. The scripts derive the same names from the prefix of their one declared key, the ledger.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from rf_jobs.words.config_settings import JobsSettings
from rf_jobs.words.errors import ConfigError
from rf_jobs.words.ids import is_namespace

SCHEMA_VERSION = 1
MOST_SHARDS = 1024


@dataclass(frozen=True)
class Key:
    """A family of keys."""

    name: str
    type: str
    holds: str
    lives: str = "for ever"


KEYS: tuple[Key, ...] = (
    Key("ledger", "hash", "exact counters, field `<queue>|<event>`"),
    Key("server", "hash", "schema version and instance id: an emptied server is noticed by its new id; in tests also how its clock was moved"),
    Key("queues", "set", "names of all queues that ever held a job"),
    Key("paused", "set", "names of the paused queues"),
    Key("seq", "string", "the last score given out: milliseconds since 1970 times 512, counted on within a millisecond"),
    Key("extras", "set", "ids of jobs that have keys beside job and meta: those that live `with the job`"),
    Key("watched", "set", "ids whose end somebody waits for; announced on the channel `final`"),
    Key("live", "zset", "ids that somebody watches live, by the time until which (ms); changes are announced on `live:<id>`", "half a minute after the last look"),
    Key("payloads", "zset", "names of offloaded payloads, `<job id>.<random>`, by when (ms) to look next whether they are needed", "until the payload is removed"),
    Key("relayed:<id>", "string", "an outbox's row with this id is in the store", "a minute longer than the row, at most a week"),
    Key("mark", "string", "what a durable relay writes, to wait until it is on the disk, and all before it", "a minute"),
    Key("job:<id>", "string", "the envelope: immutable JSON, see wire-format.md", "until the job is collected"),
    Key(
        "meta:<id>",
        "hash",
        "mutable fields: state; attempt; crashes; token (`<worker>.<nonce>`, with a `!` before it once used up); epoch (ms,"
        " grows with every lease: when it was taken); score (its place in ready); first (its first such place); previous"
        " (the last attempt's span); finished (ms); reason; cancel (why it was asked to stop), asked, heard (ms: when it was, and"
        " when its worker had told it); kept (ms: until when its result is); queue; priority, if not normal; exp (ms: when it"
        " expires); links (what hangs on it, see lib/links.lua), class, lock; of jobs that wait: onfail, due, held (the limit that"
        " holds it), undone (whom it ended because of); since (of jobs that take turns: when it was ready, as a score)."
        " Absent of a plain job until it first leaves ready",
        "until the job is collected",
    ),
    Key("ready:<queue>", "zset", "ids ready to run; score = (3 - priority) * 2^51 + milliseconds * 512 + counter"),
    Key("later:<queue>", "zset", "ids by due time (ms): delays and retries; state `scheduled`"),
    Key("running:<queue>", "zset", "leased ids by lease expiry (ms)"),
    Key("blocked:<queue>", "zset", "ids that wait for other jobs, for a limit or for the end of a pause; by time (ms)"),
    Key("parked:<queue>", "zset", "ids whose class no worker knew, by the time they were parked (ms)"),
    Key("dead:<queue>", "zset", "dead letters by time of death (ms)"),
    Key("done:<queue>", "zset", "completed ids by time (ms), bounded by count and age; state `completed`"),
    Key("cancelled:<queue>", "zset", "cancelled ids by time (ms), bounded by count and age"),
    Key("expired:<queue>", "zset", "expired ids by time (ms), bounded by count and age"),
    Key("errors:<id>", "list", "JSON of each failure: type, message, traceback, worker, attempt, times; the last 50", "with the job"),
    Key("timeline:<id>", "list", "`<ms> <event> <detail>` of what is not plain; the last 100", "with the job"),
    Key("result:<id>", "string", "what the handler returned, as JSON", "result_ttl"),
    Key("progress:<id>", "string", "JSON of current, total, message", "with the job"),
    Key("checkpoint:<id>", "string", "what ctx.checkpoint saved, as JSON", "with the job"),
    Key("steps:<id>", "hash", "by the name of each ctx.step that is done: what it answered with, as JSON", "with the job"),
    Key(
        "joblog:<id>",
        "list",
        "log lines, bounded by number and size: first `<bytes> <lines dropped> <token of the last writer> <its last line>`, then"
        " JSON of at (ms), level, message, attempt, fields",
        "with the job",
    ),
    Key("parents:<id>", "set", "jobs and batches that a blocked job still waits for", "until it waits no more"),
    Key("dependents:<id>", "set", "ids of blocked jobs that wait for this job or batch", "until it is over"),
    Key("inputs:<id>", "hash", "by their ids: what the jobs that it waited for returned, as JSON", "with the job"),
    Key("ended:<id>", "string", "`<state> <result>` of a member that was over before all of its group was there; the result where others of it wait for that", "a quarter of an hour"),
    Key("undone:<id>", "set", "ids of jobs that ended because of this one: they wait for it again when it is replayed", "as dead letters"),
    Key("batch:<id>", "hash", "a batch or a chain: kind, name, state, total, created, sealed, finished, links, its callbacks until they are due (then, catch, finally: JSON), when each was fired, first_failed, cancelled (why), last (a chain's last step)", "batch_keep_seconds after its end"),
    Key("pending:<batch>", "set", "members that have not ended: jobs, and inner batches", "until they have"),
    Key("failed:<batch>", "set", "members that died, were cancelled or expired", "with the batch"),
    Key("returning:<batch>", "set", "members in other shards that were told to run again, and have not answered", "until they have"),
    Key("doomed:<batch>", "set", "members of a cancelled batch that are still to be looked at", "a moment"),
    Key("batches", "zset", "ids of batches and chains by the time of their dispatch (ms)"),
    Key("batches:<which>", "zset", "`open`: those that are not over; `unsealed`: those whose dispatch is not complete; `expecting`: those that expect members from other shards"),
    Key("unique:<digest>", "string", "a unique lock: `<holder's id> <until> <ms since when>`", "the window, or until its holder is over"),
    Key("slots:<name>", "zset", "a dispatch limit: ids of jobs by the time of their slots (ms)", "its period"),
    Key("limits", "set", "names of all limits"),
    Key("limit:<name>", "hash", "a limit: c concurrency, r rate, p per (ms), a algorithm as the code says; in capitals as an operator says"),
    Key("holders:<ref>", "set", "ids of running jobs that take a limit's places", "until they stop running"),
    Key("starts:<ref>", "list", "a sliding window's last starts (ms), the newest first", "its period"),
    Key("bucket:<ref>", "hash", "a token bucket: tokens, at (ms)", "twice its period"),
    Key("held:<ref>", "zset", "ids that a limit, or `!` and a hold, keeps from starting; by their score in ready", "until it lets them go"),
    Key("refs:<name>", "set", "references of a limit that hold jobs back", "until they do not"),
    Key("holds", "hash", "paused classes and tags, `class:<name>` or `key:<tag>`: until when (ms), 0 for ever"),
    Key("timers", "zset", "limits and holds by the time at which they are to be looked at (ms)"),
    Key("failures:<class>", "list", "a circuit breaker's last failures (ms)", "its period"),
    Key("tripped:<class>", "string", "when a circuit breaker opened: the first failure soon after that opens it again", "cooldown and period"),
    Key("fair:<queue>", "hash", "of a queue whose jobs take turns: by key, the place of its next job; `!` how far the queue is", "a day after the last"),
    Key("outbox:<shard>", "stream", "what this shard has to say to another: JSON of a word of lib/abroad.lua, and what it is about"),
    Key("outboxes", "set", "numbers of the shards that there is something for"),
    Key("homes", "hash", "where there are several shards, in which one a queue, a limit and a class's unique locks are"),
    Key("heard", "hash", "by shard: the id of the last entry of its outbox that was done here"),
    Key("expected:<batch>", "hash", "members that are about to be dispatched in other shards; of a chain's step with the one that it goes behind", "until they are, or a quarter of an hour later were found not to be"),
    Key("outbox:<which>", "list", "`skipped`: consequences that could not be done, with the time (ms) and why; the last 1000"),
    Key("outbox", "list", "consequences that are still to be done, as JSON: what was too much for one script"),
    Key("wake:<queue>", "list", "a few tokens that idle workers block on: a hint only"),
    Key("workers", "zset", "ids of live worker processes by the time until which they are believed (ms)"),
    Key("worker:<id>", "hash", "a worker: host, pid, queues, digest of its classes, slots, times, last fetch nonce and what it got", "a minute after its last beat"),
    Key("classes:<digest>", "string", "JSON of the job classes that a worker can run; workers of one release share it", "an hour"),
    Key("cancels:<worker>", "set", "ids of running jobs that this worker should stop", "an hour"),
    Key("schedules", "zset", "names of all schedules by when they are due (ms); +inf: paused, orphaned or at their end"),
    Key(
        "schedule:<name>",
        "hash",
        "def (JSON, see model/schedule.py); rev (its digest); timing (a digest of when it runs); source (code or api); owner (the"
        " scheduler that put it); created, changed, seen (ms: when the code last had it); next (the tick that is waited for, ms);"
        " due (when that is, with jitter); paused, orphaned (ms since); tick, ran, job, lag (the last run: its tick, when, as which"
        " job, how late in ms); from, by, refused (the last step, who took it, and what was said of its dispatch); fired, missed, overlaps (counters); missed_at; succeeded (ms),"
        " outcome, ended (ms): of its jobs' ends; error, failed (ms): why a tick could not be dispatched",
    ),
    Key("schedulers", "zset", "ids of schedulers by the time until which they are believed to live (ms)"),
    Key("scheduler:<id>", "hash", "a scheduler: host, pid, version, beat (ms)", "15 s after its last word"),
    Key("metrics", "hash", "process metrics summed over all workers; field = JSON array, see telemetry"),
    Key("exemplars", "hash", "the latest exemplar of a metric's series; same fields as `metrics`"),
    Key("exporter", "string", "which exporter shows the metrics, while there are several", "a minute after its last scrape"),
    Key("flushed:<source>", "string", "the last flush that was counted from this process, so that none counts twice", "an hour"),
)  # fmt: skip

FINAL_CHANNEL = "final"
LIVE_CHANNEL = "live"
"""With the id of a job that is watched: says what has changed."""
STOP_CHANNEL = "stop"
"""With the id of a worker: says which of its jobs it should stop; a faster word than its next heartbeat's."""


class Keys:
    """Key names behind one prefix."""

    __slots__ = ("ledger", "prefix")

    def __init__(self, namespace: str = "rf") -> None:
        if not is_namespace(namespace):
            raise ConfigError(
                f"namespace is {namespace!r}; use 1 to 64 of the letters A-Z a-z, digits, and _ . - / (no braces or colons)"
            )
        self.prefix = "{" + namespace + "}:"
        self.ledger = self.prefix + "ledger"

    def of(self, family: str, member: str = "") -> str:
        """``family`` for singletons, ``family:member`` otherwise."""
        return f"{self.prefix}{family}:{member}" if member else self.prefix + family

    @property
    def pattern(self) -> str:
        """A glob that fits every key of this namespace and no other."""
        return glob(self.prefix) + "*"


class Shards:
    """The parts of a namespace. Each holds whole queues; what concerns no queue is in the first."""

    __slots__ = ("_placed", "keys")

    def __init__(self, namespace: str = "rf", count: int = 1, placed: Mapping[str, int] | None = None) -> None:
        first = Keys(namespace)
        self.keys = (first, *(Keys(f"{namespace}/{number}") for number in range(1, count)))
        self._placed = dict(placed or {})

    def __len__(self) -> int:
        return len(self.keys)

    def of(self, queue: str) -> int:
        """The number of a queue's shard: where it was placed, else by a hash of its name that is the same everywhere."""
        if len(self.keys) == 1:
            return 0
        placed = self._placed.get(queue)
        return zlib.crc32(queue.encode()) % len(self.keys) if placed is None else placed

    def split(self, queues: Iterable[str]) -> dict[int, list[str]]:
        """Queues by their shards, both in the order in which they are named."""
        found: dict[int, list[str]] = {}
        for queue in queues:
            found.setdefault(self.of(queue), []).append(queue)
        return found


def shards_of(jobs: JobsSettings) -> Shards:
    """The shards that the settings ask for. Raises ``ConfigError`` for a queue in one that there is not."""
    if not isinstance(jobs.shards, int) or not 1 <= jobs.shards <= MOST_SHARDS:
        raise ConfigError(f"jobs.shards is {jobs.shards!r}; use a whole number, at least 1 and at most {MOST_SHARDS}")
    for queue, number in (jobs.queue_shards or {}).items():
        if not 0 <= number < jobs.shards:
            raise ConfigError(
                f"jobs.queue_shards puts queue {queue!r} into shard {number}, and jobs.shards is {jobs.shards}: there are shards 0 to"
                f" {jobs.shards - 1}"
            )
    return Shards(jobs.namespace, jobs.shards, jobs.queue_shards)


REF = re.compile(r"(?:[0-9]+\|)?(.*)", re.DOTALL)


def plain(ref: str) -> str:
    """The id in a reference to a job or a batch, which may name its shard: ``3|<id>``."""
    return REF.fullmatch(ref)[1]  # type: ignore[index]


def relative(ref: str, home: int, shard: int) -> str:
    """What one in shard ``home`` calls ``ref``, as one in ``shard`` has to."""
    where, bar, each = ref.rpartition("|")
    if not each:
        return ""
    number = int(where) if bar else home
    return each if number == shard else f"{number}|{each}"


def glob(literal: str) -> str:
    """``literal`` as a Redis glob pattern that fits only itself."""
    return "".join(f"\\{c}" if c in "*?[]\\" else c for c in literal)


STATE_KEYS = {
    "ready": "ready",
    "scheduled": "later",
    "blocked": "blocked",
    "parked": "parked",
    "running": "running",
    "completed": "done",
    "dead": "dead",
    "cancelled": "cancelled",
    "expired": "expired",
}
"""State to key family."""

JOB_KEYS = ("job", "meta", "errors", "timeline", "result", "progress", "checkpoint", "steps", "joblog")
"""Families with one key per job id."""
