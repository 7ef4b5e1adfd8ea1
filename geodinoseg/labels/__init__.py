"""What is known of the pixels: polygons, rasters, chips; classes and styles."""
