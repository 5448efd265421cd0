"""A client of the retired fine-tuning routes, as the SDK had one: the same methods, and answers with attributes."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import httpx2
from mistralai.client.errors import SDKError


class FineTuningClient:
    """Raises the SDK's own error for an answer that is not a success."""

    def __init__(self, url: str, key: str = "any") -> None:
        self._jobs = f"{url}/v1/fine_tuning/jobs"
        self._headers = {"Authorization": f"Bearer {key}"}

    def create(self, **body: Any) -> Any:
        return self._ask("POST", "", json=body)

    def list(self, **query: Any) -> Any:
        return self._ask("GET", "", params=query)

    def get(self, job_id: str) -> Any:
        return self._ask("GET", f"/{job_id}")

    def start(self, job_id: str) -> Any:
        return self._ask("POST", f"/{job_id}/start")

    def cancel(self, job_id: str) -> Any:
        return self._ask("POST", f"/{job_id}/cancel")

    def _ask(self, method: str, path: str, **options: Any) -> Any:
        answer = httpx2.request(method, self._jobs + path, headers=self._headers, **options)
        if answer.status_code >= 300:
            raise SDKError("refused", answer)
        return json.loads(answer.content, object_hook=lambda fields: SimpleNamespace(**fields))
