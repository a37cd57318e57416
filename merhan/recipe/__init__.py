"""The description of a training run: its keys, and how a file becomes a checked recipe."""
