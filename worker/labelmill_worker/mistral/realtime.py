"""The calls that carry texts, on pyreqwest and orjson: a twentieth of the SDK's CPU time a call.

A conformance test holds what this reads to what the SDK decodes.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

import orjson
from pyreqwest.client import Client, ClientBuilder
from pyreqwest.exceptions import BuilderError, ConnectError, ConnectTimeoutError, PoolTimeoutError, PyreqwestError
from pyreqwest.http import Url
from pyreqwest.proxy import ProxyBuilder
from pyreqwest.response import Response

from labelmill.contracts.errors import MalformedAnswer, RemoteUnavailable, RequestRefused, Unanswered
from labelmill.core.settings import Settings
from labelmill_worker.mistral.client_config import (
    ClientConfig,
    proxy_refuses_credentials,
    read_client_config,
    unknown_authority,
)
from labelmill_worker.mistral.endpoint import usable_key, usable_url
from labelmill_worker.mistral.limit_headers import read_limits
from labelmill_worker.mistral.refused_fields import RefusalStore, RefusedFields
from labelmill_worker.mistral.replies import read_reply
from labelmill_worker.ports.inference import Call, Endpoint, Reply

MAX_ANSWER_BYTES = 1 << 26  #: Several times what the vectors of the largest request take.
#: The request was not sent: nothing is paid for.
_UNSENT = (BuilderError, ConnectError, ConnectTimeoutError, PoolTimeoutError)


class RealtimeInference:
    """An `Inference` that sends a call and waits for its reply. Belongs to one event loop."""

    def __init__(self, base_url: str, api_key: str, *, timeout_s: float, refusals: RefusalStore | None = None) -> None:
        """`refusals`: where it is kept which fields a model refuses. Raises UnusableConnection when the environment
        names no usable way there."""
        base = base_url.rstrip("/")
        self._urls = {endpoint: Url(base + endpoint) for endpoint in Endpoint}  # parsed once, not for every call
        self._key = api_key
        self._refused_fields = RefusedFields(refusals)
        self._config = read_client_config(base, timeout_s)
        self._client: Client | None = None

    @classmethod
    def from_settings(cls, settings: Settings, refusals: RefusalStore | None = None) -> RealtimeInference:
        """Raises CredentialsRefused without a key, InvalidInput without an address."""
        timeout_s = settings.request_timeout_s
        return cls(usable_url(settings), usable_key(settings), timeout_s=timeout_s, refusals=refusals)

    async def send(self, call: Call) -> Reply:
        refused = self._refused_fields
        if not refused.knows(call.model):
            await asyncio.to_thread(refused.of, call.model)  # once in a process: it may ask the database
        body = refused.body_of(call)
        try:
            request = self._opened().post(self._urls[call.endpoint]).body_bytes(orjson.dumps(body))
            async with request.build_streamed() as response:
                payload = memoryview(await response.body_reader.read(MAX_ANSWER_BYTES + 1) or b"")
        except TimeoutError as error:
            raise _fault_of(error)(f"Mistral did not answer within {self._config.timeout_s:g} s") from error
        except (PyreqwestError, OSError) as error:
            cause = _cause(error)
            if "UnknownIssuer" in cause:
                raise unknown_authority(cause) from error
            if "proxy auth" in cause:
                raise proxy_refuses_credentials() from error
            raise _fault_of(error)(f"Mistral cannot be reached: {cause}") from error
        if len(payload) > MAX_ANSWER_BYTES:
            raise MalformedAnswer(f"Mistral's answer is longer than {MAX_ANSWER_BYTES:,} bytes")
        retry_after = None if response.status == 200 else _retry_after(response)
        try:
            limits = read_limits(response.get_header)
            return read_reply(response.status, payload, retry_after, [self._key], limits, call.decode)
        except RequestRefused as error:
            of_field = await asyncio.to_thread(refused.refusal, call.model, body, error)
            if of_field is not None:
                raise of_field from error
            raise

    async def close(self) -> None:
        """End the connections; calls under way raise RemoteUnavailable."""
        if self._client is not None:
            await self._client.close()

    def _opened(self) -> Client:
        if self._client is None:
            headers = {
                "Authorization": f"Bearer {self._key}",
                "Content-Type": "application/json",
                "Accept": "application/json",
            }
            self._client = _builder(self._config).default_headers(headers).build()
        return self._client


def _builder(config: ClientConfig) -> ClientBuilder:
    builder = ClientBuilder().no_proxy()  # of those that it would read from the environment
    if config.proxy is not None:
        proxy = ProxyBuilder.all(config.proxy.url)
        if config.proxy.user is not None:
            proxy = proxy.basic_auth(config.proxy.user, config.proxy.password)
        builder = builder.proxy(proxy)
    for certificate in config.authorities.certificates:
        builder = builder.add_root_certificate_der(certificate)
    return (
        builder.user_agent(config.user_agent)
        .follow_redirects(enable=False)
        .connect_timeout(timedelta(seconds=config.connect_timeout_s))
        .timeout(timedelta(seconds=config.timeout_s))
        .pool_idle_timeout(timedelta(seconds=30))
    )


def _fault_of(error: Exception) -> type[RemoteUnavailable]:
    return RemoteUnavailable if isinstance(error, _UNSENT) else Unanswered


def _cause(error: Exception) -> str:
    """The innermost cause, such as a certificate that this machine does not know; it names neither address nor key."""
    details = getattr(error, "details", None)
    causes = details.get("causes") if isinstance(details, dict) else None
    return str(causes[-1]["message"]) if causes else type(error).__name__


def _retry_after(response: Response) -> str | None:
    try:
        return response.get_header("Retry-After")
    except ValueError:  # bytes that are not text
        return None
