"""What a unit test of the rules is made of: a history of series, and which alerts it makes fire, with what they say.

The annotations are expected too, with the labels and the printed value filled in here, so that what an operator reads
at night is tested as well.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote_plus

from deploy.settings import Settings
from rf_jobs.telemetry.promql import renamed
from rf_jobs.telemetry.rules.alerts import alerts

_PLACE = re.compile(r"\{\{\s*\$(value|labels\.(\w+))[^}]*?(urlquery)?\s*\}\}")


@dataclass(frozen=True)
class Fired:
    """An alert that is expected: its labels beyond those of the rule, and its value as the description prints it."""

    alert: str
    value: str
    window: str = ""
    labels: dict[str, str] = field(default_factory=dict)

    def expected(self, settings: Settings) -> dict[str, Any]:
        rule = next(a for a in alerts(settings) if (a.name, a.window) == (self.alert, self.window)).rule(settings)
        return {
            "exp_labels": {**rule["labels"], **self.labels},
            "exp_annotations": {name: self._filled(text) for name, text in rule["annotations"].items()},
        }

    def _filled(self, text: str) -> str:
        def fill(place: re.Match[str]) -> str:
            said = self.labels.get(place[2], "") if place[2] else self.value
            return quote_plus(said) if place[3] else said

        return _PLACE.sub(fill, text)


@dataclass(frozen=True)
class Case:
    """A history of series, and what fires when. An alert asked about without an expectation must not fire."""

    name: str
    series: dict[str, str]
    """Values in promtool's notation, one a minute."""
    at: dict[tuple[str, str], tuple[Fired, ...]]
    """By (time, alert)."""
    queries: dict[tuple[str, str], dict[str, float]] = field(default_factory=dict)
    """By (time, query): samples."""

    def test(self, settings: Settings) -> dict[str, Any]:
        ns = settings.namespace
        built: dict[str, Any] = {
            "name": self.name,
            "interval": "1m",
            "input_series": [{"series": renamed(name, ns), "values": values} for name, values in self.series.items()],
            "alert_rule_test": [
                {"eval_time": time, "alertname": alert, "exp_alerts": [each.expected(settings) for each in fired]}
                for (time, alert), fired in self.at.items()
            ],
        }
        if self.queries:
            built["promql_expr_test"] = [
                {
                    "expr": renamed(query, ns),
                    "eval_time": time,
                    "exp_samples": [{"labels": renamed(k, ns), "value": v} for k, v in samples.items()],
                }
                for (time, query), samples in self.queries.items()
            ]
        return built


def labels_of(queue: str) -> dict[str, str]:
    """An alert's labels for a queue."""
    return {"cluster": "c1", "queue": queue}


def series(metric: str, queue: str, **labels: str) -> str:
    """A series of a queue."""
    more = "".join(f', {name}="{value}"' for name, value in labels.items())
    return f'{metric}{{cluster="c1", queue="{queue}"{more}}}'
