"""One file per feature; run any with ``python -m examples.NAME``."""
