//! Only "not found" counts as absent. Whatever else prevents reading the settings stops the start, or is reported.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use rustix::fs::{CWD, Mode, mkfifoat};

use super::super::*;
use super::{message, places};

/// Returns a user whom file modes restrict. Root may read everything, so root's tests read as user `nobody`.
fn someone() -> Option<Account> {
    account::is_root().then(|| Account::find("nobody").unwrap().expect("a user nobody"))
}

fn close(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// Returns the complaint about a settings directory with these files, one of which is not readable.
fn complaint_when_closed(files: &[(&str, &str)], closed: &str) -> String {
    let (dir, places) = places(files, &[]);
    close(dir.path(), 0o755);
    let path = dir.path().join(closed);
    close(&path, 0o000);
    let loaded = load_as(&places, someone().as_ref());
    close(&path, 0o755);
    loaded.expect_err(closed).message.replace(dir.path().to_str().unwrap(), "DIR")
}

#[test]
fn a_file_that_may_not_be_read_stops_the_start_with_the_path_and_the_remedy() {
    let one = [("common.toml", "[postgres]\nretention = \"0s\"\n")];
    for (files, closed, remedy) in [
        (&one[..], "", "chmod 0755 DIR"),
        (&one, "common.toml", "chgrp anomaly DIR/common.toml; chmod 0640 DIR/common.toml"),
        (&[("detector.toml", "")], "detector.toml", "chgrp anomaly DIR/detector.toml"),
        (&[("conf.d/10.toml", "")], "conf.d/10.toml", "chgrp anomaly DIR/conf.d/10.toml"),
        (&[("conf.d/10.toml", "")], "conf.d", "chmod 0755 DIR/conf.d"),
    ] {
        let message = complaint_when_closed(files, closed);
        assert!(message.contains(format!("cannot read DIR/{closed}").trim_end_matches('/')), "{message}");
        assert!(message.contains("Permission denied") && message.contains(remedy), "{closed}: {message}");
    }
}

#[test]
fn a_settings_directory_that_cannot_be_listed_is_read_and_its_other_files_are_said_to_be_unknown() {
    let (dir, places) = places(&[("common.toml", "[detector]\nwindow = 50\n"), ("site.toml", "")], &[]);
    close(dir.path(), 0o711);
    let loaded = load_as(&places, someone().as_ref()).unwrap();
    close(dir.path(), 0o755);
    assert_eq!(loaded.settings.detector.window, 50);
    assert!(loaded.notices.iter().any(|notice| notice.contains("cannot be listed")), "{:?}", loaded.notices);
}

#[test]
fn anything_that_is_no_regular_file_of_settings_stops_the_start() {
    let (dir, places) = places(&[("conf.d/50.toml", "")], &[]);
    let conf_d = dir.path().join("conf.d");
    let complain = |make: &dyn Fn(&Path), name: &str, why: &str| {
        let path = conf_d.join(name);
        make(&path);
        let message = load(&places).expect_err(name).message;
        assert!(message.contains(name) && message.contains(why), "{message}");
        std::fs::remove_file(&path).or_else(|_| std::fs::remove_dir(&path)).unwrap();
    };
    complain(&|path| symlink("/nowhere/x.toml", path).unwrap(), "dangling.toml", "a symbolic link that leads nowhere");
    complain(&|path| std::fs::create_dir(path).unwrap(), "directory.toml", "Is a directory");
    complain(&|path| std::fs::write(path, b"a = 1\nb = \"\xe4\"\n").unwrap(), "latin1.toml", "byte 6 of line 2");
    complain(&|path| mkfifoat(CWD, path, Mode::RUSR).unwrap(), "pipe.toml", "a named pipe, not a regular file");
    complain(&|path| symlink("/dev/zero", path).unwrap(), "zero.toml", "a device, not a regular file");
    complain(&|path| std::fs::write(path, vec![b'#'; (1 << 20) + 1]).unwrap(), "large.toml", "more than 1 MiB");
    complain(&|path| std::fs::write(path, b"\xff\xfea\0=\x001\0").unwrap(), "utf16.toml", "it is UTF-16");
    std::fs::remove_dir_all(&conf_d).unwrap();
    std::fs::write(&conf_d, "").unwrap();
    assert!(load(&places).expect_err("a file").message.contains("Not a directory"));
    let file = SettingFiles { dir: conf_d, ..SettingFiles::default() };
    assert!(load(&file).expect_err("a file").message.contains("is not a directory"));
}

#[test]
fn a_drop_in_that_is_a_link_to_dev_null_is_empty_and_a_secret_is_a_regular_file() {
    let (dir, mut places) = places(&[("conf.d/50.toml", "[detector]\nwindow = 50\n")], &[]);
    symlink("/dev/null", dir.path().join("conf.d/60.toml")).unwrap();
    assert_eq!(load(&places).unwrap().settings.detector.window, 50);
    let secret = dir.path().join("secret");
    mkfifoat(CWD, &secret, Mode::RUSR).unwrap();
    places.env = vec![("ANOMALY__POSTGRES__PASSWORD_FILE".into(), secret.display().to_string())];
    let message = load(&places).expect_err("a pipe").message;
    assert!(message.contains("a named pipe, not a regular file"), "{message}");
}

#[test]
fn a_byte_order_mark_is_skipped_and_files_that_are_not_read_are_named() {
    let (_dir, places) = places(
        &[
            ("conf.d/50.toml", "\u{feff}[detector]\r\nwindow = 50\r\n"),
            ("conf.d/60.conf", "[detector]\nwindow = 60\n"),
            ("conf.d/.#70.toml", "nonsense of an editor"),
            ("site.toml", "[detector]\nwindow = 70\n"),
            ("Common.toml", "[detector]\nwindow = 80\n"),
            ("common.TOML", "[detector]\nwindow = 90\n"),
            ("config.d/10.toml", "[detector]\nwindow = 90\n"),
            ("producer.toml", ""),
            ("tls/users", ""),
            (".common.toml.swp", ""),
        ],
        &[],
    );
    let loaded = load(&places).unwrap();
    assert_eq!(loaded.settings.detector.window, 50);
    assert_eq!(loaded.notices.len(), 6, "{:?}", loaded.notices);
    for name in ["60.conf", "site.toml", "Common.toml", "common.TOML", "config.d"] {
        let says = format!("{name} is not read");
        assert!(loaded.notices.iter().any(|notice| notice.contains(&says)), "{:?}", loaded.notices);
    }
}

#[test]
fn a_secret_is_one_line_whatever_ends_it_and_neither_empty_nor_several_lines() {
    for (text, expected) in [
        ("hush", Ok("hush")),
        ("hush\n", Ok("hush")),
        ("hush\r\n", Ok("hush")),
        ("\u{feff}hush \n\n", Ok("hush ")),
        ("", Err("is empty")),
        ("\r\n", Err("is empty")),
        ("hush\nhush\n", Err("has more than one line")),
    ] {
        for place in ["credentials/postgres.password", "elsewhere"] {
            let (dir, mut places) = places(&[(place, text)], &[]);
            if place == "elsewhere" {
                let path = dir.path().join(place).display().to_string();
                places.env = vec![("ANOMALY__POSTGRES__PASSWORD_FILE".into(), path)];
            }
            match (load(&places), expected) {
                (Ok(loaded), Ok(expected)) => assert_eq!(loaded.settings.postgres.password.reveal(), expected),
                (Err(error), Err(why)) => {
                    assert!(error.message.contains(why) && !error.message.contains("hush"), "{}", error.message);
                }
                (got, expected) => panic!("{text:?} in {place}: {:?}, not {expected:?}", got.map(|got| got.notices)),
            }
        }
    }
}

#[test]
fn missing_credentials_are_none_and_unreadable_ones_are_reported() {
    let (dir, mut places) = places(&[("credentials/postgres.password", "hush")], &[]);
    close(dir.path(), 0o755);
    let kept = dir.path().join("credentials");
    places.credentials = Some(dir.path().join("gone"));
    assert_eq!(load(&places).unwrap().settings.postgres.password.reveal(), "");
    // Credentials that systemd names must be readable.
    places.credentials = Some(kept.join("postgres.password"));
    assert!(load(&places).expect_err("no directory").message.contains("Not a directory"));
    // Where root stores them, other users have none, and a notice says so.
    places.credentials = None;
    assert_eq!(load(&places).unwrap().settings.postgres.password.reveal(), "hush");
    close(&kept, 0o000);
    let load = || load(&places).map(|loaded| loaded.notices);
    let notices = someone().map_or_else(load, |someone| someone.act(load).unwrap()).unwrap();
    close(&kept, 0o700);
    assert!(notices.len() == 1 && notices[0].contains("are not used"), "{notices:?}");
}

#[test]
fn names_that_are_patterns_or_that_kafka_refuses_are_refused_for_every_topic_and_group() {
    let long = "x".repeat(250);
    let report = |key: &str, wrong: &str| {
        let (section, name) = key.split_once('.').unwrap();
        let report = message(&[("common.toml", &format!("[{section}]\n{name} = \"{wrong}\"\n"))], &[]);
        assert!(report.contains("common.toml:2:") && report.contains(&format!("`{key}`")), "{wrong}: {report}");
    };
    for key in ["topics.raw_events", "topics.anomalies", "topics.dead_letter", "topics.state"] {
        ["^raw.*", &long, "a b", ".", "", "r\u{fc}hr"].into_iter().for_each(|wrong| report(key, wrong));
    }
    for key in ["detector.group", "sink.group"] {
        ["^group", &long, ""].into_iter().for_each(|wrong| report(key, wrong));
    }
    let twins = "[topics]\nstate = \"anomaly.state\"\nanomalies = \"anomaly_state\"\n";
    let report = message(&[("common.toml", twins)], &[]);
    assert!(report.contains("differ in dots and underscores only"), "{report}");
    let longest = format!("[topics]\nraw_events = \"{}\"\n", &long[1..]);
    let (_dir, places) = places(&[("common.toml", &longest)], &[]);
    assert!(load(&places).is_ok());
}
