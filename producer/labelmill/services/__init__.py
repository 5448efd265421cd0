"""Everything that a caller can request, a module or a folder for each kind of resource: `datasets`, `trainings`,
`batches`, `evaluations`, `models`, `jobs`, `results`. The command line and the Python clients translate to it.

A service takes `(context, request)`: the caller and its connections (`context`), and a frozen request. It returns
a frozen result or a document of `contracts/documents/`. A submission is accepted first, which writes it to SQL, and
started then, which sends its messages (`submissions/accepted`). Functions that take a connection are parts of services.
"""
