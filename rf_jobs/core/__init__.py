"""The heart: transitions as values, the lifecycle that applies them, and the one read model."""
