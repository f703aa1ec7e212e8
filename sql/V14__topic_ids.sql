-- Which topic the offsets belong to: a topic that was deleted and created again has another id.
alter table sink_offsets add column topic_id text;
comment on column sink_offsets.topic_id is 'as Kafka names the topic; null when it was not known';
