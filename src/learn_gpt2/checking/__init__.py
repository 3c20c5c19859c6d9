"""Checks, diagnosis, and running a check apart from the rest."""
