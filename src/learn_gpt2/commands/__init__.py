"""One module per `learn` subcommand; each is imported on first use."""
