"""What Grafana is told at its start: the data sources and where the dashboards lie.

Keys as in Grafana's documentation of the version that docker-compose.yml pins. ``$$`` is a dollar sign that Grafana's
own substitution of environment variables leaves alone.
"""

from __future__ import annotations

from rf_jobs.telemetry.dashboards.model import Json


def datasources() -> Json:
    """Prometheus, and Tempo and Loki where there are any: a metric leads to its trace, a trace to its log and back."""
    return {
        "apiVersion": 1,
        "datasources": [
            {
                "name": "Prometheus",
                "uid": "prometheus",
                "type": "prometheus",
                "access": "proxy",
                "url": "${PROMETHEUS_URL}",
                "isDefault": True,
                "jsonData": {
                    "httpMethod": "POST",
                    "timeInterval": "15s",
                    "exemplarTraceIdDestinations": [{"name": "trace_id", "datasourceUid": "tempo"}],
                },
            },
            {
                "name": "Tempo",
                "uid": "tempo",
                "type": "tempo",
                "access": "proxy",
                "url": "${TEMPO_URL}",
                "jsonData": {
                    "tracesToLogsV2": {
                        "datasourceUid": "loki",
                        "spanStartTimeShift": "-5m",
                        "spanEndTimeShift": "5m",
                        "tags": [{"key": "service.name", "value": "service_name"}],
                        "filterByTraceID": True,
                    },
                    "tracesToMetrics": {"datasourceUid": "prometheus"},
                    "serviceMap": {"datasourceUid": "prometheus"},
                    "nodeGraph": {"enabled": True},
                },
            },
            {
                "name": "Loki",
                "uid": "loki",
                "type": "loki",
                "access": "proxy",
                "url": "${LOKI_URL}",
                "jsonData": {
                    "derivedFields": [
                        {
                            "name": "trace_id",
                            "matcherRegex": r'"trace_id":"(\w+)"',
                            "url": "$${__value.raw}",
                            "datasourceUid": "tempo",
                        }
                    ]
                },
            },
        ],
    }


def dashboards() -> Json:
    """One folder of dashboards, read from the files beside; changes are made in the code, not in the browser."""
    return {
        "apiVersion": 1,
        "providers": [
            {
                "name": "rf-jobs",
                "orgId": 1,
                "folder": "RF Jobs",
                "folderUid": "rf-jobs",
                "type": "file",
                "disableDeletion": False,
                "allowUiUpdates": False,
                "updateIntervalSeconds": 30,
                "options": {"path": "/var/lib/grafana/dashboards"},
            }
        ],
    }
