"""Measures the pipeline next to a peer in the same run. Numbers depend on the machine, so name it with them."""
