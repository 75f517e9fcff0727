"""The `helenite` command line."""
