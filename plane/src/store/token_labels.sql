-- What daemons are labelled from the beginning that enrol with a token. Tokens without labels have no row.

CREATE TABLE token_labels (
    token TEXT PRIMARY KEY REFERENCES tokens (id) ON DELETE CASCADE,
    labels BLOB NOT NULL
) STRICT, WITHOUT ROWID;
