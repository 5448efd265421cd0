"""What a model version keeps: a linear head (`head`), examples to show (`example_pool`), a prompt (`prompt`), and the
files of the first two (`artifacts`)."""
