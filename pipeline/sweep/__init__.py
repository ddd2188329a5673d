"""Optuna studies: what they vary, their trials, and what they found."""
