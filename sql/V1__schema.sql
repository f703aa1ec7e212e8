-- The whole schema: tables and views first, then the function that follows the retention. Later versions are files of their own.
-- It is created in the first schema of the search path, which `anomaly migrate` sets.
set local statement_timeout = 0;
-- The function below keeps this search path, so that the role that calls it cannot put other tables in the place of these.
select set_config('search_path', format('%I, pg_temp', current_schema()), true);


-- Anomalies
--
-- The system of record. An anomaly is identified by where its event came from and by its kind. The table has partitions by the
-- time of the event, so that old rows are removed by dropping a partition; PostgreSQL wants that time in the primary key.

create table anomalies (
    source_topic      text               not null,
    source_generation integer            not null default 0,
    source_partition  integer            not null,
    source_offset     bigint             not null,
    source_index      integer            not null,
    kind              text               not null,
    schema_version    integer            not null,
    device_id         text               not null,
    metric_name       text,
    metric_value      double precision   not null,
    event_time        timestamptz        not null,
    method            text               not null,
    score             double precision,
    threshold         double precision,
    expected          double precision,
    lower             double precision,
    upper             double precision,
    mean              double precision,
    std_dev           double precision,
    z_score           double precision,
    evidence          json               not null,
    direction         text               not null,
    severity          text               not null,
    label             text,
    window_count      integer            not null,
    "window"          double precision[] not null,
    reason            text,
    return_period_events  double precision,
    return_period_seconds double precision,
    detected_at       timestamptz        not null,
    sink              integer,
    sink_offset       bigint,
    stored_at         timestamptz        default now(),
    -- The generation comes after the offset, so that the anomalies of a record are found without it.
    primary key (source_topic, source_partition, source_offset, source_generation, source_index, kind, event_time)
) partition by range (event_time);
comment on column anomalies.source_generation is 'which topic of that name: offsets begin again when a topic is created again';
comment on column anomalies.source_index is 'counts the values within one record';
comment on column anomalies.score is 'numbers from here to z_score are null where the method or the kind has none';
-- Not jsonb: its numbers have no negative zero, and every bit counts here.
comment on column anomalies.evidence is 'numbers by name: with the window they suffice to repeat the method''s arithmetic';
comment on column anomalies."window" is 'the values before this one, oldest first';
comment on column anomalies.reason is 'what within the method found it';
comment on column anomalies.return_period_events is
    'number of values that pass on average, in this series, until one is at least as abnormal; null while unknown';
comment on column anomalies.return_period_seconds is 'the same in seconds; null while unknown';
comment on column anomalies.detected_at is 'time of the record in topic anomalies, by the broker''s clock';
comment on column anomalies.stored_at is 'when the row was stored, by the database''s clock';
comment on column anomalies.sink is 'sink_offsets.id of the partition of topic anomalies that the row was read from';
comment on column anomalies.sink_offset is 'offset in that partition; rows become visible in this order, which no sequence promises';

create index anomalies_newest on anomalies (event_time desc, source_topic, source_partition, source_offset);
create index anomalies_device on anomalies (device_id, event_time desc);
create index anomalies_label on anomalies (label, event_time desc) where label is not null;
create index anomalies_sink on anomalies (sink, sink_offset);
-- Anomalies whose event times are wrong are found by their detection, the others by their event time.
create index anomalies_untimely on anomalies (detected_at)
    where detected_at - event_time > interval '1 minute' or detected_at - event_time < interval '-1 minute';

-- Rows whose event time lies in no other partition: far past, far future.
create table anomalies_rest partition of anomalies default;
create index anomalies_rest_detected on anomalies_rest (detected_at);

