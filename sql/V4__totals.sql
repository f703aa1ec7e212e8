-- What the pages count, kept by the sink in the transaction of the rows: a month of counts is read in milliseconds.
-- Those who delete rows by hand correct them too; what leaves by retention leaves here as well.
set local statement_timeout = 0;

-- Of all devices together. By sink, since two of them never wait for one another then.
create table anomaly_minutes (
    minute    timestamptz not null,
    sink      integer     not null,
    severity  text        not null,
    anomalies bigint      not null,
    labelled  bigint      not null,
    primary key (minute, sink, severity)
);
comment on column anomaly_minutes.labelled is 'those whose event the producer had labelled as anomalous';

create table anomaly_hours (
    hour        timestamptz not null,
    device_id   text        not null,
    metric_name text        not null,
    severity    text        not null,
    anomalies   bigint      not null,
    primary key (hour, device_id, metric_name, severity)
);
comment on column anomaly_hours.metric_name is 'empty when the events have none';
create index anomaly_hours_device on anomaly_hours (device_id, hour);

create table anomaly_days (
    day         timestamptz not null,
    device_id   text        not null,
    metric_name text        not null,
    severity    text        not null,
    anomalies   bigint      not null,
    primary key (day, device_id, metric_name, severity)
);

-- Every device that had an anomaly: what is typed into the search is looked up here, never in `anomalies`.
create table devices (device_id text primary key);
-- A search inside names is quick with trigrams; it also works without the extension.
do $$ begin
    create extension if not exists pg_trgm with schema public;
    execute format('create index devices_name on devices using gin (device_id %I.gin_trgm_ops)',
        (select nspname from pg_extension join pg_namespace on pg_namespace.oid = extnamespace where extname = 'pg_trgm'));
exception when others then
    raise notice 'a search in names reads all of them, since pg_trgm cannot be used: %', sqlerrm;
end $$;

insert into anomaly_minutes
select date_trunc('minute', event_time), coalesce(sink, 0), severity, count(*), count(label)
from anomalies group by 1, 2, 3;
insert into anomaly_hours
select date_trunc('hour', event_time), device_id, coalesce(metric_name, ''), severity, count(*)
from anomalies group by 1, 2, 3, 4;
insert into anomaly_days
select date_trunc('day', hour), device_id, metric_name, severity, sum(anomalies) from anomaly_hours group by 1, 2, 3, 4;
insert into devices select distinct device_id from anomaly_hours;
