//! Tests that `anomaly check` finds problems before a start fails: files, topics, state, the database, the records. A
//! start reports the same at once.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use openssl::asn1::Asn1Time;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::symm::Cipher;
use openssl::x509::{X509, X509NameBuilder};
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;

use super::common::{Case, Ended, Parts, Sent, event, program, wait_for};

const TIMEOUT: Duration = Duration::from_secs(120);

// ---- Files ----

fn key() -> PKey<Private> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap()
}

/// Creates a self-signed certificate with this number of days to live.
fn certificate(key: &PKey<Private>, days: i64) -> X509 {
    let mut names = X509NameBuilder::new().unwrap();
    names.append_entry_by_nid(Nid::COMMONNAME, "localhost").unwrap();
    let names = names.build();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64;
    let at = |days: i64| Asn1Time::from_unix(now + days * 86_400).unwrap();
    let mut builder = X509::builder().unwrap();
    builder.set_version(2).unwrap();
    builder.set_subject_name(&names).unwrap();
    builder.set_issuer_name(&names).unwrap();
    builder.set_pubkey(key).unwrap();
    builder.set_not_before(&at(-30)).unwrap();
    builder.set_not_after(&at(days)).unwrap();
    builder.sign(key, MessageDigest::sha256()).unwrap();
    builder.build()
}

/// A directory with a valid certificate and key, and each invalid kind of them.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Files {
        Files::below(&std::env::temp_dir())
    }

    fn below(dir: &Path) -> Files {
        let files = Files(tempfile::tempdir_in(dir).unwrap());
        let (key, other) = (key(), key());
        files.write("cert.pem", &certificate(&key, 90).to_pem().unwrap());
        files.write("soon.pem", &certificate(&key, 3).to_pem().unwrap());
        files.write("expired.pem", &certificate(&key, -1).to_pem().unwrap());
        files.write("cert.der", &certificate(&key, 90).to_der().unwrap());
        files.write("key.pem", &key.private_key_to_pem_pkcs8().unwrap());
        files.write("other.pem", &other.private_key_to_pem_pkcs8().unwrap());
        let locked = key.private_key_to_pem_pkcs8_passphrase(Cipher::aes_256_cbc(), b"hush").unwrap();
        files.write("locked.pem", &locked);
        files.write("users", b"ada:operator:nothing like a hash\n");
        files.write("common.toml", b"");
        files
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.0.path().join(name), bytes).unwrap();
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    /// Returns the program with these settings, whose files are named without their directory.
    fn command(&self, arguments: &[&str], settings: &[(&str, &str)]) -> Command {
        let mut command = program(&[arguments, &["--config", self.0.path().to_str().unwrap()]].concat());
        for (name, value) in [("KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:9"), ("POSTGRES__HOST", "127.0.0.1")] {
            command.env(format!("ANOMALY__{name}"), value);
        }
        command.env("ANOMALY__METRICS__LISTEN", "off").env("ANOMALY__DASHBOARD__LISTEN", "127.0.0.1:0");
        for (name, value) in settings {
            let value = if value.ends_with(".pem") || *value == "users" || value.ends_with(".der") {
                self.path(value)
            } else {
                (*value).to_owned()
            };
            command.env(format!("ANOMALY__{name}"), value);
        }
        command
    }
}

const CERTIFICATE: &str = "DASHBOARD__TLS_CERTIFICATE";
const KEY: &str = "DASHBOARD__TLS_KEY";
const PROTOCOL: (&str, &str) = ("KAFKA__PROPERTIES__SECURITY_PROTOCOL", "ssl");
const KAFKA_CA: &str = "KAFKA__PROPERTIES__SSL_CA_LOCATION";
const KAFKA_CERTIFICATE: &str = "KAFKA__PROPERTIES__SSL_CERTIFICATE_LOCATION";
const KAFKA_CRL: &str = "KAFKA__PROPERTIES__SSL_CRL_LOCATION";
const KAFKA_ENGINE: &str = "KAFKA__PROPERTIES__SSL_ENGINE_LOCATION";
const TOKEN_CA: &str = "KAFKA__PROPERTIES__HTTPS_CA_LOCATION";
const KAFKA_KEY: &str = "KAFKA__PROPERTIES__SSL_KEY_LOCATION";

