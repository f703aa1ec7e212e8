-- The hours of one device lie on as many pages of their table as there are hours: they are read from an index that has all of it.
-- By time alone there is a small one, for the hours beside whole days and for what leaves by retention.
set local statement_timeout = 0;

create index anomaly_hours_hour on anomaly_hours (hour);
create unique index anomaly_hours_series on anomaly_hours (device_id, hour, metric_name, severity) include (anomalies);
alter table anomaly_hours drop constraint anomaly_hours_pkey;
alter table anomaly_hours add constraint anomaly_hours_pkey primary key using index anomaly_hours_series;
drop index anomaly_hours_device;
-- Only what was vacuumed is read from the index alone; by default a fifth of the table is left for later.
alter table anomaly_hours set (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.02);
