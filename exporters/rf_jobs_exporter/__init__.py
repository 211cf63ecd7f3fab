"""The exporter: the whole fleet's metrics from the store, on one page for Prometheus."""
