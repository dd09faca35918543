"""Certificates, keys and lists of the revoked: reading them, and a small authority for labs.

`credential` is who we are, `trust` whom we believe, `names` and `describe` what a certificate
says, `authority` a local CA, `signers` the keys of digital signatures, in files or tokens, `files`
the reading of PEM, DER and PKCS#12. `paths` judges the certificate of somebody who signed,
`timestamps` asks for time stamps and judges them. The path of a peer that connects is validated
in the handshake (`dicom_secure_node.tls`), not here.
"""
