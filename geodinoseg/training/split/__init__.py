"""Which labelled land validates: blocks, groups, folds."""
