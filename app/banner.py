"""What a started gateway tells the person who started it: where it is and what to paste next."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from urllib.parse import quote

from app.config.settings import MEMORY, Settings
from app.domain.uri import DestinationType, MqUri


def banner(settings: Settings, url: str, version: str) -> str:
    """Several lines, ready to paste; `url` is the base URL the gateway listens on."""
    lines = [f"mq-gateway {version} listens on {url}", *_services(settings)]
    example = example_destination(settings)
    if example:
        lines += ["", *_examples(f"{url}{_path(example)}")]
    lines += ["", f"Dashboard: {url}/    API: {url}/docs"]
    return "\n".join(lines)


def example_destination(settings: Settings) -> MqUri | None:
    """The first declared Topic, else the first Queue; None where nothing is declared."""
    for kind in (DestinationType.TOPICS, DestinationType.QUEUES):
        for name, service in settings.services.items():
            declared = service.topics if kind is DestinationType.TOPICS else service.queues
            for destination in declared:
                return MqUri(name, kind, destination)
    return None


def _services(settings: Settings) -> Iterator[str]:
    for name, service in settings.services.items():
        where = ", ".join(f"{host}:{port}" for host, port in service.addresses())
        if service.mq_type == MEMORY:
            where = "in the memory of this process, gone when it ends; --config FILE names a broker"
        yield f"  {name}: {service.mq_type}{f', {where}' if where else ''}"


def _path(uri: MqUri) -> str:
    return "/mq/" + "/".join(quote(part, safe="") for part in (uri.service, uri.type.value, uri.name))


def _examples(resource: str) -> list[str]:
    return [
        "Listen, in another terminal:",
        f"  curl -N {shlex.quote(resource + '/events')}",
        "Publish, in a third one:",
        f"  curl {shlex.quote(resource)} -H 'Content-Type: application/json' -d '{{\"hello\": \"world\"}}'",
    ]
