"""The network and its folder: backbone, heads, normalization, weights."""
