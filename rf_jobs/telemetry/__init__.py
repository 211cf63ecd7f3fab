"""Subscribers that turn the core's events into metrics, spans and logs."""
