//! Tests of values that cannot work, of contradictions, and of how foreign text is shown.

use super::{message, places};
use crate::config::load;

#[test]
fn values_that_cannot_work_are_refused_at_their_place() {
    for (section, key, values) in [
        (
            "kafka",
            "bootstrap_servers",
            &["k:99999", "k:0", "k:", "k:9092,,l:9092", "k:9092,", "a b:9092", "[::1]9092"][..],
        ),
        ("postgres", "host", &["", " ", "a,,b", "a b", "a\\u0000"]),
        ("postgres", "dbname", &["", "a\\u0000b"]),
        ("postgres", "user", &["", "a\\nb"]),
        ("postgres", "password", &["a\\u0000b"]),
        ("postgres", "sslrootcert", &["/a\\u0000b"]),
        ("migrate", "reader", &["a\\u0000b"]),
        ("topics", "raw_events", &["a\\u0000", "a\\nb"]),
        ("detector", "group", &["a\\u0000b", "a\\nb"]),
        ("detector", "instance", &["a\\u0000b", "a\\nb", "a b", "ä"]),
        ("sink", "group", &["a\\u001bb"]),
        ("dashboard", "listen", &["off", "224.0.0.1:80", "255.255.255.255:80", "[ff02::1]:80"]),
        ("metrics", "listen", &["224.0.0.1:80"]),
        ("dashboard", "proxy_header", &["X User", "X-User:"]),
        ("dashboard", "proxy_secret", &["short", "sixteen and blanks", "ääääääääääääääää"]),
    ] {
        for value in values {
            let text = format!("[{section}]\n{key} = \"{value}\"\n");
            let message = message(&[("common.toml", &text)], &[]);
            assert!(message.contains(&format!("common.toml:2:{}", key.len() + 4)), "{text}{message}");
            let says_what = message.contains("expected") || message.contains("needs");
            assert!(message.contains('^') && says_what, "{message}");
        }
    }
}

#[test]
fn values_that_work_are_accepted() {
    for (section, key, value) in [
        ("kafka", "bootstrap_servers", "k, SASL_SSL://l:9093,[::1]:9092,::1,10.0.0.1:1"),
        ("postgres", "host", "/run/postgresql, ::1,db.example"),
        ("detector", "instance", "host-1.example_2"),
        ("metrics", "listen", "off"),
        ("dashboard", "proxy_header", "X-Forwarded-User"),
        ("dashboard", "proxy_secret", "0123456789abcdef"),
    ] {
        let (_dir, places) = places(&[("common.toml", &format!("[{section}]\n{key} = \"{value}\"\n"))], &[]);
        assert!(load(&places).is_ok(), "{key} = {value}");
    }
    let (_dir, places) = places(&[("common.toml", "[fields]\nignore = [\"a=b\\tc\"]\n")], &[]);
    assert!(load(&places).is_ok());
}

#[test]
fn hosts_of_the_proxy_are_names_without_scheme_and_port() {
    for (hosts, is_usable) in
        [("watch.example.com\", \"*", true), ("https://watch.example.com", false), ("watch:80", false), ("", false)]
    {
        let (_dir, places) = places(&[("common.toml", &format!("[dashboard]\nproxy_hosts = [\"{hosts}\"]\n"))], &[]);
        assert_eq!(load(&places).is_ok(), is_usable, "{hosts}");
    }
}

#[test]
fn an_unusable_secret_of_the_proxy_is_not_printed() {
    let message = message(&[("common.toml", "[dashboard]\nproxy_secret = \"hidden\"\n")], &[]);
    assert!(message.contains("dashboard.proxy_secret") && !message.contains("hidden"), "{message}");
}

#[test]
fn two_values_for_one_setting_in_one_place_are_refused_with_both_places() {
    let properties = "[kafka.properties]\nlinger.ms = 5\n\"linger.ms\" = 6\n";
    let setting = "\"detector.window\" = 40\n[detector]\nwindow = 50\n";
    for text in [properties, setting] {
        let message = message(&[("common.toml", text)], &[]);
        assert!(message.contains("is set twice") && message.matches("common.toml:").count() == 2, "{message}");
    }
    let variables = [("ANOMALY__DETECTOR__WINDOW", "40"), ("ANOMALY__detector__WINDOW", "50")];
    let message = message(&[], &variables);
    assert!(variables.iter().all(|(name, _)| message.contains(name)), "{message}");
}

#[test]
fn two_names_of_one_property_are_refused_unless_they_agree() {
    let first = ("common.toml", "[kafka.properties]\n\"sasl.mechanisms\" = \"PLAIN\"\n");
    let second = |value: &str| format!("[kafka.properties]\n\"sasl.mechanism\" = \"{value}\"\n");
    let message = message(&[first, ("conf.d/1.toml", &second("SCRAM-SHA-256"))], &[]);
    assert!(message.contains("conf.d/1.toml:2:20") && message.contains("common.toml:2:21"), "{message}");
    let (_dir, places) = places(&[first, ("conf.d/1.toml", &second("PLAIN"))], &[]);
    assert!(load(&places).is_ok());
}

