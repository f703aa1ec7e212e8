-- The system of record. Identity of an anomaly: where its event came from, and its kind.
create table anomalies (
    source_topic     text             not null,
    source_partition integer          not null,
    source_offset    bigint           not null,
    source_index     integer          not null,
    kind             text             not null,
    schema_version   integer          not null,
    device_id        text             not null,
    metric_name      text,
    metric_value     double precision not null,
    event_time       timestamptz      not null,
    mean             double precision,
    std_dev          double precision,
    z_score          double precision,
    score            double precision not null,
    threshold        double precision,
    lower            double precision,
    upper            double precision,
    window_count     integer          not null,
    method           text             not null,
    direction        text             not null,
    severity         text             not null,
    label            text,
    "window"         double precision[] not null,
    detected_at      timestamptz      not null,
    primary key (source_topic, source_partition, source_offset, source_index, kind)
);
comment on column anomalies."window" is 'the most recent values before this one, oldest first';
comment on column anomalies.detected_at is 'when the detector published it';

create index anomalies_newest on anomalies (event_time desc, source_topic, source_partition, source_offset);
create index anomalies_device on anomalies (device_id, event_time desc);

-- How far each partition of topic `anomalies` has come; moved in the transaction that inserts the rows.
create table sink_offsets (
    sink_group  text        not null,
    topic       text        not null,
    partition   integer     not null,
    next_offset bigint      not null,
    updated_at  timestamptz not null default now(),
    primary key (sink_group, topic, partition)
);

-- Records of topic `anomalies` that the table refuses: kept whole, with the reason.
create table sink_rejects (
    topic         text        not null,
    partition     integer     not null,
    record_offset bigint      not null,
    key           bytea,
    value         bytea,
    reason        text        not null,
    message       text        not null,
    rejected_at   timestamptz not null default now(),
    primary key (topic, partition, record_offset)
);
comment on column sink_rejects.reason is 'undecodable, conflict, or the SQLSTATE';

-- A heartbeat for each partition, from the worker that has it; also when nothing is abnormal.
create table detector_status (
    detector_group text        not null,
    topic          text        not null,
    partition      integer     not null,
    worker         text        not null,
    state          text        not null,
    committed      bigint,
    end_offset     bigint,
    lag            bigint,
    event_time     timestamptz,
    series         bigint      not null,
    settings_hash  text        not null,
    updated_at     timestamptz not null default now(),
    primary key (detector_group, topic, partition)
);

-- What was judged, by minute of the events: quiet and stopped never look alike.
create table coverage (
    minute    timestamptz not null,
    topic     text        not null,
    partition integer     not null,
    judged    bigint      not null,
    learning  bigint      not null,
    rejected  bigint      not null,
    primary key (minute, topic, partition)
);
