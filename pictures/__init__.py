"""What docs/ shows of this project: `make screenshots` and `make gallery`, in a real Chromium without a window."""
