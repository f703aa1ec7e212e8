//! Tests of precedence, places and remedies of settings.

mod absence;
mod tables;
mod unusable;

use std::path::Path;

use super::*;

/// Creates a settings directory with these files.
fn places(files: &[(&str, &str)], env: &[(&str, &str)]) -> (tempfile::TempDir, SettingFiles) {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let places = SettingFiles {
        dir: dir.path().to_owned(),
        required: true,
        file: Some(ShippedFile::Detector),
        env: env.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
        credentials: None,
    };
    (dir, places)
}

fn message(files: &[(&str, &str)], env: &[(&str, &str)]) -> String {
    let (_dir, places) = places(files, env);
    load(&places).expect_err("must not load").message
}

#[test]
fn every_setting_that_names_a_file_is_declared_as_a_path() {
    for key in schema::keys() {
        let is_file = key.doc.starts_with("PEM file") || key.doc.starts_with("File ") || key.path.ends_with("file");
        assert_eq!(key.kind == schema::ValueType::Path, is_file, "{}", key.path);
    }
}

#[test]
fn later_places_win_over_earlier_ones() {
    let (dir, mut places) = places(
        &[
            (
                "common.toml",
                "[detector]\nwindow = 40\nthreshold = 4\n[postgres]\nport = 1\nuser = \"a\"\npassword = \"p\"",
            ),
            ("detector.toml", "[detector]\nwindow = 50\nmin_samples = 31\n[postgres]\nport = 2"),
            ("producer.toml", "nonsense that the detector does not read"),
            ("conf.d/20.toml", "[postgres]\nport = 4"),
            ("conf.d/10.toml", "[postgres]\nport = 3\nuser = \"b\""),
            ("secrets/postgres.password", "from-credential\n"),
        ],
        &[("ANOMALY__DETECTOR__MIN_SAMPLES", "32"), ("HOME", "/")],
    );
    places.credentials = Some(dir.path().join("secrets"));
    let settings = load(&places).unwrap().settings;
    assert_eq!((settings.detector.window, settings.detector.threshold, settings.detector.min_samples), (50, 4.0, 32));
    assert_eq!((settings.postgres.port, settings.postgres.user.as_str()), (4, "b"));
    assert_eq!(settings.postgres.password.reveal(), "from-credential");
}

#[test]
fn five_errors_are_reported_at_once_each_with_line_column_and_caret() {
    let text =
        "[detector]\nwindw = 5\nwindow = \"x\"\nthreshold = -1.0\nmethod = \"magic\"\n\n[postgres]\nport = 99999\n";
    let message = message(&[("common.toml", text)], &[]);
    for place in ["common.toml:2:1", "common.toml:3:10", "common.toml:4:13", "common.toml:5:10", "common.toml:8:8"] {
        assert!(message.contains(place), "{place} in:\n{message}");
    }
    assert!(message.contains("did you mean `detector.window`?"), "{message}");
    assert!(message.contains("^^^"), "{message}");
    assert!(message.contains("5 problems"), "{message}");
}

#[test]
fn broken_toml_names_the_place() {
    let message = message(&[("common.toml", "[kafka]\nbootstrap_servers = \n")], &[]);
    assert!(message.contains("common.toml:2:"), "{message}");
}

#[test]
fn an_unknown_variable_is_refused_with_the_nearest_name() {
    let message = message(&[], &[("ANOMALY__KAFKA__BOOTSTRAP_SERVER", "x")]);
    assert!(message.contains("did you mean ANOMALY__KAFKA__BOOTSTRAP_SERVERS?"), "{message}");
}

#[test]
fn properties_that_would_break_the_guarantee_are_refused_by_name() {
    let text = "[kafka.properties]\n\"isolation.level\" = \"read_uncommitted\"\n\"linger.ms\" = 5\n";
    let message = message(&[("common.toml", text)], &[]);
    assert!(message.contains("isolation.level") && message.contains("common.toml:2:1"), "{message}");
    assert!(!message.contains("linger.ms` "), "{message}");
}

#[test]
fn properties_pass_through_as_dotted_tables_and_variables() {
    let text = "[kafka]\nproperties.linger.ms = 5\nproperties.\"sasl.password\" = \"hush\"\n";
    let (_dir, places) = places(&[("common.toml", text)], &[("ANOMALY__KAFKA__PROPERTIES__SECURITY_PROTOCOL", "ssl")]);
    let loaded = load(&places).unwrap();
    let properties = &loaded.settings.kafka.properties;
    assert_eq!(properties["linger.ms"], "5");
    assert_eq!(properties["security.protocol"], "ssl");
    let shown = loaded.describe(None) + &format!("{:?}", loaded.settings);
    assert!(!shown.contains("hush"), "{shown}");
}

