"""Training, one stage after another, and everything that is needed to resume it."""
