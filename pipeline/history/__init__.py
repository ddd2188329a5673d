"""Reads finished runs back from the tracking store: models, weights, evaluations and records."""
