-- Anomalies by the week of their event, so that old ones go by dropping a table. PostgreSQL wants the partition key in the
-- unique key: the event's time comes from the event, as the rest of the identity does.
alter table anomalies rename to anomalies_flat;
alter table anomalies_flat drop constraint anomalies_pkey;
drop index anomalies_newest;
drop index anomalies_device;

create table anomalies (like anomalies_flat including comments) partition by range (event_time);
alter table anomalies add primary key (source_topic, source_partition, source_offset, source_index, kind, event_time);
create index anomalies_newest on anomalies (event_time desc, source_topic, source_partition, source_offset);
create index anomalies_device on anomalies (device_id, event_time desc);

-- Events of times that no partition is made for: far past, far future.
create table anomalies_rest partition of anomalies default;
create index anomalies_rest_detected on anomalies_rest (detected_at);

-- Partitions from now - retention to now + retention, as tables `anomalies_YYYYMMDD` that begin on a Monday; older ones are
-- dropped, and the rest loses what was detected before. An interval of 0 keeps everything. As its owner, since who writes
-- rows may not make tables. Does a little at a time; `is_more` says that there is more to do.
do $do$ begin execute format($create$
    create function anomalies_maintain(
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
            is_more := trimmed = most_rows;
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
revoke all on function anomalies_maintain(interval) from public;

-- A few for the rows that are there; the detector makes the others, as its settings say.
select anomalies_maintain('28 days');
select anomalies_maintain('28 days');
insert into anomalies select * from anomalies_flat;
drop table anomalies_flat;
