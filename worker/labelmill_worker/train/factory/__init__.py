"""Fine-tuning at Mistral: `steps` is the way in, a small function for each state; the rest is pure, but `tuning`.

What costs money or leaves something behind at Mistral is looked for before it is made: a file by its name, which
carries the training's id, a job by its training file's id.
"""
