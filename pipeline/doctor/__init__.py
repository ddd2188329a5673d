"""What is wrong with an image set: images and labels in, tables of findings out."""
