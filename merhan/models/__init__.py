"""Building and loading models. The architecture and the fusions are in `modeling_merhan.py`."""
