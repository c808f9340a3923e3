"""One file per family of GANs; they never import each other."""
