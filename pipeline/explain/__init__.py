"""Where a network looks, and whether such a map means anything."""
