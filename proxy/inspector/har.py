"""A recorded call as HAR 1.2: both its sides as requests of one page, for the tools that read such archives.

Source: SOURCES#har.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Any, Final

from proxy.inspector.call_file import answer_of, answered_of, decoded

Json = dict[str, Any]
# What the form asks for and nobody has measured.
UNKNOWN: Final = -1
PAGE: Final = "call"


def har_of(document: Mapping[str, Any], version: str) -> Json:
    """The archive of one call.

    version: of the program that writes it
    """
    began = datetime.fromisoformat(document["at"])
    page = {
        "startedDateTime": document["at"],
        "id": PAGE,
        "title": f"{document['caller']['method']} {document['caller']['path']}",
        "pageTimings": {"onLoad": document["ended_ms"] or UNKNOWN},
    }
    return {
        "log": {
            "version": "1.2",
            "creator": {"name": "dashseek", "version": version},
            "pages": [page],
            "entries": [_caller(document, began), *_upstream(document, began)],
        }
    }


def _caller(document: Mapping[str, Any], began: datetime) -> Json:
    caller, packets = document["caller"], document["packets"]
    body = answer_of(document)
    status, content_type = answered_of(document)
    ended = document["ended_ms"] or 0.0
    first = packets[0]["at_ms"] if packets else ended
    asked = _request(caller["method"], f"http://dashseek{caller['path']}", caller["headers"], decoded(caller["body"]))
    answer = _response(status, content_type, body)
    return _entry(began, asked, answer, waited=first, received=max(0.0, ended - first))


def _upstream(document: Mapping[str, Any], began: datetime) -> Iterator[Json]:
    for call in document["upstream"]:
        asked_ms, answered, ended = call["asked_ms"], call["answered_ms"], call["ended_ms"]
        body = b"".join(decoded(read) for read in call["reads"])
        asked = _request("POST", call["target"] + call["path"], call["headers"], decoded(call["body"]))
        answer = _response(call["status"], call["content_type"], body)
        waited = UNKNOWN if answered is None else answered - asked_ms
        received = UNKNOWN if answered is None or ended is None else ended - answered
        yield _entry(began + timedelta(milliseconds=asked_ms), asked, answer, waited=waited, received=received)


def _entry(at: datetime, asked: Json, answer: Json, *, waited: float, received: float) -> Json:
    return {
        "pageref": PAGE,
        "startedDateTime": at.isoformat(timespec="milliseconds"),
        "time": max(0.0, waited) + max(0.0, received),
        "request": asked,
        "response": answer,
        "cache": {},
        "timings": {"send": 0, "wait": waited, "receive": received},
    }


def _request(method: str, url: str, headers: Mapping[str, str], body: bytes) -> Json:
    return {
        "method": method,
        "url": url,
        "httpVersion": "HTTP/1.1",
        "cookies": [],
        "headers": _headers(headers),
        "queryString": [],
        "postData": {"mimeType": "application/json", "text": body.decode("utf-8", "replace")},
        "headersSize": UNKNOWN,
        "bodySize": len(body),
    }


def _response(status: int, content_type: str, body: bytes) -> Json:
    known = {one.value: one.phrase for one in HTTPStatus}
    return {
        "status": status,
        "statusText": known.get(status, ""),
        "httpVersion": "HTTP/1.1",
        "cookies": [],
        "headers": _headers({"Content-Type": content_type} if content_type else {}),
        "content": {"size": len(body), "mimeType": content_type, "text": body.decode("utf-8", "replace")},
        "redirectURL": "",
        "headersSize": UNKNOWN,
        "bodySize": len(body),
    }


def _headers(headers: Mapping[str, str]) -> list[Json]:
    return [{"name": name, "value": value} for name, value in headers.items()]
