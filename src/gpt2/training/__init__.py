"""Settings, presets, the trainer and its state, its log, evaluation, ranks."""