-- The other partitions, with their ranges.
create view anomalies_parts as
select relname::text as name, bounds[1]::timestamptz as lower, bounds[2]::timestamptz as upper
from (
    select relname, regexp_match(pg_get_expr(relpartbound, pg_class.oid), 'FROM \(''([^'']+)''\) TO \(''([^'']+)''\)') as bounds
    from pg_inherits join pg_class on pg_class.oid = inhrelid where inhparent = 'anomalies'::regclass
    -- Without this, the bounds of every table of the database would be read, and the tables locked.
    offset 0
) as parts
where bounds is not null;


-- Sink
--
-- The ledger: how far each partition of topic `anomalies` is stored. It moves in the transaction that inserts the rows.

create table sink_offsets (
    sink_group  text        not null,
    topic       text        not null,
    partition   integer     not null,
    next_offset bigint      not null,
    topic_id    text,
    generation  integer     not null default 0,
    updated_at  timestamptz not null default now(),
    id          integer     generated always as identity unique,
    primary key (sink_group, topic, partition)
);
comment on column sink_offsets.topic_id is 'as Kafka names the topic: a recreated topic has another id; null when it was not known';
comment on column sink_offsets.generation is 'which topic of that name: raised when a person accepts a recreated topic';
comment on column sink_offsets.id is 'a short name of the partition, used by anomalies.sink and the totals';

-- Records of topic `anomalies` that the table refuses: kept whole, with the reason.
create table sink_rejects (
    topic         text        not null,
    generation    integer     not null default 0,
    partition     integer     not null,
    record_offset bigint      not null,
    key           bytea,
    value         bytea,
    reason        text        not null,
    message       text        not null,
    rejected_at   timestamptz not null default now(),
    primary key (topic, generation, partition, record_offset)
);
comment on column sink_rejects.generation is 'which topic `anomalies` of that name, as anomalies.source_generation for the source';
comment on column sink_rejects.reason is 'undecodable, conflict, or the SQLSTATE';
create index sink_rejects_time on sink_rejects (rejected_at);


-- Reviews
--
-- What people say about anomalies. An anomaly is never changed: a review is a row of its own, and the newest one counts.

create table reviews (
    id                bigint      generated always as identity primary key,
    source_topic      text        not null,
    source_generation integer     not null default 0,
    source_partition  integer     not null,
    source_offset     bigint      not null,
    source_index      integer     not null,
    kind              text        not null,
    event_time        timestamptz not null,
    review            text        not null check (review in ('ack', 'true', 'false', 'expected', 'none')),
    note              text        not null default '' check (length(note) <= 2000),
    made_by           text        not null check (length(made_by) <= 256),
    made_at           timestamptz not null default now()
);
comment on column reviews.review is 'acknowledged; a true or a false alarm; expected; none clears the review';
create index reviews_anomaly
    on reviews (source_topic, source_generation, source_partition, source_offset, source_index, kind, id desc);
create index reviews_time on reviews (event_time);

-- The newest review of each anomaly.
create view current_reviews as
select distinct on (source_topic, source_generation, source_partition, source_offset, source_index, kind) *
from reviews order by source_topic, source_generation, source_partition, source_offset, source_index, kind, id desc;


-- Detectors
--
-- The heartbeat of each partition, from the worker that has it; it is written when nothing is abnormal, too.

create table detector_status (
    detector_group text        not null,
    topic          text        not null,
    partition      integer     not null,
    worker         text        not null,
    state          text        not null,
    committed      bigint,
    end_offset     bigint,
    high_watermark bigint,
    lag            bigint,
    event_time     timestamptz,
    series         bigint      not null,
    judged         bigint,
    learning       bigint,
    rejected       bigint,
    ignored        bigint,
    excluded       bigint,
    settings_hash  text        not null,
    arrived_at     timestamptz,
    reported_at    timestamptz,
    updated_at     timestamptz not null default now(),
    primary key (detector_group, topic, partition)
);
comment on column detector_status.high_watermark is 'end of the partition, records of open transactions included';
comment on column detector_status.judged is 'since the group began, as committed; so are learning, rejected, ignored and excluded';
comment on column detector_status.reported_at is 'as updated_at, by the clock of the detector';

