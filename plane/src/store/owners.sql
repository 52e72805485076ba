-- Who began a draft: it stays theirs when somebody else writes on.

ALTER TABLE drafts ADD COLUMN owner TEXT NOT NULL DEFAULT '';
UPDATE drafts SET owner = made_by;
