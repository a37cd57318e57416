"""How results are shown: Markdown tables, plots, and self-contained HTML pages."""
