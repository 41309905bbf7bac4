"""What every connection needs, whatever it speaks: the peer, scopes, fields, flow, files, TLS."""
