"""What a user runs, one step a file."""
