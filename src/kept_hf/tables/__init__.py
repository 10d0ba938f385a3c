"""Large tables as streams of columns of text."""
