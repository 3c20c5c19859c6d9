"""What goes into the model: assembling, swapping, undoing, bisecting."""
