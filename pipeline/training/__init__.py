"""The training loop and its parts: optimizers, schedules, the range test, and how parameters assemble them."""
