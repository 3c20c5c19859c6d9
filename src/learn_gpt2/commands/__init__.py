"""One module per `learn` subcommand; each is imported when it is asked for."""
