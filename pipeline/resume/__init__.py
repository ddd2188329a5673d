"""Interrupts, the saved states of trainings, and how interrupted runs continue."""
