"""Random samples of points, and area estimates from them."""
