"""The rate limit that the whole fleet shares, kept in Redis for each model.

`limiter` asks it from the event loop, `blocking` from a thread; `limits` says what binds a model. `lua/` holds what
runs inside Redis, `law` its numbers with their reasons.
"""
