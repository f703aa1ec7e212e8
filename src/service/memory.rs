//! Finds how much memory this process may use: the limit of its cgroup, or the memory of the machine.

use std::path::Path;

use sysinfo::{MemoryRefreshKind, RefreshKind, System};

/// Root of the control groups of version 2.
const CGROUPS: &str = "/sys/fs/cgroup";

/// Returns the bytes that this process may use; `None` if neither limit can be read.
pub(crate) fn available() -> Option<u64> {
    let own = std::fs::read_to_string("/proc/self/cgroup").ok();
    let group = own.as_deref().and_then(|text| text.lines().find_map(|line| line.strip_prefix("0::")));
    let ram = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
    let machine = System::new_with_specifics(ram).ok().map(|machine| machine.total_memory()).filter(|bytes| *bytes > 0);
    let group = group.and_then(|group| limit_of(Path::new(CGROUPS), group));
    group.into_iter().chain(machine).min()
}

/// Returns the lowest `memory.max` of a control group and the groups above it.
fn limit_of(root: &Path, group: &str) -> Option<u64> {
    let group = root.join(group.trim().trim_start_matches('/'));
    let limits = group.ancestors().take_while(|path| path.starts_with(root));
    // The file contains `max` without a limit, and the root has no such file.
    limits.filter_map(|path| std::fs::read_to_string(path.join("memory.max")).ok()?.trim().parse().ok()).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_limit_of_a_control_group_and_its_parents_counts() {
        let root = tempfile::tempdir().unwrap();
        let slice = root.path().join("system.slice");
        let unit = slice.join("anomaly-detector.service");
        std::fs::create_dir_all(&unit).unwrap();
        let limit = || limit_of(root.path(), "/system.slice/anomaly-detector.service\n");
        assert_eq!(limit(), None);
        std::fs::write(unit.join("memory.max"), "2147483648\n").unwrap();
        std::fs::write(slice.join("memory.max"), "max\n").unwrap();
        assert_eq!(limit(), Some(2 << 30));
        std::fs::write(slice.join("memory.max"), "1073741824\n").unwrap();
        assert_eq!(limit(), Some(1 << 30));
    }
}
