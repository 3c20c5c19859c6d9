"""What maintainers run: notebooks and measurements of the runner."""
