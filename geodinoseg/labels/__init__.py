"""What is known about the pixels of a scene, from polygons or a raster."""
