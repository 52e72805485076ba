-- Keys that members had before and that are good still, while they change.

CREATE TABLE former_keys (
    node TEXT PRIMARY KEY,
    certificate BLOB NOT NULL -- as signed by the root key
) STRICT, WITHOUT ROWID;
