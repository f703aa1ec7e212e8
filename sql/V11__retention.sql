-- Retention deletes only what several clocks agree on, and announces what is unusual before it deletes it. The table's
-- partitions become wider with the retention, so that their number stays bounded.
set local statement_timeout = 0;

-- When a row was stored, by the database's clock: `detected_at` is by the detector's.
alter table anomalies add column stored_at timestamptz default now();

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

-- The partitions with a range of their own, which is not the case for `anomalies_rest`.
create view anomalies_parts as
select relname::text as name, bounds[1]::timestamptz as lower, bounds[2]::timestamptz as upper
from (
    select relname, regexp_match(pg_get_expr(relpartbound, pg_class.oid), 'FROM \(''([^'']+)''\) TO \(''([^'']+)''\)') as bounds
    from pg_inherits join pg_class on pg_class.oid = inhrelid where inhparent = 'anomalies'::regclass
    -- Else the bounds of every table of the database would be read, and locked.
    offset 0
) as parts
where bounds is not null;

drop function anomalies_maintain(interval);
drop function anomalies_maintain_6(interval);

-- Deletes what is older than the retention and makes partitions, a little at a time; `is_more` says that there is more to do.
-- A retention of 0 deletes nothing. Runs as its owner, since the role that writes rows may not make tables.
--
-- The horizon is the oldest of three readings minus the retention: the detector's clock, the database's clock and the newest
-- heartbeat. It usually moves on by the time between two passes. A larger step is a plan: it waits until it has been agreed on
-- for `delay`, measured by `elapsed`, the time since the detector's last pass by its monotonic clock.
do $do$ begin execute format($create$
    create function anomalies_maintain(
        retention interval, detector_clock timestamptz, elapsed interval, delay interval,
        out made integer, out dropped integer, out trimmed bigint, out is_more boolean,
        out due_from timestamptz, out due_to timestamptz, out due_rows bigint, out remaining interval)
    language plpgsql security definer
    set search_path = %I, pg_temp set timezone = 'UTC' set datestyle = 'ISO' set lock_timeout = '3s'
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
        middle     constant timestamptz := (
            select percentile_disc(0.5) within group (order by clock)
            from unnest(array[now(), detector_clock, heartbeat]) as clock where clock is not null);
        state      retention_state%%rowtype;
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
        -- One at a time; the others have nothing to do then.
        if not pg_try_advisory_xact_lock('anomalies'::regclass::oid::bigint) then
            return;
        end if;
        insert into retention_state default values on conflict do nothing;
        select * into state from retention_state;

        if retention > '0' and heartbeat is not null then
            target := least(now(), detector_clock, heartbeat) - retention;
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

            -- Heartbeats of a topic that was replaced by another one, and those that have been old for long. What a detector leaves
            -- behind when it stops stays visible.
            delete from detector_status as old where updated_at < least(now(), detector_clock, heartbeat) - interval '30 days'
                or updated_at < least(now(), detector_clock, heartbeat) - interval '1 day' and exists (
                    select from detector_status as other where other.detector_group = old.detector_group
                    and other.updated_at > heartbeat - interval '1 minute' and other.topic <> old.topic)
                and not exists (
                    select from detector_status as other where other.detector_group = old.detector_group
                    and other.topic = old.topic and other.updated_at > heartbeat - interval '1 day');
            delete from detector_conditions where updated_at < least(now(), detector_clock, heartbeat) - interval '1 day';

            for part in
                select p.name from anomalies_parts as p where p.name ~ '^anomalies_\d{8}$' and p.upper <= state.horizon
                order by p.upper limit most_drops + 1
            loop
                if dropped = most_drops then
                    is_more := true;
                    exit;
                end if;
                execute format('drop table %%I', part.name);
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
                execute format('delete from %%1$I where ctid = any(array(select ctid from %%1$I where %%2$I < $1 limit $2))',
                    part.column1, part.column2) using state.horizon - part.column3, most_rows;
                get diagnostics rows = row_count;
                is_more := is_more or rows = most_rows;
            end loop;
            -- What people said of an anomaly whose own time is old stays as long as its row.
            delete from marks where ctid = any(array(
                select ctid from marks where event_time < state.horizon and made_at < state.horizon limit most_rows));
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
                -- What has left by retention does not come back, and a table that was detached is its owner's.
                if next > middle - span and to_regclass(name) is null then
                    if made = most_parts then
                        is_more := true;
                        exit;
                    end if;
                    -- What comes for this range meanwhile must wait, as it may not go into the rest any more.
                    if not has_lock then
                        lock table anomalies_rest in access exclusive mode;
                        has_lock := true;
                    end if;
                    execute format('create table %%I (like anomalies including all)', name);
                    execute format(
                        'with moved as (delete from anomalies_rest where event_time >= %%L and event_time < %%L returning *)
                         insert into %%I select * from moved', at, next, name);
                    execute format('alter table anomalies attach partition %%I for values from (%%L) to (%%L)', name, at, next);
                    made := made + 1;
                end if;
                at := next;
            end loop;
        end loop;
        if is_more then
            return;
        end if;

        -- From a time when all were a week wide: empty ones of the far future go, and small neighbours become one when there are
        -- too many.
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
                    execute format('select $1 + count(*) from (select from %%I limit $2) as few', name)
                        into rows using rows, most_rows + 1;
                end if;
            end loop;
            continue when rows > most_rows or (part.lower >= until and rows > 0);
            lock table only anomalies in access exclusive mode;
            rest := part.names[1] || '_merged';
            execute format('create table %%I (like anomalies including all)', rest);
            foreach name in array part.names loop
                execute format('insert into %%I select * from %%I', rest, name);
                execute format('drop table %%I', name);
            end loop;
            if part.lower >= until then
                -- A row may have come since it was looked at: it goes to the rest.
                execute format('insert into anomalies select * from %%I', rest);
                execute format('drop table %%I', rest);
            else
                execute format('alter table %%I rename to %%I', rest, part.names[1]);
                execute format('alter table anomalies attach partition %%I for values from (%%L) to (%%L)',
                    part.names[1], part.lower, part.upper);
            end if;
            merged := merged + 1; moved := moved + rows;
        end loop;
    end
    $body$
$create$, current_schema()); end $do$;
revoke all on function anomalies_maintain(interval, timestamptz, interval, interval) from public;
