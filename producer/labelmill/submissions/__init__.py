"""How work gets in: a module for each kind of job checks what was asked, writes it to SQL and sends its messages."""
