-- Why revisions were applied, where somebody said so. A row is never updated, as those of the revisions are not.

CREATE TABLE reasons (
    workflow TEXT NOT NULL,
    number INTEGER NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (workflow, number),
    FOREIGN KEY (workflow, number) REFERENCES revisions (workflow, number)
) STRICT, WITHOUT ROWID;
