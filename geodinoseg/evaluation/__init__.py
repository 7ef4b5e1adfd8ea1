"""Accuracy of a map (commands `evaluate` and `sample`): comparison, areas, reports."""
