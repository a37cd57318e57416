"""Corpus readers, manifests, splits, leak checks and the examples that a model is trained on."""
