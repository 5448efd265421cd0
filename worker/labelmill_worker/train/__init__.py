"""Training at Mistral, as a row of short looks.

`look` is the way in: it claims a training, takes its next steps and says when to look again. `steps` holds one small
function per state; `remote` and `pace` are pure. Calls go look → steps → the port (`mistral.port`) and the store.

Every step can be repeated: what costs money or leaves something behind at Mistral is looked for before it is made, a
file by its name (which carries the training's id), a job by its training file's id. A job in which nothing changes
for 24 hours is cancelled and counts as failed (`pace.NO_CHANGE_LIMIT_S`).
"""
