"""The JSON of the relayfile protocol, shared by client and server; holds shapes only, no behaviour."""
