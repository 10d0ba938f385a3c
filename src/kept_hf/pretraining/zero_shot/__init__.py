"""Synthetic prompts, which teach a model to answer from the text before it sees a coded note."""
