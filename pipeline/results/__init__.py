"""Predictions -> numbers, numbers -> figures."""
