"""The one source of the version; setup.cfg and the model cards read it."""

__version__ = "0.1.0.dev0"
