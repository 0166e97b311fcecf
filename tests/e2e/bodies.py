"""Bodies that are hard to carry, for publishing here and reading there."""

from __future__ import annotations

import base64

#: Name of the case and the body.
HARD: dict[str, bytes] = {
    "empty": b"",
    "one byte": b"x",
    "one NUL": b"\0",
    "NULs": b"a\0b\0\0",
    "end of a frame": b"x\n\0\n",
    "a STOMP frame": b"\0\nSEND\ndestination:/queue/stolen\n\nboo\0",
    "a STOMP error": b"ERROR\nmessage:x\n\n\0",
    "invalid UTF-8": b"\xff\xfe\x80abc",
    "lone CR": b"a\rdata: forged\r\revent: forged\rid: 99.9\r",
    "CRLF": b"a\r\nb\r\n\r\nc",
    "only line ends": b"\n\n\n",
    "SSE fields": b"event: gap\ndata: {}\nid: 1.1\nretry: 1\n\n",
    "leading space": b" a\n  b\n:c",
    "BOM": b"\xef\xbb\xbfwith a mark",
    "line separators": "a\u2028b\u2029c\x85d\x0be".encode(),
    "beyond the BMP": "\U0001f600 \u00e9\u0301".encode(),
}


def as_event(body: bytes) -> tuple[str, str]:
    """Event name and data under which an EventSource shows a body: its line ends all become LF."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return "binary", base64.b64encode(body).decode()
    return "message", text.replace("\r\n", "\n").replace("\r", "\n")
