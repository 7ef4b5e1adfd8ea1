"""The network and what belongs to it: backbone, heads, normalization, the model folder."""