#[test]
fn a_property_that_librdkafka_refuses_is_reported_with_its_place_and_without_its_value() {
    for (line, why) in [
        ("\"sasl.pasword\" = \"hunter2\"", "No such configuration property"),
        ("\"security.protocol\" = \"hunter2\"", "Invalid value"),
        ("\"socket.timeout.ms\" = \"hunter2\"", "socket.timeout.ms"),
    ] {
        let message = message(&[("common.toml", &format!("[kafka.properties]\n{line}\n"))], &[]);
        assert!(message.contains("common.toml:2:") && message.contains("cannot be used"), "{message}");
        assert!(message.contains(why), "{message}");
        assert!(!message.contains("hunter2"), "{message}");
    }
    let unset = message(&[], &[("ANOMALY__KAFKA__PROPERTIES__SASL_PASWORD", "hunter2")]);
    assert!(unset.contains("ANOMALY__KAFKA__PROPERTIES__SASL_PASWORD") && !unset.contains("hunter2"), "{unset}");
}

#[test]
fn empty_names_equal_topics_and_a_step_that_is_no_time_are_reported_with_their_places() {
    let text = "[topics]\ndead_letter = \"anomalies\"\n[kafka]\nbootstrap_servers = \"\"\n";
    let report = message(&[("common.toml", text)], &[]);
    assert!(report.contains("common.toml:2:15") && report.contains("same topic as `topics.anomalies`"), "{report}");
    assert!(report.contains("common.toml:4:21") && report.contains("`kafka.bootstrap_servers` is empty"), "{report}");
    for step in ["ten", "0s"] {
        let report = message(&[("common.toml", &format!("[producer]\nstep = \"{step}\"\n"))], &[]);
        assert!(report.contains("common.toml:2:8") && report.contains("producer.step"), "{report}");
    }
}

#[test]
fn a_secret_may_come_from_a_file_and_is_never_shown() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pw");
    std::fs::write(&file, "hush\n").unwrap();
    let path = file.to_str().unwrap();
    for name in ["ANOMALY__POSTGRES__PASSWORD_FILE", "ANOMALY__KAFKA__PROPERTIES__SASL_PASSWORD_FILE"] {
        let (_dir, places) = places(&[], &[(name, path)]);
        let loaded = load(&places).unwrap();
        let properties = loaded.settings.kafka.properties.get("sasl.password").map(String::as_str);
        assert!(loaded.settings.postgres.password.reveal() == "hush" || properties == Some("hush"), "{name}");
        assert!(!format!("{}{:?}", loaded.describe(None), loaded.settings).contains("hush"), "{name}");
    }
}

#[test]
fn a_missing_secret_file_and_a_missing_directory_are_named() {
    let gone = message(&[], &[("ANOMALY__POSTGRES__PASSWORD_FILE", "/nowhere/pw")]);
    assert!(gone.contains("/nowhere/pw"), "{gone}");
    let places = SettingFiles { dir: "/nowhere/at/all".into(), required: true, ..SettingFiles::default() };
    assert!(load(&places).unwrap_err().message.contains("/nowhere/at/all"));
}

#[test]
fn settings_that_contradict_one_another_are_shown_where_they_were_set() {
    let message = message(&[("common.toml", "[detector]\nwindow = 10\n")], &[]);
    assert!(message.contains("common.toml:2:10") && message.contains("min_samples"), "{message}");
}

#[test]
fn a_path_that_cannot_be_read_is_refused_with_its_place_and_the_remedy() {
    for (path, remedy) in [
        ("*", "name the object"),
        ("values[]", "name all elements of the array"),
        ("values[0]", "name all elements of the array"),
        ("a[*].b[*]", "use `*` once"),
        ("a.*.b.*", "use `*` once"),
        ("a,b", "name one path"),
    ] {
        let text = message(&[("common.toml", &format!("[fields]\nvalue = \"{path}\""))], &[]);
        assert!(text.contains("common.toml:2:9") && text.contains(remedy), "{text}");
    }
    let two = message(&[("common.toml", "[fields]\nvalue = \"a[*].v\"\ntime = \"b[*].t\"")], &[]);
    assert!(two.contains("common.toml:3:8") && two.contains("same array or object"), "{two}");
    let env = message(&[], &[("ANOMALY__FIELDS__TIME_ZONE", "CET"), ("ANOMALY__FIELDS__TIME_UNIT", "minutes")]);
    assert!(env.contains("expected one of: auto, s, ms, us, ns"), "{env}");
}

