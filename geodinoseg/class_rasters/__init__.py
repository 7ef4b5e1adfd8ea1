"""Class rasters on disk: rows in, a cloud-optimized GeoTIFF out, and back."""
