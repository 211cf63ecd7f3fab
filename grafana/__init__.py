"""Dashboards as code, and the JSON made from it. ``python -m grafana.generate`` writes ``dashboards/`` and ``provisioning/``.

One module per dashboard, each with one ``DASHBOARD``; :mod:`grafana.generate` lists them.
"""
