"""The command `kept-hf`: a module for each of its commands, and the packaged recipes."""
