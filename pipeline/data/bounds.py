"""How large an image may be, and how long it may take to decode: of one file, whatever its format."""

# Room for the largest sensors but the most unusual. Decoding takes up to 16 bytes for each.
MAX_PIXELS = 128 * 2**20
MAX_SCANS = 100  # of one JPEG; programs write some ten
MAX_SCANNED_PIXELS = 20 * MAX_PIXELS  # in all scans of one JPEG: some seconds
MAX_TILED_PIXELS = 2 * MAX_PIXELS  # in all tiles of one HEIC or AVIF image, each as often as it is used: some seconds
MAX_BYTES = 8 * MAX_PIXELS  # of one file, which some decoders read whole: 16 bits for each of 4 channels


class Costly(ValueError):
    """To read the file would take much memory, or seconds or minutes."""
