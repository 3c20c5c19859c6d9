"""pytest starts here; what it needs to know about the course is in learn_gpt2.pytest_plugin."""

pytest_plugins = ["learn_gpt2.pytest_plugin"]
