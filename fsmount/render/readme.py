"""``.relay/README`` and the two files that keep git and backup tools out.

Invariant: who knows nothing but the README can see and settle everything that this tree shows.
"""

from __future__ import annotations

README = """\
.relay/ shows what this mount still has to deliver and what failed, and settles
it with cat, mv and echo. A change is an op: safe on this disk when close()
returns, sent soon after. The commands below are given here (cd .relay), hints
are for the mount's root. fsmount --help: the same, also without a mount.

status       the mount, one screen       pending/OP.json      waits or is sent
status.json  the same for programs       dead-letter/OP.json  gave up; see hint
state.json   the same for relayfile      held/OP.json         of a mass delete
metrics      the same for Prometheus     discarded/OP.json    given up, replaced
config.json  the options in force        content/OP           the bytes of an op
log events   what happened; as NDJSON    conflict/OP/         base, mine, theirs
problems     what is not shown as it is  README .gitignore CACHEDIR.TAG

mv is the verb; when it returns 0 it is done and outlives a crash:
  mv dead-letter/OP.json retry/       try again; all of them: dead-letter/*.json
  mv dead-letter/OP.json discarded/   give up; from pending/ too
  mv discarded/OP.json retry/         send it after all
  mv held/* retry/                    let a mass delete go
  mv held/* discarded/                undo it: the files come back
A conflict: look at conflict/OP/theirs and conflict/OP/mine, then
  mv dead-letter/OP.json discarded/   theirs stays
  mv dead-letter/OP.json force/       mine wins (after remote-deleted too)
  setfattr -n user.relay.base -v theirs ../FILE   then save the merged file
A refused mv: EBUSY being sent, or its path has a newer op; ENOENT gone, mostly
delivered; EPERM no such verb (nor rm, nor editing). See verb.refused in log.

  echo retry github > ctl    every dead letter below /github, a "provider"
  other commands: retry all, release held, discard held, pause, resume, flush
  (send now), refresh PATH, purge OP; EINVAL: not a command, see log
  sync .                     waits for what is queued now: 0 delivered, EIO one
                             gave up now (older dead letters do not count),
                             ETIMEDOUT; fsmount wait tells more
  getfattr -n user.relay.state ../FILE   clean draft pending sending dead-letter
                             conflict held local; user.relay.op names its op
  jq -r .health status.json  ok busy; offline, paused (by ctl); failing: settle
                             dead-letter/ and held/; auth: renew the credential
  tail -F events             op.queued op.sending op.retrying op.acknowledged
    op.dead op.held op.discarded op.superseded remote.changed remote.deleted
    connection credential mount; with seq, at, event, and of an op opId, path
"""

GITIGNORE = "*\n"

CACHEDIR_TAG = """\
Signature: 8a477f597d28d172789f06886806bc55
# Nothing below this directory is stored: it shows the state of an fsmount mount.
# For the meaning of this file see https://bford.info/cachedir/
"""
