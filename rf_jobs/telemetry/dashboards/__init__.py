"""Grafana's dashboards as code: one module for each, with one ``DASHBOARD``; ``every`` lists them.

``rf-jobs grafana export`` writes their JSON; ``grafana/dashboards/`` has that of the defaults.
"""
