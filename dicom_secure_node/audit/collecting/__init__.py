"""An audit record repository: everybody's messages, kept as they came (PS3.15 A.5 to A.7).

``frames`` cuts a stream into messages, ``receivers`` are TLS and UDP, ``inbox`` holds what is not
written yet, ``log`` keeps it, chained, ``index`` finds it again, ``store`` is both as one thing,
``verify`` tells whether anything was changed, ``collector`` runs it all.
"""
