"""Who asks, and may they: user identity (PS3.15 B.4 to B.7) and the access decision.

`claims` holds the types everything else here speaks, `policy` decides what a claim is worth,
`passcodes` verifies type 2 against a users file (`userfile`), `access` and
`certificate_binding` say who may do what. Nothing here knows a socket or pynetdicom.
"""
