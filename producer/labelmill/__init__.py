"""Labelmill: classify text in bulk with Mistral models.

from labelmill import Client
batch = Client().classify("texts.jsonl", model="intents")
batch.wait()
for row in batch.results():
    print(row["id"], row["predictions"]["intent"]["label"])
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from labelmill.async_client import AsyncClient
    from labelmill.client import Client

__all__ = ["AsyncClient", "Client", "__version__"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # `import labelmill` stays instant: the worker imports `labelmill.contracts` through here
    if name == "Client":
        from labelmill.client import Client  # noqa: PLC0415 - see above

        return Client
    if name == "AsyncClient":
        from labelmill.async_client import AsyncClient  # noqa: PLC0415 - as above

        return AsyncClient
    raise AttributeError(name)
