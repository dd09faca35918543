"""PS3.15 Annex B transport profiles over one TLS engine (pyOpenSSL).

`profiles` is what the standard says, `context` turns a profile with credentials and trust into
something pynetdicom takes for an ``ssl.SSLContext``, `socket` is what that wraps, `facts` is
what is known once hands are shaken, and `reload` picks up changed files.
"""
