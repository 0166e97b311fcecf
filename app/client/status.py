"""What a gateway says of its services (HTTP contract, section 4), as it is and for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import httpx

from app.client.connection import ClientError, Target, parse_object, printable, read_answer, refusal, unreachable
from app.client.output import table

#: Seconds to wait for bytes of the answer: nothing that is asked waits for a broker.
ANSWER_SECONDS = 15.0
#: Bytes of an answer: of ten thousand destinations.
MAX_STATUS_BYTES = 16 << 20

_SERVICES = ("SERVICE", "LINK", "CONNECTIONS", "BROKER", "ADDRESS", "SINCE")
_COUNTS = ("readers", "leases", "published", "delivered", "gaps")


def fetch(target: Target, service: str | None) -> dict[str, Any]:
    """All services, or one, as the gateway answers; raises ClientError."""
    with target.open(ANSWER_SECONDS) as client:
        try:
            with client.stream("GET", target.status(service)) as response:
                body = read_answer(response, MAX_STATUS_BYTES)
        except httpx.TransportError as error:
            raise unreachable(target, error) from None
    if not response.is_success:
        raise refusal(response, body)
    answer = parse_object(body)
    if ("services" if service is None else "destinations") not in answer:
        raise ClientError(f"{response.status_code}: not an answer of mq-gateway")
    return answer


def in_words(answer: Mapping[str, Any]) -> str:
    """For people: services with what is wrong with them, of a single one also its destinations."""
    if "services" not in answer:
        return "\n".join([*_services([answer]), *_destinations(answer)])
    state = "draining" if answer.get("draining") else f"since {_text(answer.get('started_at'))}"
    head = f"mq-gateway {_text(answer.get('version'))}, instance {_text(answer.get('instance'))}, {state}"
    return "\n".join([head, *_services(answer["services"])])


def _services(services: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if services:
        yield table([_SERVICES, *map(_service, services)])
    for each in services:
        error = each.get("last_error")
        if error and each.get("link") != "up":
            words = (_text(each.get("service")), _text(error.get("code")), _text(error.get("detail")))
            again = each.get("next_attempt_at")
            yield ": ".join(words) + (f"; tried again at {_text(again)}" if again else "")


def _service(view: Mapping[str, Any]) -> tuple[str, ...]:
    connections = view.get("connections") or {}
    up_of = f"{_text(connections.get('up'))} of {_text(connections.get('of'))}"
    broker, address, since = (_text(view.get(name)) for name in ("broker", "address", "since"))
    return _text(view.get("service")), _text(view.get("link")), up_of, broker, address, since


def _destinations(view: Mapping[str, Any]) -> Iterator[str]:
    rows = [
        (
            _text(each.get("mq_uri")) + (" (quarantined)" if each.get("quarantined") else ""),
            *(_text(each.get(name)) for name in _COUNTS),
        )
        for each in view["destinations"]
    ]
    if rows:
        yield "\n" + table([("DESTINATION", *(name.upper() for name in _COUNTS)), *rows])
    omitted = view.get("destinations_omitted")
    if omitted:
        yield f"{_text(omitted)} more in use are not shown"


def _text(value: object) -> str:
    """What another machine says, on one line; a dash for nothing."""
    return "-" if value is None or value == "" else printable(str(value))