-- Active conditions of the detectors. Each heartbeat writes them again.
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

-- The settings that `detector_status.settings_hash` stands for, so that the pages can say by which rule a value was judged.
create table detector_settings (
    settings_hash text        primary key,
    settings      jsonb       not null,
    first_seen    timestamptz not null default now()
);

-- The newest few rejected records of each class. All of them are in the dead-letter topic.
create table rejected_samples (
    detector_group text        not null,
    topic          text        not null,
    generation     integer     not null default 0,
    partition      integer     not null,
    record_offset  bigint      not null,
    class          text        not null,
    message        text        not null,
    key            bytea,
    key_size       bigint,
    value          bytea,
    value_size     bigint,
    rejected_at    timestamptz not null,
    primary key (detector_group, topic, generation, partition, record_offset)
);
comment on column rejected_samples.value is 'its first bytes; value_size says how many there are';
create index rejected_samples_class on rejected_samples (detector_group, topic, class, rejected_at desc);

-- Devices that the detectors have seen, also those without any anomaly. Reported a few at a time, again once a day.
create table seen_devices (
    device_id text        primary key,
    seen_at   timestamptz not null default now()
);
create index seen_devices_time on seen_devices (seen_at);


-- Counts of events
--
-- What was judged, by minute of the events: so a quiet stream and a stopped detector never look alike.

create table coverage (
    minute    timestamptz not null,
    topic     text        not null,
    partition integer     not null,
    judged    bigint      not null,
    learning  bigint      not null,
    rejected  bigint      not null,
    ignored   bigint      not null default 0,
    excluded  bigint      not null default 0,
    primary key (minute, topic, partition)
);

-- What arrived, by minute of the detector's clock. Where it differs from `coverage`, clocks of devices are wrong.
create table activity (
    minute        timestamptz not null,
    topic         text        not null,
    partition     integer     not null,
    judged        bigint      not null,
    learning      bigint      not null,
    rejected      bigint      not null,
    ignored       bigint      not null default 0,
    late          bigint      not null,
    late_seconds  bigint      not null,
    early         bigint      not null,
    early_seconds bigint      not null,
    excluded      bigint      not null default 0,
    primary key (minute, topic, partition)
);
comment on column activity.late is 'events whose time is at least 15 min before their arrival';
comment on column activity.early is 'events whose time is at least 1 min after their arrival';


-- Counts of anomalies
--
-- Kept by the sink in the transaction of the rows, so that a month of counts is read in milliseconds. If you
-- delete anomalies by hand, update these counts too. Where several sinks would update the same row, `sink` is part of the key: they never wait for
-- one another.

-- All devices together.
create table anomaly_minutes (
    minute    timestamptz not null,
    sink      integer     not null,
    severity  text        not null,
    anomalies bigint      not null,
    labelled  bigint      not null,
    primary key (minute, sink, severity)
);
comment on column anomaly_minutes.labelled is 'anomalies whose event the producer had labelled as anomalous';

-- By series. The primary key contains all columns that are read, so that the hours of one device are read from it alone.
create table anomaly_hours (
    hour        timestamptz not null,
    device_id   text        not null,
    metric_name text        not null,
    severity    text        not null,
    anomalies   bigint      not null,
    primary key (device_id, hour, metric_name, severity) include (anomalies)
)
-- Only what was vacuumed is read from an index alone; by default a fifth of the table would be left for later.
with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.02);
comment on column anomaly_hours.metric_name is 'empty when the events have none';
create index anomaly_hours_hour on anomaly_hours (hour);

create table anomaly_days (
    day         timestamptz not null,
    device_id   text        not null,
    metric_name text        not null,
    severity    text        not null,
    anomalies   bigint      not null,
    primary key (day, device_id, metric_name, severity)
);
create index anomaly_days_device on anomaly_days (device_id, day);

