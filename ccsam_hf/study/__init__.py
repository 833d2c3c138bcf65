"""Programs that measure: the cost of a step, and tables over many runs."""
