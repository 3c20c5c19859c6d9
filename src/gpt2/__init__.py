"""A GPT-2 to read and to run: `gpt2.model` is the model, the rest generates, trains and loads."""
