"""Limits for one image file of any format: how large it may be, and how long decoding may take."""

# Enough for all but the most unusual sensors. Decoding takes up to 16 bytes per pixel.
MAX_PIXELS = 128 * 2**20
MAX_SCANS = 100  # scans of one JPEG; programs write about ten
MAX_SCANNED_PIXELS = 20 * MAX_PIXELS  # pixels of all scans of one JPEG: a few seconds
MAX_TILED_PIXELS = 2 * MAX_PIXELS  # pixels of all tiles of one HEIC or AVIF image, counted per use: a few seconds
MAX_BYTES = 8 * MAX_PIXELS  # of one file, because some decoders read it whole: 16 bits for each of 4 channels


class Costly(ValueError):
    """Reading the file would take much memory, or seconds to minutes."""
