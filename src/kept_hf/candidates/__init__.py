"""First stages: candidate codes of notes, their fusion, and what recall they leave to a second stage."""
