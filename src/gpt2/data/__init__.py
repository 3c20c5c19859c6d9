"""Where text comes from, and the shards of tokens that training reads."""
