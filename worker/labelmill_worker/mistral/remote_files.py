"""Files of one purpose at Mistral: uploaded for the key's owner alone and for a limited time, found, deleted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from mistralai.client.models import File, FileSchema

from labelmill.contracts.errors import InvalidInput, RemoteFailed
from labelmill_worker.mistral.decoding import file_of
from labelmill_worker.mistral.sdk_requests import SdkRequests
from labelmill_worker.ports.control_plane import RemoteFile

UPLOAD_BYTES_PER_S = 100_000  #: An upload may take so much longer than other requests.


class RemoteFiles:
    """`purpose`: what Mistral takes the files for."""

    def __init__(self, requests: SdkRequests, purpose: Literal["fine-tune", "batch"]) -> None:
        self._requests, self._purpose = requests, purpose
        self._files = requests.sdk.files  # the SDK imports it on first use: here no two threads do it at once

    def upload(self, path: Path, name: str, expiry_hours: int) -> str:
        """Upload a JSONL file under `name`. Returns its id. Raises InvalidInput when the file cannot be read."""
        try:
            with path.open("rb") as content:
                file = File(file_name=name, content=content, content_type="application/jsonl")
                longer_s = path.stat().st_size / UPLOAD_BYTES_PER_S
                upload = self._requests.once(
                    lambda: self._files.upload(
                        file=file, purpose=self._purpose, expiry=expiry_hours, visibility="user"
                    ),
                    longer_s,
                )
                return file_of(upload).id
        except OSError as error:
            raise InvalidInput(f"the file {path.name} cannot be read: {error.strerror}") from error

    def find(self, name: str) -> list[RemoteFile]:
        """Files of exactly that name."""
        return self._found(name, lambda found: found == name)

    def find_beginning_with(self, beginning: str) -> list[RemoteFile]:
        """Files whose names begin so."""
        return self._found(beginning, lambda found: found.startswith(beginning))

    def delete(self, file_id: str) -> None:
        """Delete a file; nothing happens when it is gone already."""
        try:
            self._requests.once(lambda: self._files.delete(file_id=file_id))
        except RemoteFailed:
            return  # gone already: what was asked for

    def _found(self, part_of_name: str, is_meant: Callable[[str], bool]) -> list[RemoteFile]:
        def decode(entry: Mapping[str, Any]) -> RemoteFile | None:
            name = entry.get("filename")
            return file_of(FileSchema.model_validate(entry)) if isinstance(name, str) and is_meant(name) else None

        return list(self._requests.listed("/v1/files", decode, {"search": part_of_name, "purpose": self._purpose}))