#[test]
fn the_check_fails_with_the_same_message_as_a_start() {
    let files = Files::new();
    for (role, settings, why) in [
        ("dashboard", &[(CERTIFICATE, "gone.pem"), (KEY, "key.pem")][..], "No such file"),
        ("dashboard", &[(CERTIFICATE, "cert.der"), (KEY, "key.pem")], "it is a certificate in DER"),
        ("dashboard", &[(CERTIFICATE, "cert.pem"), (KEY, "other.pem")], "does not belong to the certificate"),
        ("dashboard", &[(CERTIFICATE, "key.pem"), (KEY, "cert.pem")], "are the two files exchanged?"),
        ("dashboard", &[(CERTIFICATE, "cert.pem"), (KEY, "locked.pem")], "it has a passphrase"),
        ("dashboard", &[("DASHBOARD__USERS", "gone.pem")], "anomaly passwd"),
        ("dashboard", &[("POSTGRES__SSLROOTCERT", "gone.pem")], "postgres.sslrootcert"),
        ("detector", &[("POSTGRES__SSLROOTCERT", "cert.der")], "it is a certificate in DER"),
        ("producer", &[PROTOCOL, (KAFKA_CA, "gone.pem")], "No such file"),
        ("producer", &[PROTOCOL, (KAFKA_CA, "cert.der")], "it is a certificate in DER"),
        (
            "detector",
            &[PROTOCOL, (KAFKA_CERTIFICATE, "cert.pem"), (KAFKA_KEY, "other.pem")],
            "does not belong to the certificate",
        ),
        ("detector", &[PROTOCOL, (KAFKA_CERTIFICATE, "cert.pem"), (KAFKA_KEY, "locked.pem")], "ssl.key.password"),
        ("detector", &[PROTOCOL, (KAFKA_CERTIFICATE, "cert.pem")], "has no key"),
        ("detector", &[PROTOCOL, (KAFKA_CRL, "gone.pem")], "No such file"),
        ("detector", &[PROTOCOL, (KAFKA_CRL, "cert.pem")], "no list of revoked certificates"),
        ("producer", &[PROTOCOL, (KAFKA_ENGINE, "/nowhere/engine.so")], "No such file"),
        ("producer", &[(TOKEN_CA, "gone.pem")], "No such file"),
        ("producer", &[PROTOCOL, (TOKEN_CA, "cert.der")], "it is a certificate in DER"),
    ] {
        let check = Ended::of(&mut files.command(&["check", "--role", role], settings));
        let start = Ended::of(&mut files.command(&["--role", role], settings));
        assert_eq!(
            (check.code, start.code),
            (Some(78), Some(78)),
            "{settings:?}: {}{}{}",
            check.out,
            check.err,
            start.err
        );
        let failed = check.out.lines().find(|line| line.starts_with("FAILED")).unwrap_or_default();
        let same = failed.trim_start_matches("FAILED  ");
        assert!(failed.contains(why) && start.err.contains(same), "{settings:?}:\n{}\n{}", check.out, start.err);
    }
}

#[test]
fn an_expired_certificate_fails_the_check_and_one_that_expires_soon_is_a_warning() {
    let files = Files::new();
    let right = [
        (CERTIFICATE, "cert.pem"),
        (KEY, "key.pem"),
        PROTOCOL,
        (KAFKA_CA, "cert.pem"),
        (KAFKA_CERTIFICATE, "cert.pem"),
        (KAFKA_KEY, "key.pem"),
    ];
    let with = |changes: &[(&str, &str)]| {
        let mut command = files.command(&["check"], &right);
        for (name, value) in changes {
            command.env(format!("ANOMALY__{name}"), files.path(value));
        }
        Ended::of(&mut command)
    };
    let good = with(&[]);
    assert_eq!(good.code, Some(0), "{}{}", good.out, good.err);
    assert_eq!(good.out.lines().filter(|line| line.starts_with("ok ")).count(), 5, "{}", good.out);
    for name in [CERTIFICATE, KAFKA_CERTIFICATE, KAFKA_CA] {
        let soon = with(&[(name, "soon.pem")]);
        assert_eq!(soon.code, Some(0), "{}{}", soon.out, soon.err);
        let line = soon.out.lines().find(|line| line.starts_with("warning")).unwrap_or_default();
        assert!(line.contains("expires at") && line.contains("soon.pem"), "{name}: {}", soon.out);
        let expired = with(&[(name, "expired.pem")]);
        assert_eq!(expired.code, Some(69), "{}{}", expired.out, expired.err);
        assert!(expired.out.contains("has expired at"), "{name}: {}", expired.out);
    }
    let users = Ended::of(&mut files.command(&["check"], &[("DASHBOARD__USERS", "users")]));
    assert_eq!(users.code, Some(69), "{}{}", users.out, users.err);
    assert!(users.out.contains("line 1 is not name:role:hash"), "{}", users.out);
}

