"""A stand-in for the Mistral API, for development, demos and tests. It is not Mistral.

It answers over HTTP as the real SDK expects, so that production and tests differ by URL alone; its models are
small scikit-learn classifiers, so its accuracy, speed and prices say nothing about Mistral's.

Calls go `server -> routes_* -> jobs, classifier, embedding -> store`; start reading in `server.py`. `command.py`
serves it from the command line.
"""
