"""Experiments: recipes x folds x seeds, and their comparison."""
