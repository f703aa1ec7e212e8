//! This machine's own metrics: processor, memory, load, disks and network, once per interval.

use std::collections::VecDeque;
use std::time::Duration;

use sysinfo::{Disks, Networks, System};

use super::{EventSource, SourceEvent, SourceStep, Writer};
use crate::error::{Error, Result};
use crate::event::{Fields, Timestamp};

/// The source of host metrics. The device is the host name.
pub(crate) struct Host {
    device: String,
    interval: Duration,
    due: Duration,
    last: Duration,
    writer: Writer,
    system: System,
    disks: Disks,
    networks: Networks,
    queue: VecDeque<SourceEvent>,
}

impl Host {
    /// Creates the source. The first reading is due after one interval, because rates need two.
    ///
    /// # Errors
    /// 69 if the system does not provide the metrics.
    pub(crate) fn new(interval: Duration, fields: &Fields) -> Result<Self> {
        let silent = |e: sysinfo::Error| Error::unavailable(format_args!("this machine's metrics cannot be read: {e}"));
        let mut system = System::new().map_err(silent)?;
        system.refresh_cpu_usage();
        Ok(Host {
            device: System::host_name().ok().filter(|name| !name.is_empty()).unwrap_or_else(|| "localhost".into()),
            interval,
            due: interval,
            last: Duration::ZERO,
            writer: Writer::new(fields),
            system,
            disks: Disks::new_with_refreshed_list().map_err(silent)?,
            networks: Networks::new_with_refreshed_list().map_err(silent)?,
            queue: VecDeque::new(),
        })
    }

    /// Reads all metrics; `elapsed` is the time since the last reading, for rates.
    fn read(&mut self, elapsed: Duration) {
        let seconds = elapsed.as_secs_f64();
        self.system.refresh_cpu_usage();
        self.system.refresh_memory();
        self.disks.refresh(true);
        self.networks.refresh(true);
        let percent = |part: u64, whole: u64| if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 };
        let mut readings = vec![
            ("cpu_used_percent".to_owned(), f64::from(self.system.global_cpu_usage())),
            ("memory_used_percent".to_owned(), percent(self.system.used_memory(), self.system.total_memory())),
        ];
        if let Ok(load) = System::load_average() {
            readings.push(("load_average_1m".to_owned(), load.one));
        }
        for disk in &self.disks {
            let mount = disk.mount_point().display();
            let used = disk.total_space().saturating_sub(disk.available_space());
            readings.push((format!("disk_used_percent:{mount}"), percent(used, disk.total_space())));
            let usage = disk.usage();
            readings.push((format!("disk_read_bytes_per_second:{mount}"), usage.read_bytes as f64 / seconds));
            readings.push((format!("disk_written_bytes_per_second:{mount}"), usage.written_bytes as f64 / seconds));
        }
        for (name, network) in &self.networks {
            let name = name.display();
            readings.push((format!("network_received_bytes_per_second:{name}"), network.received() as f64 / seconds));
            readings.push((format!("network_sent_bytes_per_second:{name}"), network.transmitted() as f64 / seconds));
        }
        let now = Timestamp::now();
        for (metric, value) in readings {
            let value = self.writer.event(&self.device, Some(&metric), value, Some(now));
            self.queue.push_back(SourceEvent { key: Some(self.device.clone().into_bytes()), value, label: None });
        }
    }
}

impl EventSource for Host {
    fn next(&mut self, elapsed: Duration) -> Result<SourceStep> {
        if self.queue.is_empty() {
            if elapsed < self.due {
                return Ok(SourceStep::Wait(self.due - elapsed));
            }
            self.read(elapsed.saturating_sub(self.last));
            self.last = elapsed;
            // A missed reading is skipped, because past values cannot be read.
            while self.due <= elapsed {
                self.due += self.interval;
            }
        }
        Ok(self.queue.pop_front().map_or(SourceStep::Wait(self.interval), SourceStep::Event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::decode;

    #[test]
    fn a_reading_gives_events_of_processor_memory_load_disks_and_network() {
        let mut host = Host::new(Duration::from_millis(100), &Fields::default()).unwrap();
        assert!(matches!(host.next(Duration::ZERO).unwrap(), SourceStep::Wait(_)));
        let mut metrics = Vec::new();
        while let SourceStep::Event(sample) = host.next(Duration::from_millis(150)).unwrap() {
            let event = decode(Some(&sample.value), &Fields::default()).unwrap();
            metrics.push(event.metric_name.unwrap().into_owned());
        }
        for wanted in ["cpu_used_percent", "memory_used_percent", "load_average_1m"] {
            assert!(metrics.iter().any(|m| m == wanted), "{wanted} in {metrics:?}");
        }
        assert!(metrics.iter().any(|m| m.starts_with("disk_written_bytes_per_second:/")), "{metrics:?}");
        assert!(metrics.iter().any(|m| m == "network_received_bytes_per_second:lo"), "{metrics:?}");
    }
}
