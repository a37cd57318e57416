"""From a model and rows to predictions, metrics, reports, comparisons and explanations."""
