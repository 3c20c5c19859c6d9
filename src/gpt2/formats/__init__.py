"""From a name to settings, tensors and a tokenizer, and back: Hugging Face folders and GGUF."""
