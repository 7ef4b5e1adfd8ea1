"""Reports of an evaluation as HTML, JSON or CSV."""
