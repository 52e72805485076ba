-- Version 2: labels of daemons.

CREATE TABLE labels (
    node TEXT PRIMARY KEY,
    labels BLOB NOT NULL
) STRICT, WITHOUT ROWID;
