"""From a scene to a class raster (command `segment`). No torch before the runner is called."""
