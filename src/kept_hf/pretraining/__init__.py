"""What a model learns before coded notes: names (HSAP), notes (masked LM), answering prompts (zero-shot)."""
