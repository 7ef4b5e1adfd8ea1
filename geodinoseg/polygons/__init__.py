"""From a class raster to polygons in a GeoDataFrame or a file, streamed (`polygonize`)."""
