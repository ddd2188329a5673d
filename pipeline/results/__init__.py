"""Turns predictions into numbers, and numbers into figures."""
