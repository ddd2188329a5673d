"""Turns the records of finished runs into one self-contained HTML page."""
