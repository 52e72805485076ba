-- The audit: a chain of hashes. A row is never updated; the oldest are removed when there are too many, and `audit_cut` in the
-- settings says up to where, and with which hash. `audit_head` says where it ends.

CREATE TABLE audit (
    number INTEGER PRIMARY KEY,
    at_unix_ms INTEGER NOT NULL,
    who TEXT NOT NULL,
    origin TEXT NOT NULL,
    action TEXT NOT NULL,
    what TEXT NOT NULL,
    outcome TEXT NOT NULL, -- done, refused or failed
    cause TEXT NOT NULL,
    hash TEXT NOT NULL
) STRICT;
