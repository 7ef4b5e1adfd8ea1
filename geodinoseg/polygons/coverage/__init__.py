"""Polygons as a coverage: tracing, joining across cuts, simplification, minimum area."""
