"""A server of S3's protocol in this process, for one key. Requests can be refused, cut short, counted and held."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

import boto3
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.wrappers import Request, Response

from labelmill.core.storage.remote import S3Options

KEY, SECRET = "KEYOFTHETESTS", "secret of the tests/+="
READER = "KEYTHATONLYREADS"
BUCKET = "bucket"

_ERROR = '<?xml version="1.0"?><Error><Code>{code}</Code><Message>refused</Message></Error>'


class _Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002 - werkzeug's name
        """Nothing is of interest."""


class S3Server:
    """`requests`: method and path of each. `holds`: requests that it takes wait until `release` is set.

    `fault`: what is wrong with the answer to a request: a status and a code in its place, `empty` for one without its
    body, `cut` for one that ends in the middle.
    """

    def __init__(self) -> None:
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True, request_handler=_Quiet)
        self._thread = threading.Thread(target=self._server.serve_forever, name="s3", daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.requests: list[str] = []
        self.holds: Callable[[str], bool] = lambda _: False
        self.fault: Callable[[Request], tuple[int, str] | str | None] = lambda _: None
        self.is_holding = threading.Event()
        self.release = threading.Event()
        self._thread.start()
        self.api: Any = boto3.client(
            "s3", endpoint_url=self.url, aws_access_key_id=KEY, aws_secret_access_key=SECRET, region_name="us-east-1"
        )
        self.empty()

    def empty(self) -> None:
        """A bucket without anything in it."""
        self.holds = lambda _: False
        self.fault = lambda _: None
        self.release.set()
        self.is_holding.clear()
        for bucket in [found["Name"] for found in self.api.list_buckets()["Buckets"]]:
            for upload in self.uploads(bucket):
                self.api.abort_multipart_upload(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
            for key in self.keys(bucket=bucket):
                self.api.delete_object(Bucket=bucket, Key=key)
        self.api.create_bucket(Bucket=BUCKET)
        self.release.clear()
        self.requests.clear()

    def options(self, key: str = KEY, secret: str = SECRET) -> S3Options:
        return S3Options(key, secret, endpoint_url=self.url, region="us-east-1")

    def environment(self) -> dict[str, str]:
        """For processes that use the server."""
        return {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_ENDPOINT_URL": self.url,
            "AWS_REGION": "us-east-1",
        }

    def keys(self, prefix: str = "", bucket: str = BUCKET) -> list[str]:
        return [found["Key"] for found in self.api.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", ())]

    def uploads(self, bucket: str = BUCKET) -> list[dict[str, Any]]:
        """Those that are not completed."""
        return list(self.api.list_multipart_uploads(Bucket=bucket).get("Uploads", ()))

    def put(self, key: str, content: bytes) -> None:
        self.api.put_object(Bucket=BUCKET, Key=key, Body=content)

    def get(self, key: str) -> bytes:
        return bytes(self.api.get_object(Bucket=BUCKET, Key=key)["Body"].read())

    def stop(self) -> None:
        self.release.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        line = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}?{environ['QUERY_STRING']}"
        self.requests.append(line)
        authorization = environ.get("HTTP_AUTHORIZATION", "")
        code = "InvalidAccessKeyId"
        if f"Credential={KEY}/" in authorization:
            code = ""
        elif f"Credential={READER}/" in authorization:
            code = "" if environ["REQUEST_METHOD"] in ("GET", "HEAD") else "AccessDenied"
        if code:
            return _refuse(environ, start_response, 403, code)
        fault = self.fault(Request(environ))
        if isinstance(fault, tuple):
            return _refuse(environ, start_response, *fault)
        if self.holds(line):
            self.is_holding.set()
            self.release.wait(60)
        if fault is not None:
            return self._shortened(environ, start_response, fault)
        answer: Iterable[bytes] = self._moto(environ, start_response)
        return answer

    def _shortened(self, environ: dict[str, Any], start_response: Any, fault: str) -> Iterable[bytes]:
        whole = Response.from_app(self._moto, environ, buffered=True)
        content = whole.get_data()
        given = b"" if fault == "empty" else content[: len(content) // 2]
        headers = [header for header in whole.headers.to_wsgi_list() if header[0] != "Content-Length"]
        length = len(given if fault == "empty" else content)
        start_response(whole.status, [*headers, ("Content-Length", str(length)), ("Connection", "close")])
        return [given]


def _refuse(environ: dict[str, Any], start_response: Any, status: int, code: str) -> Iterable[bytes]:
    body = b"" if environ["REQUEST_METHOD"] == "HEAD" else _ERROR.format(code=code).encode()
    environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    start_response(f"{status} No", [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
    return [body]
