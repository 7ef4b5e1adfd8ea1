"""Polygons as a coverage: tracing, joining over cuts, simplifying, minimum area. Plain numpy."""
