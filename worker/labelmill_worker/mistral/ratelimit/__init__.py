"""The rate limit that the whole fleet shares, kept in Redis for each model.

`limiter` has a `model_limiter` for each model, which asks it from the event loop, `blocking` one for threads; `limits`
says what binds a model, `reports` is what a process has yet to tell, `reading` what all were told. `lua/` holds what
runs inside Redis, `law` its numbers with their reasons.
"""
