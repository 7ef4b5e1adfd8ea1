"""From a scene to a class raster (command `segment`). The runner alone loads torch."""
