"""Optuna studies: the space they search, their trials, and their results."""