-- All devices together, by metric.
create table anomaly_metrics (
    hour        timestamptz not null,
    metric_name text        not null,
    severity    text        not null,
    sink        integer     not null,
    anomalies   bigint      not null,
    primary key (hour, metric_name, severity, sink)
);
comment on column anomaly_metrics.metric_name is 'empty when the events have none';
create index anomaly_metrics_metric on anomaly_metrics (metric_name, hour);

-- The newest generation of each topic that has anomalies of more than its first one. Links to the others name the generation.
create table topic_generations (
    topic      text    primary key,
    generation integer not null
);

-- Every device that had an anomaly: the search looks names up here, never in `anomalies`.
create table devices (device_id text primary key);
-- A search inside names is quick with trigrams, and works without them.
do $$ begin
    create extension if not exists pg_trgm with schema public;
    execute format('create index devices_name on devices using gin (device_id %I.gin_trgm_ops)',
        (select nspname from pg_extension join pg_namespace on pg_namespace.oid = extnamespace where extname = 'pg_trgm'));
exception when others then
    raise notice 'a search in names reads all of them, since pg_trgm cannot be used: %', sqlerrm;
end $$;


-- Retention
--
-- What the passes of `anomalies_maintain` remember from one to the next.

create table retention_state (
    is_only   boolean     primary key default true check (is_only),
    horizon   timestamptz,
    planned   timestamptz,
    waited    interval    not null default '0',
    passed_at timestamptz not null default clock_timestamp()
);
comment on column retention_state.horizon is 'what is older may be deleted';
comment on column retention_state.planned is 'a horizon that would delete unusually much: it waits';
comment on column retention_state.waited is 'for how long the clocks and the setting have agreed on the plan';

-- Deletes what is older than the retention and creates partitions, a little at a time; `is_more` says that there is more to do.
-- With a retention of 0 only heartbeats and conditions are deleted, which have an age limit of their own.
-- Runs with the permissions of its owner, since the role that writes rows may not create tables.
--
-- The horizon is the oldest of three readings minus the retention: the detector's clock, the database's clock and the newest
-- heartbeat. It usually moves on by the time between two passes. A larger step is a plan: it waits until it has been agreed on
-- for `delay`, measured by `elapsed`, the time since the detector's last pass by its monotonic clock.
create function anomalies_maintain(
    retention interval, detector_clock timestamptz, elapsed interval, delay interval,
    out made integer, out dropped integer, out trimmed bigint, out is_more boolean,
    out due_from timestamptz, out due_to timestamptz, out due_rows bigint, out remaining interval)
language plpgsql security definer
set search_path from current set timezone = 'UTC' set datestyle = 'ISO' set lock_timeout = '3s'
as $body$
declare
    origin     constant timestamptz := timestamptz '2001-01-01 00:00:00+00';
    most_parts constant integer := 8;
    most_rows  constant integer := 10000;
    most_drops constant integer := 4;
    many_parts constant integer := 120;
    span       constant interval := case when retention > '0' then retention else interval '1 year' end;
    -- A step of the horizon that needs no plan: a pass is due every hour.
    usual      constant interval := greatest(interval '2 hours', least(interval '7 days', retention / 10));
    -- A plan is still the same within this.
    drift      constant interval := greatest(interval '1 day', usual);
    -- At most about a hundred partitions lie in the past, and few in the future.
    width      constant interval :=
        make_interval(weeks => greatest(1, ceil(extract(epoch from span) / (7 * 86400) / 100)::integer));
    heartbeat  constant timestamptz := (select max(updated_at) from detector_status);
    present    constant timestamptz := least(now(), detector_clock, heartbeat);
    middle     constant timestamptz := (
        select percentile_disc(0.5) within group (order by clock)
        from unnest(array[now(), detector_clock, heartbeat]) as clock where clock is not null);
    state      retention_state%rowtype;
    target     timestamptz;
    has_due    boolean;
    has_lock   boolean := false;
    is_many    boolean;
    merged     integer := 0;
    moved      bigint := 0;
    rows       bigint;
    part       record;
    gap        tstzrange;
    at         timestamptz;
    next       timestamptz;
    until      timestamptz;
    name       text;
    rest       text;
