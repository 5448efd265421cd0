"""How the adapters on Mistral's own SDK send requests. One instance serves every thread of a process.

The SDK is never given a RetryConfig: with one it would POST a job twice. Reads are repeated here a few times; whatever
makes or changes something is sent once, and the caller checks before it sends again. Every request has one
deadline for all of it: the SDK's own time-out is for each read.
"""

from __future__ import annotations

import contextvars
import random
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import httpx2
from mistralai.client import Mistral
from mistralai.client.errors import SDKError

from labelmill.contracts.errors import LabelmillError, MalformedAnswer, RemoteUnavailable
from labelmill.core.settings import Settings
from labelmill_worker.mistral.breaker import CircuitBreaker
from labelmill_worker.mistral.client_config import ClientConfig, read_client_config
from labelmill_worker.mistral.deadline import call_within, cut_late_bodies
from labelmill_worker.mistral.endpoint import usable_key, usable_url
from labelmill_worker.mistral.errors import REMOTE_ERRORS, translate_error
from labelmill_worker.mistral.http_errors import error_for_status
from labelmill_worker.mistral.ratelimit.blocking import fleet_gate, no_gate

Result = TypeVar("Result")
Entry = TypeVar("Entry")

READ_ATTEMPTS = 3  #: Requests for one read, at most; the job's polling schedule takes over after that.
PAGE_SIZE = 100
_statuses: contextvars.ContextVar[list[int]] = contextvars.ContextVar("statuses")  # of the call's answers so far
_MAX_SAID = 10_000  # bytes of what a server says with a refusal
_MAX_PAGES = 10_000  # a server that ignores `page` must not hold a worker for ever


