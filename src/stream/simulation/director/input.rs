//! Input of a schedule: values, records and the producers' transactions.

use rand::RngExt;

use super::super::cluster::{Fate, LogEntry, SimulatedTopic};
use super::super::stage::SchedulerState;
use super::{DEVICES, Director};
use crate::event::{Fields, OnPartial};

/// Time of the first record in milliseconds; it is unrelated to the virtual clock.
const EPOCH: i64 = 1_764_000_000_000;

/// Producer of transactions in the input.
const PRODUCER: &str = "producer";

impl Director<'_> {
    /// Returns a random device and its record. Several values may be of other devices, or of the same one again. `None`
    /// if the record is not an event.
    pub(super) fn value(&self, inner: &mut SchedulerState) -> (Option<i32>, Vec<u8>) {
        let (first, value) = match inner.random.random_range(0..20) {
            0 => return (None, b"no event".to_vec()),
            // The record has a null value.
            1 => return (None, Vec::new()),
            _ => self.one(inner),
        };
        let mut all = vec![value];
        if self.has_arrays() {
            for _ in 0..inner.random.random_range(0..4) {
                let (_, value) = self.one(inner);
                all.push(value);
            }
            match inner.random.random_range(0..30) {
                0 => all.clear(),
                1 => all[0] = event(first, "\"wrong\""),
                2 => all.push(event(first, "null")),
                3 => all.push("3".into()),
                _ => {}
            }
        }
        (Some(first), self.record(&all))
    }

    fn has_arrays(&self) -> bool {
        self.schedule.config.fields != Fields::default()
    }

    /// Returns a record with these values.
    pub(super) fn record(&self, values: &[String]) -> Vec<u8> {
        if self.has_arrays() { format!(r#"{{"all":[{}]}}"#, values.join(",")).into() } else { values.concat().into() }
    }

    /// Returns a random device and its value.
    fn one(&self, inner: &mut SchedulerState) -> (i32, String) {
        // Each device is silent for some periods.
        let is_silent = |device: i32| (self.published / 150 + i64::from(device)) % 3 == 0;
        let mut device = inner.random.random_range(0..DEVICES);
        if is_silent(device) {
            device = (device + 1) % DEVICES;
        }
        let spike = if inner.random.random_bool(0.1) { 50.0 } else { 0.0 };
        let value = f64::from(device) + inner.random.random_range(-1.0..1.0) + spike;
        (device, event(device, &value.to_string()))
    }

    /// Publishes to the partition of the device's key if the producers route by key; otherwise to this one.
    pub(super) fn publish(
        &mut self,
        inner: &mut SchedulerState,
        partition: i32,
        (device, value): (Option<i32>, Vec<u8>),
    ) -> i32 {
        let routed =
            device.filter(|_| self.schedule.routes_by_key).map(|device| route(device, inner.cluster.partitions));
        let partition = routed.unwrap_or(partition);
        self.publish_to(inner, partition, (device, value));
        partition
    }

    pub(super) fn publish_to(
        &mut self,
        inner: &mut SchedulerState,
        partition: i32,
        (device, value): (Option<i32>, Vec<u8>),
    ) {
        self.published += 1;
        if inner.random.random_bool(0.001) {
            // The clocks of all devices are set.
            self.ahead += [9_000_000, 86_400_000 * 400, -7_200_000][inner.random.random_range(0..3usize)];
        }
        let right = EPOCH + self.ahead + self.published * 5_000;
        let is_wrong = self.published % 97 == 0 || device.is_some_and(|device| device == self.schedule.wrong_device);
        let time = if is_wrong { self.schedule.wrong_time.unwrap_or(right * 1_000) } else { right };
        // Every series of a device has its key; a rejected record has a key of its own, or none.
        let key = match device {
            Some(device) => Some(format!("d{device}").into_bytes()),
            None => (self.published % 2 == 0).then(|| b"key".to_vec()),
        };
        let (value, headers, owner) = (Some(value).filter(|value| !value.is_empty()), Vec::new(), String::new());
        let entry = LogEntry { key, value, headers, time, fate: Fate::Committed, owner };
        inner.cluster.partition(SimulatedTopic::Input, partition).entries.push(entry);
    }

    /// Publishes records in a transaction that stays open for a while.
    pub(super) fn publish_open(&mut self, inner: &mut SchedulerState, partition: i32) {
        for _ in 0..inner.random.random_range(1..4) {
            let value = self.value(inner);
            let partition = self.publish(inner, partition, value);
            if let Some(last) = inner.cluster.partition(SimulatedTopic::Input, partition).entries.last_mut() {
                (last.fate, last.owner) = (Fate::Open, PRODUCER.to_owned());
            }
            self.open.insert(partition);
        }
    }

    /// Publishes records of an aborted transaction, and its marker.
    pub(super) fn publish_in_vain(&mut self, inner: &mut SchedulerState, partition: i32) {
        let value = self.value(inner);
        let partition = self.publish(inner, partition, value);
        let log = inner.cluster.partition(SimulatedTopic::Input, partition);
        if let Some(last) = log.entries.last_mut() {
            last.fate = Fate::Aborted;
        }
        log.marker();
    }
}

/// Ends the producer's open transaction, and writes its marker.
pub(super) fn end_transaction(inner: &mut SchedulerState, partition: i32, commits: bool) {
    let log = inner.cluster.partition(SimulatedTopic::Input, partition);
    let fate = if commits { Fate::Committed } else { Fate::Aborted };
    log.entries.iter_mut().filter(|entry| entry.fate == Fate::Open).for_each(|entry| entry.fate = fate);
    log.marker();
}

/// Returns the partition of a device's key. It changes when the topic grows: the device then learns again in the new
/// partition.
fn route(device: i32, partitions: i32) -> i32 {
    (device * 7 + 3) % partitions
}

/// Returns paths to the values of records that have an array of values.
pub(crate) fn array_fields(is_judged_partly: bool) -> Fields {
    Fields {
        device: "all[*].d".into(),
        value: "all[*].v".into(),
        on_partial: if is_judged_partly { OnPartial::JudgeValid } else { OnPartial::Reject },
        ..Fields::default()
    }
}

/// Returns an event in both of the forms that [`Schedule`] has.
pub(super) fn event(device: i32, value: &str) -> String {
    format!(r#"{{"device_id":"d{device}","metric_value":{value},"d":"d{device}","v":{value}}}"#)
}
