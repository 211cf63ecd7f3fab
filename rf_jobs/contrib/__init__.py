"""Integrations with web frameworks and databases. Each needs the extra of its name: ``pip install "rf-jobs[fastapi]"``."""
