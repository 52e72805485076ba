-- Rollouts: those under way with all that was ordered, those that are over as they are shown.

CREATE TABLE rollouts (
    id INTEGER PRIMARY KEY,
    ordered BLOB, -- none when it is over
    head BLOB, -- the same
    view BLOB -- only when it is over
) STRICT;
