"""Scores for utterances without labels: files, folders and tables of any size, and long recordings."""
