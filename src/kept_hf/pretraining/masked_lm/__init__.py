"""Masked language modelling on notes, in long blocks."""
