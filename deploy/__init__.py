"""How rf-jobs is run and watched: the image, Prometheus, Alertmanager, the collector, the server's settings.

``python -m deploy.generate`` writes everything that is made from the table of metric names, dashboards included.
"""
