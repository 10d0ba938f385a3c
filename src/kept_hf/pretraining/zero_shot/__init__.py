"""Zero-shot pretraining: prompts about texts, which teach a model to answer from the text before any coded note."""
