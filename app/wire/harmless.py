"""Headers by which nothing that is answered runs in a browser, is embedded by another site, or is guessed about."""

from __future__ import annotations

# No sniffing: a message's body must never run as a page of our origin. No page of another site embeds what is here
# (Fetch, section 3.7); with CORS those on the allow-list read it all the same.
_ALWAYS = (
    (b"x-content-type-options", b"nosniff"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
#: Of pages, which bring a policy of their own (CSP Level 3).
OF_PAGES: tuple[tuple[bytes, bytes], ...] = _ALWAYS
#: Of what the gateway itself says, which is no page: nobody frames it.
OF_DATA: tuple[tuple[bytes, bytes], ...] = (*_ALWAYS, (b"content-security-policy", b"frame-ancestors 'none'"))
#: Of what somebody else wrote: opened as a document it has no script, no frame around it and nothing of our origin.
OF_MESSAGES: tuple[tuple[bytes, bytes], ...] = (
    *_ALWAYS,
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'; sandbox"),
)
