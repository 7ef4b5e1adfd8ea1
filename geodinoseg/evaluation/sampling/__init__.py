"""Random samples of points, and the areas that follow from them."""
