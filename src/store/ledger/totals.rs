//! The totals that the pages read. They change with the rows.

/// Adds the inserted rows to the totals that the pages read.
pub(super) const TOTALS: &str = "
    minutes as (
        insert into anomaly_minutes as t (minute, sink, severity, anomalies, labelled)
        select date_trunc('minute', event_time, 'UTC'), sink, severity, count(*), count(label) from inserted group by 1, 2, 3
        on conflict (minute, sink, severity) do update
        set anomalies = t.anomalies + excluded.anomalies, labelled = t.labelled + excluded.labelled),
    hourly as (
        select date_trunc('hour', event_time, 'UTC') as hour, device_id, metric_name, severity, count(*) as anomalies
        from inserted group by 1, 2, 3, 4 order by 1, 2, 3, 4),
    hours as (
        insert into anomaly_hours as t (hour, device_id, metric_name, severity, anomalies) select * from hourly
        on conflict (hour, device_id, metric_name, severity) do update set anomalies = t.anomalies + excluded.anomalies),
    days as (
        insert into anomaly_days as t (day, device_id, metric_name, severity, anomalies)
        select date_trunc('day', hour, 'UTC'), device_id, metric_name, severity, sum(anomalies) from hourly
        group by 1, 2, 3, 4 order by 1, 2, 3, 4
        on conflict (day, device_id, metric_name, severity) do update set anomalies = t.anomalies + excluded.anomalies),
    metrics as (
        insert into anomaly_metrics as t (hour, metric_name, severity, sink, anomalies)
        select date_trunc('hour', event_time, 'UTC'), metric_name, severity, sink, count(*) from inserted group by 1, 2, 3, 4
        on conflict (hour, metric_name, severity, sink) do update set anomalies = t.anomalies + excluded.anomalies),
    generations as (
        insert into topic_generations as t (topic, generation)
        select source_topic, max(source_generation) from inserted
        where source_generation > 0 and not exists (
            -- Sinks do not wait for one another over a row that is already right.
            select from topic_generations as g where g.topic = source_topic and g.generation >= source_generation)
        group by 1 order by 1
        on conflict (topic) do update set generation = greatest(t.generation, excluded.generation)),
    names as (insert into devices select distinct device_id from hourly order by 1 on conflict do nothing)";
