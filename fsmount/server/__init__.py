"""The embedded server: the relayfile HTTP API over one SQLite file, with rules that make it fail on request.

A request travels connection -> site -> rules -> routes -> store. Only `connection` and `websocket` speak to a
socket, only `store` and its parts (`listings`, `oplog`, `guards`, `schema`) speak SQL, only `bearers` believes a
token, and only `rules` knows how an answer may be spoilt. `site` holds the table of all routes.
"""
