"""Building and loading models. The architecture and the fusions are in `modeling_merhan.py`, their configuration in `configuration_merhan.py`."""
