"""`labelmill quote`: what a job would cost and how long it would take. It calls nobody and writes nothing.

It lives here because it needs both sides: sources as a submission reads them, and calls as a worker makes them. The
requests that it counts are those that would be sent.
"""
