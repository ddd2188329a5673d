"""The loop and what it turns: optimizers, schedules, the range test, and their assembly from parameters."""
