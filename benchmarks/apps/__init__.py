"""What runs inside each peer's own environment: a worker's jobs, and an enqueuer that the driver commands."""
