"""Tokenizers, and how one is trained."""
