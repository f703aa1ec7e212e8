-- What people say of anomalies. The record of detection is never changed: a mark is a row of its own, the newest one holds.
create table marks (
    id               bigint      generated always as identity primary key,
    source_topic     text        not null,
    source_partition integer     not null,
    source_offset    bigint      not null,
    event_time       timestamptz not null,
    mark             text        not null check (mark in ('ack', 'true', 'false', 'expected', 'none')),
    note             text        not null default '' check (length(note) <= 2000),
    made_by          text        not null check (length(made_by) <= 256),
    made_at          timestamptz not null default now()
);
comment on column marks.mark is 'acknowledged; a true or a false alarm; expected; none takes back what was said';
create index marks_place on marks (source_topic, source_partition, source_offset, id desc);
create index marks_time on marks (event_time);

-- What holds now.
create view reviews as
select distinct on (source_topic, source_partition, source_offset) *
from marks order by source_topic, source_partition, source_offset, id desc;

-- As before, and what version 4 and this one brought.
do $do$ begin execute format($create$
    create or replace function anomalies_maintain(
        retention interval, out made integer, out dropped integer, out trimmed bigint, out is_more boolean)
    language plpgsql security definer
    set search_path = %I, pg_temp set timezone = 'UTC' set lock_timeout = '3s'
    as $body$
    declare
        width      constant interval := '7 days';
        most_parts constant integer := 8;
        most_rows  constant integer := 10000;
        span       constant interval := case when retention > '0' then retention else interval '1 year' end;
        oldest     constant timestamptz := now() - retention;
        monday     timestamptz := date_bin(width, now() - span, timestamptz '2001-01-01 00:00:00+00');
        part       text;
        has_lock   boolean := false;
        counted    bigint;
    begin
        made := 0; dropped := 0; trimmed := 0; is_more := false;
        -- One at a time; the others have nothing to do then.
        if not pg_try_advisory_xact_lock('anomalies'::regclass::oid::bigint) then
            return;
        end if;
        if retention > '0' then
            for part in
                select relname from pg_inherits join pg_class on pg_class.oid = inhrelid
                where inhparent = 'anomalies'::regclass and relname ~ '^anomalies_\d{8}$'
                  and to_timestamp(right(relname, 8), 'YYYYMMDD') + width <= oldest
            loop
                execute format('drop table %%I', part);
                dropped := dropped + 1;
            end loop;
            delete from anomalies_rest where ctid = any(array(
                select ctid from anomalies_rest where detected_at < oldest limit most_rows));
            get diagnostics trimmed = row_count;
            delete from coverage where ctid = any(array(
                select ctid from coverage where minute < oldest limit most_rows));
            delete from anomaly_minutes where ctid = any(array(
                select ctid from anomaly_minutes where minute < oldest limit most_rows));
            delete from anomaly_hours where ctid = any(array(
                select ctid from anomaly_hours where hour < oldest limit most_rows));
            delete from anomaly_days where ctid = any(array(
                select ctid from anomaly_days where day < oldest - interval '1 day' limit most_rows));
            get diagnostics counted = row_count;
            delete from marks where ctid = any(array(
                select ctid from marks where event_time < oldest limit most_rows));
            is_more := trimmed = most_rows or counted = most_rows;
        end if;
        while monday <= now() + span loop
            part := 'anomalies_' || to_char(monday, 'YYYYMMDD');
            if to_regclass(part) is null and made = most_parts then
                is_more := true;
                exit;
            elsif to_regclass(part) is null then
                -- What comes for this week meanwhile must wait, as it may not go into the rest any more.
                if not has_lock then
                    lock table anomalies_rest in access exclusive mode;
                    has_lock := true;
                end if;
                execute format('create table %%I (like anomalies including all)', part);
                execute format(
                    'with moved as (delete from anomalies_rest where event_time >= %%L and event_time < %%L returning *)
                     insert into %%I select * from moved', monday, monday + width, part);
                execute format('alter table anomalies attach partition %%I for values from (%%L) to (%%L)',
                    part, monday, monday + width);
                made := made + 1;
            end if;
            monday := monday + width;
        end loop;
    end
    $body$
$create$, current_schema()); end $do$;
