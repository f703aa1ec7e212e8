-- Where each row stood in topic `anomalies`, so that who follows the table sees every row once, in the order of commits
-- (numbers from a sequence become visible out of order). A sink's partition has a short name of its own for that.
alter table sink_offsets add column id integer generated always as identity unique;
alter table anomalies add column sink integer, add column sink_offset bigint;
comment on column anomalies.sink is 'sink_offsets.id of the partition that it was read from; null before version 3';
create index anomalies_sink on anomalies (sink, sink_offset);
