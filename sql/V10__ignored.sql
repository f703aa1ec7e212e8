-- Records that are passed over: null values, and those that the setting fields.ignore names.
alter table coverage add column ignored bigint not null default 0;
alter table activity add column ignored bigint not null default 0;
alter table detector_status add column ignored bigint;
comment on column detector_status.ignored is 'since the group began, as committed';
