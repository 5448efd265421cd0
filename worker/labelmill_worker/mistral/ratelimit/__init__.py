"""The rate limit that the whole fleet shares, kept in Redis: `limiter` asks it from the event loop, `blocking` from a
thread."""
