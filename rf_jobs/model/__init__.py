"""What a job is: its class, its message, its context, its events. No I/O."""
