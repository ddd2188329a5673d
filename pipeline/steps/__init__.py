"""The steps that a user runs, one per file."""
