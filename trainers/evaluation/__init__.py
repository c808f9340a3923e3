"""Scores of images: features, distances and the classifier's verdicts. Knows images and labels, never a GAN."""
