"""Who asks, and what there is to be allowed: values only, how anybody is recognised is elsewhere."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from app.domain.uri import SEPARATOR

#: The word for whoever shows no credentials; nobody else can be called so.
ANONYMOUS_NAME = "anonymous"
#: Bytes of a name.
MAX_NAME_BYTES = 255
#: What a word of a policy begins with that is no name, or not only one.
PREFIXES = ("group:", "claim:", "token:", "jwt:", "certificate:")

_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f/*\u2028\u2029]|::")


class Verb(StrEnum):
    """What a policy allows. `take` is to consume from a Queue or durable subscription, `look` to see what is there."""

    PUBLISH = "publish"
    SUBSCRIBE = "subscribe"
    TAKE = "take"
    LOOK = "look"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, weakref_slot=True)
class Principal:
    """Somebody who was recognised. Compares by identity: two credentials of one name are two values.

    `way` is how: `token`, `jwt`, `certificate`, or empty for nobody in particular. `label` is the name by which limits,
    idempotency and logs know it. `until` (Unix time in seconds) is the end of its credential, None where it has none;
    `credential` tells one credential from another, and is no secret; `session` is the id of the browser's session it
    was recognised by, if any.
    """

    name: str
    way: str = ""
    label: str = ""
    groups: frozenset[str] = frozenset()
    claims: Mapping[str, Any] = field(default_factory=dict)
    until: float | None = None
    credential: str = ""
    session: str = ""

    @property
    def is_anonymous(self) -> bool:
        return not self.way


#: Whoever shows no credentials.
ANONYMOUS = Principal(name=ANONYMOUS_NAME, label=ANONYMOUS_NAME)


def check_principal(name: str) -> str:
    """The name if a policy can speak of it without doubt; raises ValueError with the rule.

    1-255 bytes without control characters, `/`, `*` or `::` (it is put into patterns of mqURIs), none of the words a
    policy has for others.
    """
    if not 0 < len(name.encode(errors="surrogatepass")) <= MAX_NAME_BYTES:
        raise ValueError(f"a principal has 1 to {MAX_NAME_BYTES} bytes")
    if _FORBIDDEN.search(name) or not name.isprintable() or name != name.strip():
        raise ValueError(f"a principal has no control characters, no space at its ends, and none of / * {SEPARATOR}")
    if name == ANONYMOUS_NAME or name.startswith(PREFIXES):
        raise ValueError(f"a principal is not called {ANONYMOUS_NAME}, and does not begin with {', '.join(PREFIXES)}")
    return name
