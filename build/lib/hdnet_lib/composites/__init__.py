"""Composites made from real photos: recipes, what is plausible, data sets, and training data on the fly."""
