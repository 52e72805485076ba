-- How much longer records may wait while a revision is rolled out; none where nobody said so. What was ordered has a fixed layout.

ALTER TABLE rollouts ADD COLUMN lag_s_max INTEGER;
