"""The files that finished chunks leave, in a folder or an object store."""
