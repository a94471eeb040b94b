"""Scores of a run on its own cases, and the page that shows them."""
