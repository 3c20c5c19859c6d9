"""`python -m learn_gpt2` is `learn`."""

from learn_gpt2.cli import main

if __name__ == "__main__":
    main()
