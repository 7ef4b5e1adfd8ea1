"""How right a map is: comparison with labels, samples of points, area estimates, reports."""
