"""Engines that make a model decode fast."""
