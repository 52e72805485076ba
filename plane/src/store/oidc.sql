-- Sessions of people whom an OpenID Connect provider lets in: they are no users of ours, so what they may stands with the session.

ALTER TABLE sessions ADD COLUMN name TEXT; -- NULL: of a user, or of whoever came with a one-time code
ALTER TABLE sessions ADD COLUMN role TEXT;
ALTER TABLE sessions ADD COLUMN scope TEXT; -- a selector; NULL: the whole fleet
