"""The embedded server: the relayfile HTTP API over one SQLite file, with rules that make it fail on request.

A request travels connection -> site -> rules -> routes -> store. Only `connection` speaks HTTP, only
`store` speaks SQL, and only `rules` knows how an answer may be spoilt.
"""
