"""One file per feature, listed in README.md; run any with ``python -m examples.NAME``."""
