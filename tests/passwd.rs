//! Tests of `anomaly passwd`: which file it changes, and that no user is lost.

use std::io::{Write, pipe};
use std::os::unix::fs::{FileTypeExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::{CWD, FileType, Mode, makedev, mkfifoat, mknodat};

use super::common::{Ended, program};

/// Returns `anomaly passwd` with these arguments and a password on standard input.
fn passwd(arguments: &[&str], file: &Path) -> Command {
    let mut command = program(&["passwd", "--file", file.to_str().unwrap()]);
    let (reader, mut writer) = pipe().unwrap();
    writer.write_all(b"correct horse battery\n").unwrap();
    command.args(arguments).stdin(reader);
    command
}

fn names(file: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(file).unwrap();
    text.lines().map(|line| line.split(':').next().unwrap().to_owned()).collect()
}

#[test]
fn only_a_regular_file_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let [fifo, device, users] = ["fifo", "device", "users"].map(|name| dir.path().join(name));
    mkfifoat(CWD, &fifo, Mode::RUSR | Mode::WUSR).unwrap();
    // Only root may create a device. The system's own is not risked here.
    let has_device = mknodat(CWD, &device, FileType::CharacterDevice, Mode::RUSR | Mode::WUSR, makedev(1, 3)).is_ok();
    for (file, is_there) in [(&fifo, true), (&device, has_device)] {
        let ended = Ended::of(&mut passwd(&["ada"], file));
        assert!(!is_there || ended.code == Some(66) && ended.err.contains("not a regular file"), "{}", ended.err);
    }
    assert!(std::fs::metadata(&fifo).unwrap().file_type().is_fifo());
    assert!(!has_device || std::fs::metadata(&device).unwrap().file_type().is_char_device());
    assert_eq!(Ended::of(&mut passwd(&["ada"], dir.path())).code, Some(66));
    assert_eq!(Ended::of(&mut passwd(&["ada"], &users)).code, Some(0));
}

#[test]
fn a_symbolic_link_stays_and_its_target_is_changed() {
    let dir = tempfile::tempdir().unwrap();
    let [link, users] = ["link", "real/users"].map(|name| dir.path().join(name));
    std::fs::create_dir(dir.path().join("real")).unwrap();
    symlink("real/users", &link).unwrap();
    let ended = Ended::of(&mut passwd(&["ada"], &link));
    assert!(
        ended.code == Some(66) && ended.err.contains("a symbolic link to a file that does not exist"),
        "{}",
        ended.err
    );
    assert!(!users.exists() && link.is_symlink());
    for name in ["ada", "bob"] {
        std::fs::OpenOptions::new().append(true).create(true).open(&users).unwrap();
        assert_eq!(Ended::of(&mut passwd(&[name], &link)).code, Some(0));
    }
    assert!(link.is_symlink());
    assert_eq!(names(&users), ["ada", "bob"]);
}

#[test]
fn users_that_are_added_at_the_same_time_are_all_kept() {
    let dir = tempfile::tempdir().unwrap();
    let users = dir.path().join("users");
    let all = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let running = all.map(|name| passwd(&[name], &users).stdout(Stdio::null()).spawn().unwrap());
    for mut child in running {
        assert!(child.wait().unwrap().success());
    }
    let mut names = names(&users);
    names.sort();
    assert_eq!(names, all);
    // No other file is left in the directory.
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_byte_order_mark_is_part_of_no_name() {
    let dir = tempfile::tempdir().unwrap();
    let users = dir.path().join("users");
    std::fs::write(&users, "\u{feff}ada:viewer:x\nbob:viewer:y\n").unwrap();
    let ended = Ended::of(&mut passwd(&["ada"], &users));
    assert!(ended.code == Some(0) && ended.out.contains("ada changed"), "{}{}", ended.out, ended.err);
    assert_eq!(names(&users), ["bob", "ada"]);
    std::fs::write(&users, "\u{feff}ada:viewer:x\nbob:viewer:y\n").unwrap();
    let ended = Ended::of(&mut passwd(&["ada", "--remove"], &users));
    assert!(ended.code == Some(0) && ended.out.contains("ada removed"), "{}{}", ended.out, ended.err);
    assert_eq!(names(&users), ["bob"]);
}
