"""From labelled vectors to a head for each target: `fit` is the way in. Pure but for the file of the vectors."""
