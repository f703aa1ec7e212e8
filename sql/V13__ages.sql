-- Heartbeats and conditions have an age limit of their own, which holds for every retention. Until now one of 0 kept them all.
alter function anomalies_maintain(interval, timestamptz, interval, interval) rename to anomalies_maintain_12;

-- As before, and what has not reported for long leaves first. Runs as its owner, too.
do $do$ begin execute format($create$
    create function anomalies_maintain(
        retention interval, detector_clock timestamptz, elapsed interval, delay interval,
        out made integer, out dropped integer, out trimmed bigint, out is_more boolean,
        out due_from timestamptz, out due_to timestamptz, out due_rows bigint, out remaining interval)
    language plpgsql security definer
    set search_path = %I, pg_temp set timezone = 'UTC' set datestyle = 'ISO' set lock_timeout = '3s'
    as $body$
    declare
        newest  constant timestamptz := (select max(updated_at) from detector_status);
        present constant timestamptz := least(now(), detector_clock, newest);
    begin
        made := 0; dropped := 0; trimmed := 0; is_more := false;
        -- One at a time, as below.
        if not pg_try_advisory_xact_lock('anomalies'::regclass::oid::bigint) then
            return;
        end if;
        -- Without any heartbeat only two clocks can be read.
        if newest is not null then
            -- Those of a topic that was replaced by another one, and those that have been old for long. What a detector leaves
            -- behind when it stops stays visible.
            delete from detector_status as old where updated_at < present - interval '30 days'
                or updated_at < present - interval '1 day' and exists (
                    select from detector_status as other where other.detector_group = old.detector_group
                    and other.updated_at > newest - interval '1 minute' and other.topic <> old.topic)
                and not exists (
                    select from detector_status as other where other.detector_group = old.detector_group
                    and other.topic = old.topic and other.updated_at > newest - interval '1 day');
            delete from detector_conditions where updated_at < present - interval '1 day';
        end if;
        select * into made, dropped, trimmed, is_more, due_from, due_to, due_rows, remaining
            from anomalies_maintain_12(retention, detector_clock, elapsed, delay);
    end
    $body$
$create$, current_schema()); end $do$;
revoke all on function anomalies_maintain(interval, timestamptz, interval, interval) from public;
