"""Prometheus' recording rules and alerts, under a namespace and with an installation's objectives.

``rf-jobs rules export`` writes them; ``deploy/prometheus/`` has those of the defaults, with their tests.
"""
