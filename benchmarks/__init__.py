"""Measurements of the pipeline, each beside a peer in the same run. Numbers depend on the machine: state it."""
