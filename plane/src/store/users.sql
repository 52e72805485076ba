-- Users of the web page.

CREATE TABLE users (
    name TEXT PRIMARY KEY,
    role TEXT NOT NULL,
    password TEXT NOT NULL, -- argon2id, as a PHC string
    made_unix_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Whose a session is; NULL: of whoever came with a one-time code. It ends with its user.
ALTER TABLE sessions ADD COLUMN user TEXT REFERENCES users (name) ON DELETE CASCADE;
