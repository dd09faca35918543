"""The wire: the only room that knows pynetdicom.

A connection meets these modules in this order: `server` accepts it and shakes hands,
`association` reads its PDUs within bounds, `host` asks the plug-ins, `plugins/` decide and
record. `scu` is the other direction. What the plug-ins see is in `context`, what they may
hook into is in `plugin`.
"""
