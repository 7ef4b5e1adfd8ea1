"""Many scenes, one model."""
