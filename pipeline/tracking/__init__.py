"""Everything MLflow, and what a run leaves behind: weights, the model around them, the processes that made it."""
