"""Mistral behind a port, its adapters, and the rate limit that the whole fleet shares."""
