"""One test file per source file, at the same path."""
