"""A web page on which one person tries a trained model with photos of their own."""
