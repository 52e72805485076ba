-- Scopes of users, API tokens, and drafts.

-- A selector; NULL: the whole fleet.
ALTER TABLE users ADD COLUMN scope TEXT;

CREATE TABLE api_tokens (
    id TEXT PRIMARY KEY,
    hash BLOB NOT NULL UNIQUE, -- of the token, which is kept nowhere
    name TEXT NOT NULL UNIQUE,
    role TEXT NOT NULL,
    scope TEXT,
    made_by TEXT NOT NULL,
    made_unix_ms INTEGER NOT NULL,
    expires_unix_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE drafts (
    name TEXT PRIMARY KEY,
    text TEXT NOT NULL,
    layout TEXT NOT NULL, -- JSON, the page's own
    revision INTEGER NOT NULL, -- counts all changes of all drafts, so that none comes twice
    made_by TEXT NOT NULL,
    at_unix_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
