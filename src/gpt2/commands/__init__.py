"""One file per subcommand of `gpt2`; `gpt2.cli.COMMANDS` lists them."""