class SdkRequests:
    """`before_request` is called before every request: it waits for, or refuses by raising, what a limit forbids.
    `secrets`: what no error may repeat."""

    def __init__(
        self,
        api_key: str,
        url: str,
        *,
        timeout_s: float = 60,
        secrets: tuple[str, ...] = (),
        before_request: Callable[[], None] = no_gate,
        sleep: Callable[[float], None] = time.sleep,
        rng: random.Random | None = None,
        read_attempts: int = READ_ATTEMPTS,
    ) -> None:
        """Raises UnusableConnection when the environment names no usable way there."""
        self.secrets = tuple(filter(None, (api_key, *secrets)))
        self._before_request = before_request
        self._sleep = sleep
        self._rng = rng or random.Random()
        self._timeout_s = timeout_s
        self._read_attempts = read_attempts
        self._breaker = CircuitBreaker()
        self._url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {api_key}", "Accept": "application/json"}
        self.http = _http_client(read_client_config(url, timeout_s))
        self.sdk = Mistral(api_key=api_key, server_url=self._url, timeout_ms=int(timeout_s * 1000), client=self.http)

    @classmethod
    def from_settings(
        cls, settings: Settings, *, secrets: tuple[str, ...] = (), read_attempts: int = READ_ATTEMPTS
    ) -> SdkRequests:
        """Wire them with the fleet's rate limit. Raises CredentialsRefused when there is no usable key."""
        return cls(
            usable_key(settings),
            usable_url(settings),
            timeout_s=settings.request_timeout_s,
            secrets=secrets,
            before_request=fleet_gate(settings),
            read_attempts=read_attempts,
        )

    def close(self) -> None:
        """Close the connections."""
        self.http.close()

    def once(self, call: Callable[[], Result], longer_s: float = 0.0) -> Result:
        """Send what makes or changes something. `longer_s`: what it may take beyond the time of any request."""
        self._before_request()
        self._breaker.check()  # last: what keeps a probe from being sent would leave it without an outcome
        try:
            answer = self._translated(call, longer_s)
        except LabelmillError as error:
            self._breaker.record(error)
            raise
        except BaseException:
            self._breaker.abandon()
            raise
        self._breaker.record(None)
        return answer

    def read(self, call: Callable[[], Result]) -> Result:
        """Send what changes nothing, and send it again when the answer does not come."""
        for attempt in range(1, self._read_attempts):
            try:
                return self.once(call)
            except (RemoteUnavailable, MalformedAnswer):
                self._sleep(self._rng.uniform(0, 0.25 * 2**attempt))
        return self.once(call)

    def listed(
        self, path: str, decode: Callable[[Mapping[str, Any]], Entry | None], query: Mapping[str, str | int]
    ) -> Iterator[Entry]:
        """Read a list to its end. `decode` makes of an entry what it is, and None of one that is of no use here: it
        alone knows which entries must be readable, for the list holds those of other programs too."""
        seen: set[str] = set()
        for number in range(_MAX_PAGES):
            page = {**query, "page": number, "page_size": PAGE_SIZE}
            entries = self.read(lambda page=page: self._decoded(path, decode, page))  # type: ignore[misc]
            ids = {entry_id for entry_id, _ in entries}
            # A short page is no sign of the end: a server may cap `page_size`, and a job that is overlooked is paid
            # twice. The end is an empty page, or the same page again.
            if ids <= seen:
                return
            yield from (entry for entry_id, entry in entries if entry is not None and entry_id not in seen)
            seen |= ids

    def _decoded(
        self, path: str, decode: Callable[[Mapping[str, Any]], Entry | None], query: Mapping[str, str | int]
    ) -> list[tuple[str, Entry | None]]:
        return [
            (str(entry.get("id")), decode(entry)) if isinstance(entry, Mapping) else (repr(entry), None)
            for entry in self.entries(path, query)
        ]

    def entries(self, path: str, query: Mapping[str, str | int] | None = None) -> list[Any]:
        """A list's entries, or those of a page, as plain JSON: the SDK reads all of a page or nothing of it. To be
        called inside `read`."""
        answer = self.json("GET", path, query=query)
        entries = (answer.get("data") or []) if isinstance(answer, dict) else None
        if not isinstance(entries, list):
            raise MalformedAnswer(f"Mistral's answer holds no list (of {path})")
        return entries

    def json(self, method: str, path: str, body: Any = None, query: Mapping[str, str | int] | None = None) -> Any:
        """The JSON answer of a route that the SDK does not know. To be called inside `once`, `read` and `pages`."""
        response = self.http.request(
            method, self._url + path, json=body, params=query, headers=self._headers, timeout=self._timeout_s
        )
        if response.status_code >= 300:
            raise SDKError("an answer that was not expected", response)  # as the SDK tells of its own routes
        return response.json()

    def open(self, path: str) -> httpx2.Response:
        """GET a path, of whose content nothing is read yet: for a `call` of `read`. The caller closes the response."""
        headers = {**self._headers, "Accept": "*/*"}
        request = self.http.build_request("GET", self._url + path, headers=headers, timeout=self._timeout_s)
        response = self.http.send(request, stream=True)
        if response.status_code == 200:
            return response
        try:
            said = next(response.iter_bytes(_MAX_SAID), b"").decode(errors="replace")
        finally:
            response.close()
        raise error_for_status(response.status_code, said, response.headers.get("retry-after"), self.secrets)

    def parts_of(self, response: httpx2.Response) -> Iterator[bytes]:
        """What an opened response holds, as it arrives. Raises RemoteUnavailable when it breaks off."""
        try:
            yield from response.iter_bytes()
        except REMOTE_ERRORS as error:
            raise translate_error(error, self.secrets) from error

    def _translated(self, call: Callable[[], Result], longer_s: float) -> Result:
        statuses: list[int] = []
        _statuses.set(statuses)
        try:
            return call_within(call, self._timeout_s + longer_s)
        except REMOTE_ERRORS as error:
            # A cause that repeats a key would carry it into the logs.
            telling = any(secret in str(error) for secret in self.secrets)
            raise translate_error(error, self.secrets) from (None if telling else error)
        except LabelmillError:
            raise
        except Exception as error:
            if not statuses:
                raise  # a fault of ours: Mistral has said nothing yet
            raise MalformedAnswer(
                f"Mistral's answer cannot be read (status {statuses[-1]}, {type(error).__name__})"
            ) from None


def _note_status(response: httpx2.Response) -> None:
    """A response hook of httpx2."""
    _statuses.get([]).append(response.status_code)


def _http_client(config: ClientConfig) -> httpx2.Client:
    context = config.authorities.context()
    proxy = None
    if config.proxy is not None:
        auth = None if config.proxy.user is None else (config.proxy.user, config.proxy.password)
        is_tls = config.proxy.url.startswith("https:")
        proxy = httpx2.Proxy(config.proxy.url, auth=auth, ssl_context=context if is_tls else None)

    def name_client(request: httpx2.Request) -> None:
        request.headers["User-Agent"] = config.user_agent  # the SDK makes its own of what it is told

    return httpx2.Client(
        follow_redirects=True,
        event_hooks={"request": [name_client], "response": [_note_status, cut_late_bodies]},
        proxy=proxy,
        verify=context,
        trust_env=False,
    )
