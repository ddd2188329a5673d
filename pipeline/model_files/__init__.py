"""Files of a model: weights and states, the classifier they rebuild, exports, the served model, the registry."""
