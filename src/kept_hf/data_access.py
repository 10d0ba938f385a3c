"""Which data may be published, and with it what was made of them."""

from __future__ import annotations

CREDENTIALED = "PhysioNet Credentialed Health Data License 1.5.0"
"""Licence of data that only people with their own access may have."""
