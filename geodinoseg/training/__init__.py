"""From labelled scenes to a model folder (command `train`)."""
