"""A batch on its way into SQL, and back out of it.

`writer` cuts rows into chunks and writes them; `distinct` tells it which texts were there before; `encoding` makes of a
cut chunk what is kept, in the form that `codec` defines and every reader takes apart.
"""
