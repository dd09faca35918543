"""Pages that show the audit record repository to people, and change nothing in it.

``question`` is what a URL asks for, ``finding`` the records that answer it, ``message`` explains
one of them, ``plot`` draws counts, ``export`` writes CSV and NDJSON, ``showing`` makes HTML of it.
``guard``, ``sessions`` and ``entry`` decide who gets anything at all, ``reporting`` tells the
repository who looked (PS3.15 A.5.3.2), ``application`` is the pages, ``building`` puts the parts
together and ``server`` runs them. Needs the extra ``audit-web``.
"""
