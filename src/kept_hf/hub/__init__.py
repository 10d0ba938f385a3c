"""Publishing: what goes to the Hub, what never does, and the cards."""
