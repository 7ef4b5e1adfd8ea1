"""Polygons of class rasters (command `polygonize`)."""
