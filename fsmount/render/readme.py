"""``.relay/README`` and the two files that keep git and backup tools out.

Invariant: they name only what this version's tree has.
"""

from __future__ import annotations

README = """\
.relay/ shows what this mount still has to deliver, what failed, and lets you act on it.
Writes are queued on this disk, then sent. close() = queued safely; fsmount wait = delivered.

  status            the mount on one screen, for a person
  status.json       the same for programs: health, queue, deadLetters, lastErrorByProvider
  state.json        the same with the members that relayfile's tools know
  pending/          ops (one change to one file each) that wait or are being sent
  dead-letter/      ops that gave up; each OP.json says why, and in "hint" what to do
  discarded/        ops given up, replaced by a later save, or cancelled
  content/OP        the bytes of an op
  log               what happened, a line each: AT LEVEL EVENT OP PATH message

mv is the only gesture; when it returns 0 it is done and survives a crash. From this directory:
  mv dead-letter/OP.json retry/       try it again (also: mv discarded/OP.json retry/)
  mv dead-letter/*.json retry/        try all of them again
  mv dead-letter/OP.json discarded/   give it up (also: mv pending/OP.json discarded/)
  cp content/OP ../FILE               save its bytes as a new change
A refused mv says why in log: "Device or resource busy" means being sent, or a newer op on the file.

  jq -r .health status.json           ok busy failing offline auth: act on failing and auth
  jq -r '"\\(.path) \\(.reason) \\(.hint)"' dead-letter/*.json
Nothing here can be created, edited or removed otherwise; reading never waits for the remote.
"""

GITIGNORE = "*\n"

CACHEDIR_TAG = """\
Signature: 8a477f597d28d172789f06886806bc55
# Nothing below this directory is stored: it shows the state of an fsmount mount.
# For the meaning of this file see https://bford.info/cachedir/
"""
