"""Hierarchical self-alignment pretraining on the names of a term graph."""
