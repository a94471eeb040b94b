"""Numbers that say how good predictions are, most with an interval over patients, and what figures are drawn from."""
