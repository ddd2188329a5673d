"""Image classifiers as an MLflow Project: range test, OneCycle training, evaluation, explanation."""
