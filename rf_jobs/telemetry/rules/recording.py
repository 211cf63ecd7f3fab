"""Recording rules: rates per queue, and the error ratios that the burn-rate alerts compare."""

from __future__ import annotations

from dataclasses import dataclass

from rf_jobs.telemetry.promql import recorded_name, renamed

WINDOWS = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")


@dataclass(frozen=True)
class Recording:
    """A series computed ahead: ``level:metric:operations``."""

    record: str
    expr: str

    def rule(self, namespace: str) -> dict[str, str]:
        return {"record": recorded_name(self.record, namespace), "expr": renamed(self.expr, namespace)}


def _error_ratio(window: str) -> Recording:
    died = f'sum by (cluster, queue) (rate(jobs_processed_total{{outcome="dead"}}[{window}]))'
    ended = f'sum by (cluster, queue) (rate(jobs_processed_total{{outcome=~"success|dead"}}[{window}]))'
    return Recording(f"queue:jobs_errors:ratio_rate{window}", f"{died} / ({ended} > 0)")


QUEUES: tuple[Recording, ...] = (
    Recording("queue:jobs_processed:rate5m", "sum by (cluster, queue) (rate(jobs_processed_total[5m]))"),
    Recording("queue:jobs_dispatched:rate5m", "sum by (cluster, queue) (rate(jobs_dispatched_total[5m]))"),
    Recording("queue:queue_depth:ready", 'max by (cluster, queue) (queue_depth{state="ready"})'),
    Recording(
        "queue:drain_eta_seconds:estimate",
        "queue:queue_depth:ready / clamp_min(queue:jobs_processed:rate5m - queue:jobs_dispatched:rate5m, 0.001)",
    ),
)

ERROR_RATIOS: tuple[Recording, ...] = tuple(_error_ratio(window) for window in WINDOWS)

RECORDINGS = QUEUES + ERROR_RATIOS

RECORDED = frozenset(recording.record for recording in RECORDINGS)