#[test]
fn a_list_is_an_array_in_a_file_and_a_text_with_commas_in_a_variable() {
    let list = |files: &[(&str, &str)], env: &[(&str, &str)]| {
        let (_dir, places) = places(files, env);
        load(&places).unwrap().settings.fields.ignore
    };
    let expected = ["type=a, b", "!v"];
    assert_eq!(list(&[("common.toml", "[fields]\nignore = [\"type=a, b\", \"!v\"]")], &[]), expected);
    assert_eq!(list(&[], &[("ANOMALY__FIELDS__IGNORE", "type=a, !v")]), ["type=a", "!v"]);
    for wrong in ["[1]", "\"type=a, !v\""] {
        let wrong = message(&[("common.toml", &format!("[fields]\nignore = {wrong}"))], &[]);
        assert!(wrong.contains("common.toml:2:10") && wrong.contains("expected strings such as"), "{wrong}");
    }
}

#[test]
fn an_empty_file_means_the_defaults() {
    let (_dir, places) = places(&[("common.toml", ""), ("detector.toml", "\n\n")], &[]);
    let settings = load(&places).unwrap().settings;
    assert_eq!((settings.detector.window, settings.detector.threshold), (100, 3.0));
    assert_eq!(settings.detection(), crate::detect::DetectionSettings::default());
    assert_eq!(settings.fields, crate::event::Fields::default());
}

/// A method that is registered without a description would be offered to users without a word.
#[test]
fn the_setting_and_the_manual_describe_each_method() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manual = std::fs::read_to_string(root.join("docs/manual.md")).unwrap();
    let mut keys = resolved::SECTIONS.iter().flat_map(|section| section.keys);
    let setting = keys.find(|key| key.path == "detector.method").unwrap();
    for name in crate::method::NAMES {
        assert!(setting.doc.contains(&format!("{name}: ")), "detector.method does not describe {name}");
        assert!(manual.contains(&format!("| `{name}`")), "docs/manual.md does not describe {name}");
    }
}

/// Compares the shipped files with the schema; `UPDATE=1 cargo test` writes the files again.
#[test]
fn the_shipped_files_show_every_key_and_load_unchanged() {
    let etc = Path::new(env!("CARGO_MANIFEST_DIR")).join("etc");
    for file in ShippedFile::ALL {
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(etc.join(file.name()), shipped(file)).unwrap();
        }
        assert_eq!(std::fs::read_to_string(etc.join(file.name())).unwrap(), shipped(file), "{}", file.name());
        // With the # of every setting removed, they mean the same as without it.
        let text = shipped(file);
        let bare = text.lines().map(|line| match line.strip_prefix('#') {
            Some(setting) if !setting.starts_with(' ') && !setting.starts_with("properties") => format!("{setting}\n"),
            _ => format!("{line}\n"),
        });
        let (_dir, mut all) = places(&[(file.name(), &bare.collect::<String>())], &[]);
        all.file = Some(file);
        let defaults = load(&SettingFiles::default()).unwrap().settings;
        let mut shown = load(&all).unwrap().settings;
        // The example of a table is no default.
        let examples = std::mem::take(&mut shown.detector.overrides);
        assert_eq!(examples.len(), usize::from(file == ShippedFile::Detector));
        assert_eq!(shown, defaults, "{}", file.name());
    }
}

#[test]
fn a_secret_under_a_wrong_name_of_a_wrong_type_or_in_broken_toml_is_not_shown() {
    for line in [
        "[postgres]\npasword = \"hunter2\"",
        "[kafka]\n\"sasl.password\" = \"hunter2\"",
        "[postgres]\npassword = [\"hunter2\"]",
        "[postgres]\npassword = \"hunter2\\q\"",
        "[postgres]\npassword = hunter2",
        "[postgres]\npassword hunter2",
        "[postgres]\npassword: hunter2",
        "[postgres]\npassword = \"\"\"\\\nhunter2",
        "[postgres]\npassword = \"\"\"\\\nhunter2==",
        "[postgres]\npassword = [\"hunter2\"q]",
    ] {
        let message = message(&[("common.toml", line)], &[]);
        assert!(message.contains("common.toml:2:") || message.contains("common.toml:3:"), "{message}");
        assert!(!message.contains("hunter2"), "{message}");
    }
}

#[test]
fn an_error_excerpt_shows_a_list_unless_it_may_be_a_secret() {
    let text = "[fields]\nignore = [\"v=1\", 2026-01-01]\n[detector]\nwindow = [[1979-05-27]]\n";
    let shown = message(&[("common.toml", text)], &[]);
    assert!(shown.contains("ignore = [\"v=1\", 2026-01-01]") && shown.contains("window = [[1979-05-27]]"), "{shown}");
    for line in [
        "[postgres]\npassword = [\"hunter2\", 2026-01-01]",
        "[postgres]\npasword = [\"hunter2\", 2026-01-01]",
        "[kafka.properties]\n\"sasl.password\" = [\"hunter2\", 2026-01-01]",
    ] {
        let masked = message(&[("common.toml", line)], &[]);
        assert!(masked.contains("common.toml:2:") && !masked.contains("hunter2"), "{masked}");
    }
}
