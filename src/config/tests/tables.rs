//! Tests of lists of tables: their order over files, their errors, and the limits that they lead to.

use super::super::*;
use super::{message, places};

/// Returns the collected settings, without the rules between them.
fn gathered(files: &[(&str, &str)]) -> Loaded {
    let (dir, places) = places(files, &[]);
    let mut report = SettingsReport::default();
    let entries = raw::gather(&places, None, &mut report);
    assert!(report.problems.is_empty(), "{report}");
    drop(dir);
    Loaded { settings: serde_json::from_value(raw::tree(&entries)).unwrap(), notices: Vec::new(), entries }
}

#[test]
fn tables_of_all_files_are_appended_in_order_and_the_last_match_wins_key_by_key() {
    // There are more than ten tables, so that their order is not that of their texts.
    let many = "[[detector.override]]\ndevice = \"fan-*\"\nwindow = 60\n".repeat(11);
    let loaded = gathered(&[
        ("common.toml", "[detector]\nwindow = 40\n"),
        ("detector.toml", &format!("{many}[[detector.override]]\ndevice = \"pump-*\"\nthreshold = 4\nwindow = 50\n")),
        ("conf.d/10.toml", "[[detector.override]]\nmetric = \"temp*\"\nthreshold = 5\nmethod = \"ewma\"\n"),
        ("conf.d/20.toml", "detector.override = [{ device = \"pump-?\", min_samples = 31 }]\n"),
    ]);
    assert_eq!(loaded.settings.detector.overrides.len(), 14);
    assert_eq!(loaded.settings.detector.overrides[12].metric.as_deref(), Some("temp*"));
    let limits = loaded.describe_policy("pump-1", "temperature");
    for (line, origin) in [
        ("window = 50 ", "detector.toml:37:10"),
        ("threshold = 5 ", "conf.d/10.toml:3:13"),
        ("min_samples = 31 ", "conf.d/20.toml:1:"),
        ("method = ewma ", "conf.d/10.toml:4:10"),
        ("min_std_dev = 0 ", "# default"),
        ("enabled = true ", "# default"),
    ] {
        let found = limits.lines().find(|found| found.starts_with(line));
        assert!(found.is_some_and(|found| found.contains(origin)), "{line} {origin}:\n{limits}");
    }
    assert!(loaded.describe_policy("other", "").contains("common.toml:2:10"));
    assert!(loaded.describe(None).contains("detector.override[12].threshold = 5.0"), "{}", loaded.describe(None));
}

#[test]
fn errors_in_tables_have_line_column_caret_and_the_nearest_key() {
    let text = "[[detector.override]]\ntreshold = 4\n[[detector.override]]\nwindow = 1\nmetric = 5\n\
                [[detector.override]]\n[[detector.overide]]\nwindow = 5\n";
    let message = message(&[("common.toml", text)], &[]);
    for part in [
        "unknown key `detector.override[0].treshold`",
        "did you mean `threshold`?",
        "common.toml:2:1",
        "`detector.override[1].window` has a wrong value",
        "expected a whole number from 2 to 100000",
        "common.toml:4:10",
        "common.toml:5:10",
        "[[detector.override]] is empty",
        "common.toml:6:",
        "unknown key `detector.overide`",
        "did you mean `detector.override`?",
        "common.toml:7:",
        "^^^",
        "5 problems",
    ] {
        assert!(message.contains(part), "{part} in:\n{message}");
    }
    for wrong in ["[detector]\noverride = 5", "[detector.override]\nwindow = 5", "[detector]\noverride = [5]"] {
        let message = super::message(&[("common.toml", wrong)], &[]);
        assert!(message.contains("`detector.override` is a list of tables"), "{message}");
        assert!(message.contains("expected tables below [[detector.override]]"), "{message}");
    }
}

#[test]
fn min_samples_must_not_exceed_the_window_of_any_series_and_both_places_are_shown() {
    let refused = message(
        &[
            ("common.toml", "[[detector.override]]\ndevice = \"pump-*\"\nmin_samples = 60\n"),
            ("conf.d/10.toml", "[[detector.override]]\nmetric = \"temp*\"\nwindow = 50\n"),
        ],
        &[],
    );
    for part in [
        "`detector.override[0].min_samples` (60) is more than `detector.override[1].window` (50)",
        "common.toml:3:15",
        "^^",
        "`detector.override[1].window` is from ",
        "conf.d/10.toml:3:10",
    ] {
        assert!(refused.contains(part), "{part} in:\n{refused}");
    }
    let refused = message(&[("common.toml", "[[detector.override]]\nwindow = 20\n")], &[]);
    for part in [
        "`detector.min_samples` (30) is more than `detector.override[0].window` (20)",
        "common.toml:2:10",
        "`detector.min_samples` is from default",
    ] {
        assert!(refused.contains(part), "{part} in:\n{refused}");
    }
    let fits = "[[detector.override]]\ndevice = \"a\"\nwindow = 20\nmin_samples = 20\nmethod = \"ewma\"\n";
    let (_dir, places) = places(&[("common.toml", fits)], &[]);
    let policy = load(&places).unwrap().settings.detection().policy;
    assert_eq!(policy.resolve("a", "m").method.value, "ewma");
}
