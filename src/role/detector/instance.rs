//! The name of this instance, and the names by which Kafka knows its workers.

use crate::config::Settings;
use crate::error::{Error, Result};
use crate::stream::kafka::MemberNames;

/// Returns the name of this instance: the setting, or the machine's id, or its host name if it has no id. There is no
/// further default, because two detectors with the same name would take over each other's place.
///
/// # Errors
/// 78 if the machine has neither, or its id cannot be read.
pub(super) fn instance(settings: &Settings) -> Result<String> {
    const MACHINE_ID: &str = "/etc/machine-id";
    const REMEDY: &str = "set detector.instance to a name that no other detector of the group has";
    if !settings.detector.instance.is_empty() {
        return Ok(settings.detector.instance.clone());
    }
    let id = match std::fs::read_to_string(MACHINE_ID) {
        Ok(id) => id.trim().to_owned(),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(e) => return Err(Error::config(format_args!("cannot read {MACHINE_ID}: {e}; {REMEDY}"))),
    };
    // systemd writes this until the first boot is complete.
    if !id.is_empty() && id != "uninitialized" {
        return Ok(id);
    }
    match sysinfo::System::host_name() {
        Ok(name) if !name.is_empty() && name != "localhost" => Ok(name),
        _ => {
            Err(Error::config(format_args!("this machine has neither an id in {MACHINE_ID} nor a host name; {REMEDY}")))
        }
    }
}

/// Returns the names by which Kafka knows a worker of this instance.
pub(super) fn names(settings: &Settings, instance: &str, index: usize) -> MemberNames {
    let group = &settings.detector.group;
    MemberNames {
        topics: settings.topics.clone(),
        group: group.clone(),
        member: format!("{instance}-{index}"),
        worker: index,
        transactional_id: format!("{group}-{instance}-{index}"),
    }
}
