"""What Grafana is given: the dashboards' JSON, made from :mod:`rf_jobs.telemetry.dashboards`, and its provisioning.

``python -m grafana.generate`` writes ``dashboards/`` and ``provisioning/``.
"""
