"""Whole cases in, results on the case's own grid out."""