/// The units hide home and temporary directories.
#[test]
fn a_file_that_the_units_hide_from_the_service_is_a_warning_with_the_remedy() {
    let files = Files::below(Path::new("/tmp"));
    let outside = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    std::fs::write(files.path("pass"), "secret").unwrap();
    let link = outside.path().join("link.pem");
    std::os::unix::fs::symlink(files.path("cert.pem"), &link).unwrap();
    let (key, pass, link) = (files.path("key.pem"), files.path("pass"), link.display().to_string());
    // Without --config the settings are those of the packaged services.
    let warned = |arguments: &[&str], settings: &[(&str, &str)]| {
        let mut command = program(arguments);
        command.current_dir(files.0.path());
        if rustix::process::geteuid().is_root() {
            command.args(["--user", "root"]);
        }
        for (name, value) in settings {
            command.env(format!("ANOMALY__{name}"), value);
        }
        let ended = Ended::of(&mut command);
        assert_eq!(ended.code, Some(0), "{}{}", ended.out, ended.err);
        let lines = ended.out.lines().filter(|line| line.starts_with("warning"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let pages = [(CERTIFICATE, link.as_str()), (KEY, &key), ("POSTGRES__PASSWORD_FILE", &pass)];
    let lines = warned(&["check", "--role", "dashboard"], &pages);
    let why = "the services do not see /tmp of this machine (PrivateTmp=yes)";
    for (setting, path, remedy) in [
        ("dashboard.tls_certificate", &link, "Move it to /etc/anomaly/tls"),
        ("dashboard.tls_key", &key, "Move it to /etc/anomaly/tls"),
        ("postgres.password_file", &pass, "/etc/anomaly/credentials"),
    ] {
        let begin = format!("warning {setting}: {path}: ");
        let line = lines.iter().find(|line| line.starts_with(&begin)).unwrap_or_else(|| panic!("{setting}: {lines:?}"));
        assert!(line.contains(remedy), "{line}");
        assert!(line.contains(why) || path == &link, "{line}");
    }
    assert_eq!(lines.len(), 3, "{lines:?}");
    // Of Kafka, of the socket, and of a file to replay; each only for the role that opens it.
    let (ca, csv) = (files.path("cert.pem"), files.path("common.toml"));
    let rest = [
        PROTOCOL,
        (KAFKA_CA, ca.as_str()),
        ("POSTGRES__HOST", "/tmp, /run/postgresql, localhost"),
        ("PRODUCER__SOURCE", "replay"),
        ("PRODUCER__FILE", &csv),
        ("POSTGRES__SSLROOTCERT", "cert.pem"),
    ];
    let settings = |role| {
        let lines = warned(&["check", "--role", role], &rest);
        lines.iter().map(|line| line.split(' ').nth(1).unwrap().trim_end_matches(':').to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(settings("producer"), ["kafka.properties.ssl.ca.location", "producer.file"]);
    assert_eq!(settings("detector"), ["kafka.properties.ssl.ca.location", "postgres.host", "postgres.sslrootcert"]);
    assert_eq!(settings("dashboard"), ["postgres.host", "postgres.sslrootcert"]);
    // A secret of higher precedence: the file is not read.
    let file = outside.path().join("common.toml");
    std::fs::write(&file, format!("[postgres]\npassword_file = \"{pass}\"\n")).unwrap();
    let mut command = program(&["check", "--config", outside.path().to_str().unwrap()]);
    command.env("ANOMALY__POSTGRES__PASSWORD", "other");
    let own = Ended::of(&mut command);
    assert!(own.code == Some(0) && !own.out.contains("warning"), "{}{}", own.out, own.err);
    // Neither of two variables has precedence.
    command.env("ANOMALY__POSTGRES__PASSWORD_FILE", &pass);
    let both = Ended::of(&mut command);
    assert_eq!(both.code, Some(78), "{}", both.out);
    assert!(both.err.contains("`postgres.password` and `postgres.password_file` are both set"), "{}", both.err);
    // With a directory of one's own it is not the packaged services that read.
    let own = Ended::of(&mut files.command(&["check"], &[(CERTIFICATE, "cert.pem"), (KEY, "key.pem")]));
    assert!(own.code == Some(0) && !own.out.contains("warning"), "{}", own.out);
}

/// OpenSSL asks on the terminal, whatever standard input is.
#[test]
fn a_key_with_a_passphrase_never_asks_on_the_terminal() {
    let files = Files::new();
    let locked = [
        PROTOCOL,
        (KAFKA_CERTIFICATE, "cert.pem"),
        (KAFKA_KEY, "locked.pem"),
        (CERTIFICATE, "cert.pem"),
        (KEY, "locked.pem"),
    ];
    for arguments in ["check", "--role producer", "--role dashboard", "topics"] {
        let mut anomaly = files.command(&arguments.split(' ').collect::<Vec<_>>(), &locked);
        let line = anomaly.get_args().fold(anomaly.get_program().to_owned(), |mut line, argument| {
            line.push(" ");
            line.push(argument);
            line
        });
        // A terminal of its own.
        let mut script = Command::new("timeout");
        script.args(["30", "script", "-qec"]).arg(line).arg("/dev/null");
        for (name, value) in anomaly.get_envs() {
            match value {
                Some(value) => script.env(name, value),
                None => script.env_remove(name),
            };
        }
        anomaly.stdin(std::process::Stdio::null());
        let ended = Ended::of(script.stdin(std::process::Stdio::null()));
        assert_eq!(ended.code, Some(78), "{arguments}: {}{}", ended.out, ended.err);
        assert!(!ended.out.contains("pass phrase"), "{arguments}: {}", ended.out);
    }
}

/// Root sees everything; the services do not.
#[test]
fn root_checks_as_the_user_that_is_named_and_says_so() {
    if !rustix::process::geteuid().is_root() {
        let ended = Ended::of(&mut program(&["check", "--user", "root"]));
        assert_eq!(ended.code, Some(64), "{}", ended.err);
        return;
    }
    let files = Files::new();
    let mode = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    let as_nobody = |settings: &[(&str, &str)]| Ended::of(&mut files.command(&["check", "--user", "nobody"], settings));
    mode(files.0.path(), 0o700);
    let closed = as_nobody(&[]);
    assert_eq!(closed.code, Some(78), "{}", closed.err);
    let dir = files.0.path().display().to_string();
    assert!(
        closed.err.contains(&format!("chmod 0755 {dir}")) && closed.err.contains("read as user nobody"),
        "{}",
        closed.err
    );
    mode(files.0.path(), 0o755);
    let open = as_nobody(&[]);
    assert_eq!(open.code, Some(0), "{}", open.err);
    assert!(open.err.contains("files were read as user nobody"), "{}", open.err);
    // As `cp privkey.pem` by root leaves it.
    mode(Path::new(&files.path("key.pem")), 0o600);
    let unreadable = as_nobody(&[(CERTIFICATE, "cert.pem"), (KEY, "key.pem")]);
    assert_eq!(unreadable.code, Some(78), "{}{}", unreadable.out, unreadable.err);
    assert!(unreadable.out.contains("install -m 640 -g anomaly key.pem"), "{}", unreadable.out);
}

// ---- The start ----

#[test]
fn a_role_that_is_not_configured_reports_at_once_what_it_needs() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().to_str().unwrap();
    for (role, needs) in [
        ("producer", &["kafka.bootstrap_servers"][..]),
        ("detector", &["kafka.bootstrap_servers", "postgres.password"]),
        ("dashboard", &["postgres.password"]),
    ] {
        let began = Instant::now();
        let start = Ended::of(&mut program(&["--role", role, "--config", config]));
        let check = Ended::of(&mut program(&["check", "--configured", "--role", role, "--config", config]));
        assert_eq!((start.code, start.err.lines().count()), (Some(78), 1), "{}", start.err);
        assert!(needs.iter().all(|need| start.err.contains(need)), "{}", start.err);
        assert!(start.err.contains(&format!("{config}/conf.d/")) || role == "dashboard", "{}", start.err);
        assert_eq!(start.err, check.err, "what the installation says");
        assert!(began.elapsed() < Duration::from_secs(20), "after {:?}", began.elapsed());
    }
    // Who writes the default down means it.
    let local = "[kafka]\nbootstrap_servers = \"localhost:9092\"\n[postgres]\nhost = \"localhost\"\n";
    std::fs::create_dir(dir.path().join("conf.d")).unwrap();
    std::fs::write(dir.path().join("conf.d/local.toml"), local).unwrap();
    for role in ["producer", "detector", "dashboard"] {
        let check = Ended::of(&mut program(&["check", "--configured", "--role", role, "--config", config]));
        assert_eq!(check.code, Some(0), "{}", check.err);
    }
}

#[test]
fn a_check_without_a_role_reads_the_files_of_all_roles() {
    let files = Files::new();
    files.write("dashboard.toml", b"[dashboard]\nusers = \"/etc/anomaly/tls/users\"\n");
    let check = || Ended::of(&mut files.command(&["check"], &[]));
    let valid = check();
    assert_eq!(valid.code, Some(0), "{}{}", valid.out, valid.err);
    let note = "dashboard.toml sets dashboard.users, which only its role uses: `anomaly check --role dashboard`";
    assert!(valid.err.contains(note), "{}", valid.err);
    files.write("detector.toml", b"[detector]\nwindwo = 7\n");
    files.write("producer.toml", b"[producer]\nrat = 7\n");
    let wrong = check();
    assert_eq!(wrong.code, Some(78), "{}{}", wrong.out, wrong.err);
    for says in ["unknown key `detector.windwo`", "detector.toml:2:1", "unknown key `producer.rat`"] {
        assert!(wrong.err.contains(says), "{}", wrong.err);
    }
}

#[test]
fn a_directory_is_no_file_to_replay() {
    let files = Files::new();
    let settings = [("PRODUCER__SOURCE", "replay"), ("PRODUCER__FILE", "/etc")];
    let check = Ended::of(&mut files.command(&["check", "--role", "producer"], &settings));
    assert_eq!(check.code, Some(69), "{}{}", check.out, check.err);
    assert!(check.out.contains("FAILED  producer.file: cannot read /etc: Is a directory"), "{}", check.out);
}

#[test]
fn a_variable_that_is_not_utf_8_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = program(&["check", "--config", dir.path().to_str().unwrap()]);
    command.env("ANOMALY__POSTGRES__PASSWORD", std::ffi::OsStr::from_bytes(b"h\xe4sh"));
    let ended = Ended::of(&mut command);
    assert_eq!(ended.code, Some(78), "{}", ended.err);
    assert!(ended.err.contains("ANOMALY__POSTGRES__PASSWORD is not UTF-8"), "{}", ended.err);
    let mut other = program(&["check", "--config", dir.path().to_str().unwrap()]);
    other.env("SOMETHING", std::ffi::OsStr::from_bytes(b"h\xe4sh"));
    assert_eq!(Ended::of(&mut other).code, Some(0), "it is not ours");
}

#[test]
fn a_named_pipe_where_a_file_belongs_is_refused_at_once_by_every_command_that_would_read_it() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR).unwrap();
    let (config, pipe) = (dir.path().to_str().unwrap(), pipe.display().to_string());
    let away = [("ANOMALY__KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:1"), ("ANOMALY__POSTGRES__PASSWORD", "x")];
    let tls = ("ANOMALY__KAFKA__PROPERTIES__SECURITY_PROTOCOL", "ssl");
    let authority = ("ANOMALY__KAFKA__PROPERTIES__SSL_CA_LOCATION", pipe.as_str());
    let users = ("ANOMALY__DASHBOARD__USERS", pipe.as_str());
    let database = ("ANOMALY__POSTGRES__SSLROOTCERT", pipe.as_str());
    let refused = |code: i32, arguments: &[&str], settings: &[(&str, &str)]| {
        let mut command = Command::new("timeout");
        command.arg("30").arg(super::common::PROGRAM).args(arguments).args(["--config", config]);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.envs(away.iter().chain(settings).copied()).stdin(std::process::Stdio::null());
        let ended = Ended::of(&mut command);
        assert_eq!(ended.code, Some(code), "{arguments:?}: {}{}", ended.out, ended.err);
        let said = ended.out + &ended.err;
        assert!(said.contains("a named pipe, not a regular file"), "{arguments:?}: {said}");
    };
    let revoked = ("ANOMALY__KAFKA__PROPERTIES__SSL_CRL_LOCATION", pipe.as_str());
    for command in [&["topics"][..], &["dlq", "list"], &["check"], &["--role", "producer"]] {
        refused(78, command, &[tls, authority]);
        refused(78, command, &[tls, revoked]);
    }
    refused(78, &["check", "--role", "dashboard"], &[users]);
    refused(78, &["--role", "dashboard"], &[users]);
    refused(78, &["check", "--role", "dashboard"], &[database]);
    for command in ["migrate", "status"] {
        refused(69, &[command], &[database]);
    }
    std::fs::create_dir(dir.path().join("conf.d")).unwrap();
    std::os::unix::fs::symlink(&pipe, dir.path().join("conf.d/10.toml")).unwrap();
    for command in [&["check"][..], &["topics"], &["--role", "detector"]] {
        refused(78, command, &[]);
    }
}

#[test]
fn an_unavailable_broker_is_named_with_its_address() {
    let mut case = Case::bare("check_away", Parts::shared());
    let address = format!("127.0.0.1:{}", super::common::free_port());
    case.set("KAFKA__BOOTSTRAP_SERVERS", &address);
    for role in ["detector", "producer"] {
        let process = case.role(role, &[("DETECTOR__WORKERS", "1"), ("SINK__ENABLED", "false")]);
        wait_for("the address", TIMEOUT, || {
            let (status, body) = process.get("/readyz").unwrap_or_default();
            status == 503
                && body.contains(&format!("Kafka is unreachable: {address}: "))
                && body.contains("Connection refused")
        });
    }
}

// ---- Kafka and PostgreSQL ----

/// Lines of a check against the box, and its exit code.
fn connect(case: &Case) -> (Option<i32>, String) {
    let ended = Ended::from(case.run(&["check", "--connect"]));
    (ended.code, ended.out)
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn admin(case: &Case) -> AdminClient<DefaultClientContext> {
    case.client().create().unwrap()
}

pub fn set_policy(case: &Case, topic: &str, policy: &str) {
    let config = AlterConfig::new(ResourceSpecifier::Topic(topic)).set("cleanup.policy", policy);
    let done = block_on(admin(case).alter_configs(&[config], &AdminOptions::new())).unwrap();
    done.into_iter().for_each(|one| drop(one.unwrap()));
}

#[test]
fn harmful_cleanup_policies_and_partition_counts_are_named_by_topics_and_by_the_check() {
    let case = Case::bare("check_policy", Parts::shared());
    let state = format!("{}.state", case.name);
    let narrow = NewTopic::new(&state, 2, TopicReplication::Fixed(1)).set("cleanup.policy", "compact");
    let raw = case.raw();
    let wide = NewTopic::new(&raw, 4, TopicReplication::Fixed(1));
    block_on(admin(&case).create_topics(&[narrow, wide], &AdminOptions::new())).unwrap();
    wait_for("the topics", TIMEOUT, || connect(&case).1.contains(&format!("topic {state}: 2 partitions")));
    let (code, out) = connect(&case);
    assert_eq!(code, Some(69), "{out}");
    assert!(out.contains(&format!("FAILED  topic {state}: has 2 partitions, and {} has 4", case.raw())), "{out}");
    let topics = case.ok(&["topics"]);
    assert!(topics.contains("it had 2 partitions, and now has 4"), "{topics}");
    case.ok(&["migrate"]);
    wait_for("all in order", TIMEOUT, || connect(&case).0 == Some(0));

    set_policy(&case, &case.raw(), "compact");
    set_policy(&case, &state, "delete");
    set_policy(&case, &case.dlq(), "compact,delete");
    let (code, out) = connect(&case);
    assert_eq!(code, Some(69), "{out}");
    assert!(out.contains(&format!("FAILED  topic {}: its cleanup.policy is compact", case.raw())), "{out}");
    assert!(out.contains(&format!("FAILED  topic {state}: its cleanup.policy is delete, not compact")), "{out}");
    assert!(out.contains(&format!("warning topic {}: its cleanup.policy is compact,delete", case.dlq())), "{out}");
    let topics = case.ok(&["topics"]);
    assert_eq!(topics.matches("its cleanup.policy is").count(), 3, "{topics}");
}

#[test]
fn the_check_shows_how_the_newest_records_are_decoded() {
    let mut case = Case::new("check_records");
    let (code, out) = connect(&case);
    assert!(code == Some(0) && out.contains("there are none yet"), "{out}");
    let records = (0..30).map(|i| event(&format!("pump-{i}"), 20.5));
    let odd = ["not JSON", r#"{"device_id":"pump\u001b[31m\nFAILED","metric_value":1}"#];
    let odd = odd.map(|text| Sent { value: Some(text.into()), timestamp: Some(4_000_000_000_000), ..Sent::default() });
    case.produce(records.chain(odd));
    let (code, out) = connect(&case);
    let shown = out.lines().filter(|line| line.starts_with("        [")).collect::<Vec<_>>();
    assert_eq!((code, shown.len()), (Some(0), 20), "{out}");
    assert!(out.contains("1 of the newest 20 are rejected") && out.contains(": rejected: json: "), "{out}");
    assert!(
        shown.iter().any(|line| line.contains("device pump-") && line.contains("metric m value 20.5 at 20")),
        "{out}"
    );
    assert!(!out.contains('\u{1b}') && !out.lines().any(|line| line.starts_with("FAILED")), "{out}");
    assert_eq!(case.committed(), 0, "the group is not touched");
    case.set("FIELDS__VALUE", "reading");
    let (code, out) = connect(&case);
    assert_eq!(code, Some(69), "{out}");
    assert!(out.contains("all of the newest 20 are rejected"), "{out}");
}

#[test]
fn state_of_another_group_fails_the_check_with_what_the_start_stops_with() {
    let mut case = Case::new("check_state");
    case.produce((0..50).map(|i| event("pump", f64::from(i))));
    let quick = [("DETECTOR__WORKERS", "1"), ("DETECTOR__SNAPSHOT_INTERVAL", "100ms"), ("SINK__ENABLED", "false")];
    let detector = case.detector("first", &quick);
    wait_for("50 judged", TIMEOUT, || case.committed() >= 50);
    // Also with the transactions of a detector that runs.
    let (code, out) = connect(&case);
    assert!(code == Some(0) && out.contains("windows of 4 of 4 partitions, which a start takes"), "{out}");
    assert!(detector.terminate(TIMEOUT).success());
    case.set("DETECTOR__GROUP", format!("{}-other", case.name));
    let (code, out) = connect(&case);
    assert_eq!(code, Some(69), "{out}");
    let failed = out.lines().find(|line| line.starts_with("FAILED  state in")).unwrap_or_default();
    assert!(failed.contains("give each group a topics.state of its own"), "{out}");
    let mut detector = case.detector("other", &quick);
    assert_eq!(detector.exit(TIMEOUT).code(), Some(65), "{}", detector.log());
    assert!(detector.log().contains("topics.state of its own"), "{}", detector.log());
}

#[test]
fn a_database_that_is_not_utf_8_fails_the_check_with_the_remedy() {
    let mut case = Case::topics("check_encoding");
    let mut admin = case.parts.admin();
    let owner = case.parts.get("POSTGRES__USER").to_owned();
    admin
        .batch_execute(&format!(
            "create database {} owner {owner} encoding 'LATIN1' locale 'C' template template0",
            case.name
        ))
        .unwrap();
    case.set("POSTGRES__DBNAME", case.name.clone());
    case.set("POSTGRES__SCHEMA", "");
    let (code, out) = connect(&case);
    admin.batch_execute(&format!("drop database {} with (force)", case.name)).unwrap();
    assert_eq!(code, Some(69), "{out}");
    assert!(out.contains("FAILED  encoding: the database's encoding is LATIN1"), "{out}");
    // As for `anomaly migrate`, a database that stores all bytes unchanged is suitable.
    let unchanged =
        format!("create database {} owner {owner} encoding 'SQL_ASCII' locale 'C' template template0", case.name);
    admin.batch_execute(&unchanged).unwrap();
    case.ok(&["migrate"]);
    let (_, out) = connect(&case);
    admin.batch_execute(&format!("drop database {} with (force)", case.name)).unwrap();
    assert!(out.contains("ok      encoding: SQL_ASCII"), "{out}");
}
