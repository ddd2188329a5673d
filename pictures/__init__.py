"""Makes the pictures in docs/ with a real Chromium without a window: `make screenshots` and `make gallery`."""
