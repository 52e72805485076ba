-- Messages about alerts on their way to channels: durable together with the alerts' own state, which is a setting.

CREATE TABLE deliveries (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    channel TEXT NOT NULL,
    body TEXT NOT NULL, -- JSON
    attempts INTEGER NOT NULL DEFAULT 0,
    due_unix_ms INTEGER NOT NULL
) STRICT;
