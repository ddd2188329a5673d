"""Finds faults in an image set: images and labels in, tables of findings out."""
