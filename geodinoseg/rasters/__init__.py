"""Rasters read and written: scenes, class rasters, COGs; which files may be opened; retries."""
