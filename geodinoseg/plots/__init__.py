"""Map pictures (command `picture`)."""
