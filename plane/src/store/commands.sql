-- Commands from the web page, as far as they came: written when they begin and when they end. One that never ended was cut off by
-- the end of the plane.

CREATE TABLE commands (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    body BLOB NOT NULL
) STRICT;
