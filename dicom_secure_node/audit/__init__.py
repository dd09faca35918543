"""The audit trail of PS3.15 A.5 to A.7: messages, their check, the journal and the senders.

`messages` says what is reported and `suppress` what is not, `trail` keeps it and delivers it,
`syslog` and `transport` are the way there, `validate` judges any message, `limiter` tames floods
of alerts.
"""
