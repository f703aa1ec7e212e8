-- What detectors measure that a person should know: a row for each condition that holds, reported again with each heartbeat.
create table detector_conditions (
    detector_group text        not null,
    topic          text        not null,
    worker         text        not null,
    code           text        not null,
    severity       text        not null,
    message        text        not null,
    since          timestamptz not null,
    updated_at     timestamptz not null default now(),
    primary key (detector_group, topic, worker, code)
);
comment on column detector_conditions.severity is 'notice or degraded';

-- What arrived, by minute of the detector's clock. `coverage` is by minute of the events: wrong clocks show in the difference.
create table activity (
    minute        timestamptz not null,
    topic         text        not null,
    partition     integer     not null,
    judged        bigint      not null,
    learning      bigint      not null,
    rejected      bigint      not null,
    late          bigint      not null,
    late_seconds  bigint      not null,
    early         bigint      not null,
    early_seconds bigint      not null,
    primary key (minute, topic, partition)
);
comment on column activity.late is 'events whose time is at least 15 min before their arrival';
comment on column activity.early is 'events whose time is at least 1 min after their arrival';

alter table detector_status add column high_watermark bigint, add column judged bigint, add column learning bigint,
    add column rejected bigint, add column arrived_at timestamptz;
comment on column detector_status.high_watermark is 'end of the partition, records of open transactions included';
comment on column detector_status.judged is 'since the group began, as committed; so are learning and rejected';
