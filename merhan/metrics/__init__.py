"""Numbers from predictions: no files, no models."""
