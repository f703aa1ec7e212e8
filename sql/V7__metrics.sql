-- What the pages still read whole tables for: a month of one metric, rows with a label, days of one device.
set local statement_timeout = 0;

-- Of all devices together, as anomaly_minutes; by sink for the same reason.
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
create index anomaly_days_device on anomaly_days (device_id, day);
create index anomalies_label on anomalies (label, event_time desc) where label is not null;

insert into anomaly_metrics
select hour, metric_name, severity, 0, sum(anomalies) from anomaly_hours group by 1, 2, 3;

-- What leaves by retention leaves here as well; all else is as before.
alter function anomalies_maintain(interval) rename to anomalies_maintain_6;
do $do$ begin execute format($create$
    create function anomalies_maintain(
        retention interval, out made integer, out dropped integer, out trimmed bigint, out is_more boolean)
    language plpgsql security definer
    set search_path = %I, pg_temp set timezone = 'UTC' set lock_timeout = '3s'
    as $body$
    declare
        most_rows constant integer := 10000;
    begin
        select * into made, dropped, trimmed, is_more from anomalies_maintain_6(retention);
        if retention > '0' then
            delete from anomaly_metrics where ctid = any(array(
                select ctid from anomaly_metrics where hour < now() - retention limit most_rows));
        end if;
    end
    $body$
$create$, current_schema()); end $do$;
revoke all on function anomalies_maintain(interval) from public;
