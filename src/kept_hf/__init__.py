"""kept-hf."""
