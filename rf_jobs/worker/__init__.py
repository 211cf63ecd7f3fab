"""The worker runtime: leases jobs, runs them, and says how they ended."""
