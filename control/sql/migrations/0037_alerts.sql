-- At which percentages of its allowances an organization's own people want to hear of it, beside those of the settings.
CREATE TABLE organization_alert (
    org      text PRIMARY KEY REFERENCES organization (id),
    percents integer[] NOT NULL CHECK (cardinality(percents) <= 10)
);
