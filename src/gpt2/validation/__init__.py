"""Twelve stages of a forward pass, compared with independent oracles."""
