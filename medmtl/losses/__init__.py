"""Losses of what a head says beside its target, one family per file, and what the best constant answer costs."""
