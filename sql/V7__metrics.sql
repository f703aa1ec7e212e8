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

-- Totals leave by retention too, at once when there are many; all else is as before.
alter function anomalies_maintain(interval) rename to anomalies_maintain_6;
do $do$ begin execute format($create$
    create function anomalies_maintain(
        retention interval, out made integer, out dropped integer, out trimmed bigint, out is_more boolean)
    language plpgsql security definer
    set search_path = %I, pg_temp set timezone = 'UTC' set lock_timeout = '3s'
    as $body$
    declare
        most_rows constant integer := 10000;
        totals    text;
        time      text;
        counted   bigint;
    begin
        select * into made, dropped, trimmed, is_more from anomalies_maintain_6(retention);
        for totals, time in
            values ('anomaly_minutes', 'minute'), ('anomaly_hours', 'hour'), ('anomaly_metrics', 'hour')
        loop
            exit when retention <= '0';
            execute format('delete from %%1$I where ctid = any(array(select ctid from %%1$I where %%2$I < $1 limit $2))',
                totals, time) using now() - retention, most_rows;
            get diagnostics counted = row_count;
            is_more := is_more or counted = most_rows;
        end loop;
    end
    $body$
$create$, current_schema()); end $do$;
revoke all on function anomalies_maintain(interval) from public;
