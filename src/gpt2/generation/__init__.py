"""Prompts, streams, batches and speculation."""