#[test]
fn a_secret_and_the_file_of_that_secret_are_refused_with_both_places_unless_one_has_precedence() {
    let value = |section: &str| format!("[{section}]\npassword = \"hush\"\n");
    let file = |section: &str| format!("[{section}]\npassword_file = \"/nowhere\"\n");
    for section in ["postgres", "migrate", "reviews"] {
        let together = format!("{}password_file = \"/nowhere\"\n", value(section));
        let message = message(&[("conf.d/1.toml", &together)], &[]);
        assert!(
            message.contains(&format!("`{section}.password` and `{section}.password_file` are both set")),
            "{message}"
        );
        assert!(message.contains("1.toml:3:17") && message.contains("1.toml:2:12"), "{message}");
        assert!(!message.contains("hush"), "{message}");
    }
    for (one, two) in [(value("postgres"), file("postgres")), (file("postgres"), value("postgres"))] {
        let message = message(&[("common.toml", &one), ("conf.d/1.toml", &two)], &[]);
        assert!(message.contains("common.toml:2:") && message.contains("1.toml:2:"), "{message}");
        // An empty value takes the other one back, and a place of higher precedence wins.
        let two = two.replace("hush", "").replace("/nowhere", "");
        let (dir, _) = places(&[("secret", "from-file")], &[]);
        let one = one.replace("/nowhere", &dir.path().join("secret").display().to_string());
        let (_dir, places) = places(&[("common.toml", &one), ("conf.d/1.toml", &two)], &[]);
        assert!(load(&places).is_ok(), "{:?}", load(&places).err());
    }
    let (_dir, places) = places(&[("common.toml", &file("postgres"))], &[("ANOMALY__POSTGRES__PASSWORD", "a")]);
    assert_eq!(load(&places).unwrap().settings.postgres.password.reveal(), "a");
}

#[test]
fn a_variable_and_the_variable_of_its_file_are_refused_with_both_names() {
    const PROPERTY: &str = "ANOMALY__KAFKA__PROPERTIES__SASL_PASSWORD";
    let (dir, mut empty) = places(&[("secret", "s"), ("other/secret", "s"), ("c/postgres.password", "s")], &[]);
    let (file, other) = (dir.path().join("secret").display().to_string(), dir.path().join("other/secret"));
    let other = other.display().to_string();
    for variables in [
        [("ANOMALY__POSTGRES__PASSWORD", "x"), ("ANOMALY__POSTGRES__PASSWORD_FILE", file.as_str())],
        [(PROPERTY, "x"), ("ANOMALY__KAFKA__PROPERTIES__SASL_PASSWORD_FILE", &file)],
        [(PROPERTY, "x"), ("ANOMALY__KAFKA__PROPERTIES__SASL__PASSWORD_FILE", &file)],
        [
            ("ANOMALY__KAFKA__PROPERTIES__SASL__PASSWORD", "x"),
            ("ANOMALY__KAFKA__PROPERTIES__SASL_PASSWORD_FILE", &file),
        ],
        [
            ("ANOMALY__KAFKA__PROPERTIES__SASL_PASSWORD_FILE", &file),
            ("ANOMALY__KAFKA__PROPERTIES__SASL__PASSWORD_FILE", &other),
        ],
    ] {
        let message = message(&[], &variables);
        assert!(variables.iter().all(|(name, _)| message.contains(name)), "{message}");
        assert!(!message.contains("problems"), "{message}");
    }
    // Two credentials of one setting.
    empty.credentials = Some(dir.path().join("c"));
    assert!(load(&empty).is_ok());
    std::fs::write(dir.path().join("c/anomaly_postgres.password"), "t").unwrap();
    let message = load(&empty).expect_err("must not load").message;
    assert!(message.contains("c/anomaly_postgres.password") && message.contains("c/postgres.password"), "{message}");
}

#[test]
fn two_sources_of_one_certificate_or_key_are_refused_with_both_places() {
    let first = ("common.toml", "[kafka.properties]\n\"ssl.key.location\" = \"/k\"\n");
    let second = ("conf.d/1.toml", "[kafka.properties]\n\"ssl.key.pem\" = \"hush\"\n");
    let message = message(&[first, second], &[]);
    assert!(message.contains("common.toml:2:22") && message.contains("1.toml:2:17"), "{message}");
    assert!(!message.contains("hush"), "{message}");
}

#[test]
fn long_foreign_text_is_truncated_and_escaped_in_problems() {
    let long = "x".repeat(500_000);
    for text in [
        format!("{long} = 1\n"),
        format!("[dashboard]\nproxy_addresses = [\"{long}\"]\n"),
        format!("[fields]\ndevice = \"{long}[3]\"\n"),
        format!("[dashboard]\npath = \"{long}\"\n"),
        format!("[log]\nlevel = \"{long}\"\n"),
        format!("[topics]\nraw_events = \"{long}\"\n"),
        format!("[kafka]\nbootstrap_servers = \"{long}:0\"\n"),
    ] {
        let message = message(&[("common.toml", &text)], &[]);
        assert!(message.len() < 5_000, "{}", message.chars().take(5_000).collect::<String>());
    }
    let (_dir, places) = places(&[("common.toml", &format!("[fields]\nmetric = \"{long}\"\n"))], &[]);
    assert!(load(&places).unwrap().describe(None).lines().all(|line| line.len() < 2_000));
}

#[test]
fn of_very_many_problems_the_first_are_shown_and_the_others_counted() {
    let text = (0..20_000).map(|i| format!("unknown_{i} = {i}\n")).collect::<String>();
    let message = message(&[("common.toml", &text)], &[]);
    assert_eq!(message.matches("unknown key").count(), 50);
    assert!(message.contains("20000 problems") && message.contains("19950 more"), "{message}");
}
