-- What was written of an organization since an entry, in the order of writing.

CREATE INDEX audit_journal_last_of_organization ON audit_journal (org, id);
