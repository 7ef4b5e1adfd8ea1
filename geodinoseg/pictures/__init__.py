"""Pictures for people: a scene beside its map, and how a training went."""
