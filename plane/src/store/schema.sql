-- Version 1. Never edited once released: a change is a new file and a new line in MIGRATIONS.
-- Blobs are postcard of wire structs, whose versions are frozen.

CREATE TABLE settings (
    key TEXT PRIMARY KEY,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE members (
    node TEXT PRIMARY KEY,
    certificate BLOB NOT NULL, -- as signed by the root key
    host BLOB NOT NULL,
    enrolled_unix_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE tokens (
    id TEXT PRIMARY KEY,
    secret BLOB NOT NULL, -- not a hash: the proof is an HMAC under it
    role BLOB NOT NULL,
    name TEXT,
    uses_left INTEGER NOT NULL CHECK (uses_left >= 0),
    expires_unix_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE token_uses (
    token TEXT NOT NULL REFERENCES tokens (id) ON DELETE CASCADE,
    node TEXT NOT NULL,
    PRIMARY KEY (token, node)
) STRICT, WITHOUT ROWID;

-- Immutable: a row is never updated or deleted.
CREATE TABLE revisions (
    workflow TEXT NOT NULL,
    number INTEGER NOT NULL,
    text TEXT NOT NULL,
    made_by TEXT NOT NULL,
    at_unix_ms INTEGER NOT NULL,
    PRIMARY KEY (workflow, number)
) STRICT, WITHOUT ROWID;

-- The workflows there are, each at its current revision.
CREATE TABLE workflows (
    name TEXT PRIMARY KEY,
    revision INTEGER NOT NULL,
    FOREIGN KEY (name, revision) REFERENCES revisions (workflow, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE plans (
    node TEXT PRIMARY KEY,
    version INTEGER NOT NULL,
    plan BLOB NOT NULL, -- as signed by the plane
    confirmed INTEGER NOT NULL DEFAULT 0 -- its daemon has said that it runs it
) STRICT, WITHOUT ROWID;

CREATE TABLE catalog_bodies (
    id BLOB PRIMARY KEY,
    components BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE catalogs (
    node TEXT PRIMARY KEY,
    hash BLOB NOT NULL,
    body BLOB NOT NULL REFERENCES catalog_bodies (id)
) STRICT, WITHOUT ROWID;

-- Each daemon's last words.
CREATE TABLE reports (
    node TEXT PRIMARY KEY,
    status BLOB NOT NULL,
    streams BLOB NOT NULL,
    heard_unix_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Web log-in: one-time codes and sessions, by hash.
CREATE TABLE logins (
    hash BLOB PRIMARY KEY,
    expires_unix_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE sessions (
    hash BLOB PRIMARY KEY,
    expires_unix_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
