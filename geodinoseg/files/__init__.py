"""Files that appear whole: atomic writes, locks, XML from other programs."""
