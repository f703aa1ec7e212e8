-- What `settings_hash` stands for, so that the pages can say by which rule was judged.
create table detector_settings (
    settings_hash text        primary key,
    settings      jsonb       not null,
    first_seen    timestamptz not null default now()
);