begin
    made := 0; dropped := 0; trimmed := 0; is_more := false;
    -- One pass at a time; the others have nothing to do.
    if not pg_try_advisory_xact_lock('anomalies'::regclass::oid::bigint) then
        return;
    end if;
    -- Without any heartbeat only two clocks can be read.
    if heartbeat is not null then
        -- Heartbeats of a topic that was replaced by another one are deleted after a day, the others after 30 days. So the last
        -- heartbeat of a stopped detector stays visible.
        delete from detector_status as old where updated_at < present - interval '30 days'
            or updated_at < present - interval '1 day' and exists (
                select from detector_status as other where other.detector_group = old.detector_group
                and other.updated_at > heartbeat - interval '1 minute' and other.topic <> old.topic)
            and not exists (
                select from detector_status as other where other.detector_group = old.detector_group
                and other.topic = old.topic and other.updated_at > heartbeat - interval '1 day');
        delete from detector_conditions where updated_at < present - interval '1 day';
    end if;

    insert into retention_state default values on conflict do nothing;
    select * into state from retention_state;

    if retention > '0' and heartbeat is not null then
        target := present - retention;
        due_from := least(
            (select min(event_time) from anomalies where event_time >= (select min(p.lower) from anomalies_parts as p)),
            (select min(hour) from anomaly_metrics), (select min(minute) from coverage),
            (select min(minute) from anomaly_minutes), (select min(minute) from activity));
        has_due := coalesce(due_from < target, false)
            or exists (select from anomalies_rest where detected_at < target and stored_at < target);
        state.horizon := coalesce(state.horizon, least(target, due_from));
        if target - state.horizon <= usual or not has_due then
            state.horizon := target; state.planned := null;
        elsif state.planned is null or target - state.planned - state.waited not between -drift and drift then
            state.planned := target; state.waited := '0';
        else
            state.waited := state.waited
                + greatest(interval '0', least(elapsed, clock_timestamp() - state.passed_at));
            if state.waited >= delay then
                state.horizon := target; state.planned := null;
            end if;
        end if;
        if state.planned is not null then
            due_to := state.planned;
            remaining := greatest(interval '0', delay - state.waited);
            select coalesce(sum(anomalies), 0) into due_rows from anomaly_metrics where hour < due_to;
        else
            due_from := null;
        end if;
        update retention_state set horizon = state.horizon, planned = state.planned,
            waited = case when state.planned is null then '0' else state.waited end, passed_at = clock_timestamp();

        for part in
            select p.name from anomalies_parts as p where p.name ~ '^anomalies_\d{8}$' and p.upper <= state.horizon
            order by p.upper limit most_drops + 1
        loop
            if dropped = most_drops then
                is_more := true;
                exit;
            end if;
            execute format('drop table %I', part.name);
            dropped := dropped + 1;
        end loop;
        delete from anomalies_rest where ctid = any(array(
            select ctid from anomalies_rest
            where detected_at < state.horizon and stored_at < state.horizon limit most_rows));
        get diagnostics trimmed = row_count;
        is_more := is_more or trimmed = most_rows;
        for part in
            values ('coverage', 'minute', interval '0'), ('activity', 'minute', '0'), ('anomaly_minutes', 'minute', '0'),
                ('anomaly_hours', 'hour', '0'), ('anomaly_metrics', 'hour', '0'), ('anomaly_days', 'day', '1 day')
        loop
            execute format('delete from %1$I where ctid = any(array(select ctid from %1$I where %2$I < $1 limit $2))',
                part.column1, part.column2) using state.horizon - part.column3, most_rows;
            get diagnostics rows = row_count;
            is_more := is_more or rows = most_rows;
        end loop;
        -- The review of an anomaly whose event time is old stays as long as its row.
        delete from reviews where ctid = any(array(
            select ctid from reviews where event_time < state.horizon and made_at < state.horizon limit most_rows));
        get diagnostics rows = row_count;
        is_more := is_more or rows = most_rows;
    end if;

    until := date_bin(width, middle, origin) + width + interval '28 days';
    for gap in
        select unnest(tstzmultirange(tstzrange(date_bin(width, middle - span, origin), until))
            - coalesce(range_agg(tstzrange(lower, upper)), '{}'))
        from anomalies_parts
    loop
        at := lower(gap);
        while at < upper(gap) loop
            next := least(date_bin(width, at, origin) + width, upper(gap));
            name := 'anomalies_' || to_char(at, 'YYYYMMDD');
            -- Expired ranges are not created again. Detached tables are not attached again: they belong to their owner.
            if next > middle - span and to_regclass(name) is null then
                if made = most_parts then
                    is_more := true;
                    exit;
                end if;
                -- Rows that come for this range meanwhile must wait, as they may not go into the rest any more.
                if not has_lock then
                    lock table anomalies_rest in access exclusive mode;
                    has_lock := true;
                end if;
                execute format('create table %I (like anomalies including all)', name);
                execute format(
                    'with moved as (delete from anomalies_rest where event_time >= %L and event_time < %L returning *)
                     insert into %I select * from moved', at, next, name);
                execute format('alter table anomalies attach partition %I for values from (%L) to (%L)', name, at, next);
                made := made + 1;
            end if;
            at := next;
        end loop;
    end loop;
    if is_more then
        return;
    end if;

    -- After the retention was raised or lowered: empty partitions of the far future go, and small neighbours become one when
    -- there are too many.
    is_many := (select count(*) from anomalies_parts) > many_parts;
    is_more := made > 0 and is_many;
    for part in
        select date_bin(width, p.lower, origin) as at, min(p.lower) as lower, max(p.upper) as upper,
            array_agg(p.name order by p.lower) as names
        from anomalies_parts as p
        where p.name ~ '^anomalies_\d{8}$' and p.upper - date_bin(width, p.lower, origin) <= width
        group by 1
        having (count(*) > 1 and is_many or min(p.lower) >= until) and sum(p.upper - p.lower) = max(p.upper) - min(p.lower)
        order by min(p.lower) < until, 1
    loop
        if merged = most_parts or moved > most_rows then
            is_more := true;
            exit;
        end if;
        rows := 0;
        foreach name in array part.names loop
            if rows <= most_rows then
                execute format('select $1 + count(*) from (select from %I limit $2) as few', name)
                    into rows using rows, most_rows + 1;
            end if;
        end loop;
        continue when rows > most_rows or (part.lower >= until and rows > 0);
        lock table only anomalies in access exclusive mode;
        rest := part.names[1] || '_merged';
        execute format('create table %I (like anomalies including all)', rest);
        foreach name in array part.names loop
            execute format('insert into %I select * from %I', rest, name);
            execute format('drop table %I', name);
        end loop;
        if part.lower >= until then
            -- A row may have come since it was looked at: it goes to the rest.
            execute format('insert into anomalies select * from %I', rest);
            execute format('drop table %I', rest);
        else
            execute format('alter table %I rename to %I', rest, part.names[1]);
            execute format('alter table anomalies attach partition %I for values from (%L) to (%L)',
                part.names[1], part.lower, part.upper);
        end if;
        merged := merged + 1; moved := moved + rows;
    end loop;
end
$body$;
revoke all on function anomalies_maintain(interval, timestamptz, interval, interval) from public;

-- Partitions for the rows of the first hour; the detector creates the others, as its settings say.
select anomalies_maintain('28 days', now(), '0', '0');
select anomalies_maintain('28 days', now(), '0', '0');
