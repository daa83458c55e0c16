-- Who made a one-time link: {"token": id} or {"person", "provider", "email", "roles"}. What the link has opened ends when
-- its maker could not make it any more. NULL: of an earlier release, or no link opened it.
ALTER TABLE console_link ADD COLUMN maker jsonb;
ALTER TABLE session ADD COLUMN maker jsonb;
ALTER TABLE portal_link ADD COLUMN maker jsonb;
ALTER TABLE portal_session ADD COLUMN maker jsonb;
