"""A ``ssl_context`` hook with wishes of its own: nothing before TLS 1.3, and HTTP/2, which is not served here."""

import ssl


def ssl_context(config, default_ssl_context_factory):
    context = default_ssl_context_factory()
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context
