"""Chains and batches: groups of jobs that end together."""
