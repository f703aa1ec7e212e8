-- What is looked up by its arrival: anomalies whose own times are far from their detection, refused rows, rejected records.
set local statement_timeout = 0;

-- Rows of right times are not in it: they are found by their own time.
create index anomalies_untimely on anomalies (detected_at)
    where detected_at - event_time > interval '1 minute' or detected_at - event_time < interval '-1 minute';
create index sink_rejects_time on sink_rejects (rejected_at);

-- The newest few rejected records of each class, as the heartbeat brings them. All of them are in the dead-letter topic.
create table rejected_samples (
    detector_group text        not null,
    topic          text        not null,
    partition      integer     not null,
    record_offset  bigint      not null,
    class          text        not null,
    message        text        not null,
    key            bytea,
    key_size       bigint,
    value          bytea,
    value_size     bigint,
    rejected_at    timestamptz not null,
    primary key (detector_group, topic, partition, record_offset)
);
comment on column rejected_samples.value is 'its first bytes; value_size says how many there are';
create index rejected_samples_class on rejected_samples (detector_group, topic, class, rejected_at desc);

-- Whether the detector's clock and the database's agree.
alter table detector_status add column reported_at timestamptz;
comment on column detector_status.reported_at is 'as updated_at, by the clock of the detector';

-- Devices that the detectors hold, also those without any anomaly. Told a few at a time, again once a day.
create table seen_devices (
    device_id text        primary key,
    seen_at   timestamptz not null default now()
);
create index seen_devices_time on seen_devices (seen_at);
