//! Tests of access control with the real program: TLS and its reload, logins, roles of the database, and clients that
//! stall.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use openssl::asn1::Asn1Time;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::PKey;
use openssl::rsa::Rsa;
use openssl::ssl::{SslConnector, SslMethod, SslVerifyMode};
use openssl::x509::{X509, X509NameBuilder};

use super::common::{Case, Ended, Parts, Process, free_port, wait_for};

/// Creates a self-signed certificate with its key.
fn certificate(dir: &Path, name: &str) {
    valid_for(dir, name, 30);
}

/// Creates a self-signed certificate with this number of days to live.
fn valid_for(dir: &Path, name: &str, days: i64) {
    let key = PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap();
    let mut names = X509NameBuilder::new().unwrap();
    names.append_entry_by_nid(Nid::COMMONNAME, name).unwrap();
    let names = names.build();
    let mut builder = X509::builder().unwrap();
    builder.set_version(2).unwrap();
    builder.set_subject_name(&names).unwrap();
    builder.set_issuer_name(&names).unwrap();
    builder.set_pubkey(&key).unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64;
    let day = |days: i64| Asn1Time::from_unix(now + days * 86_400).unwrap();
    builder.set_not_before(&day(-2)).unwrap();
    builder.set_not_after(&day(days)).unwrap();
    builder.sign(&key, MessageDigest::sha256()).unwrap();
    std::fs::write(dir.join("cert.pem"), builder.build().to_pem().unwrap()).unwrap();
    std::fs::write(dir.join("key.pem"), key.private_key_to_pem_pkcs8().unwrap()).unwrap();
}

/// Returns the answer to one request over TLS, and the name in the certificate.
fn secret(port: u16, request: &str) -> (String, String) {
    let mut builder = SslConnector::builder(SslMethod::tls_client()).unwrap();
    builder.set_verify(SslVerifyMode::NONE);
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let mut stream = builder.build().connect("localhost", stream).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let name = stream.ssl().peer_certificate().unwrap();
    let name = name.subject_name().entries_by_nid(Nid::COMMONNAME).next().unwrap().data().to_string().unwrap();
    (String::from_utf8_lossy(&answer).into_owned(), name)
}

fn get(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n{headers}connection: close\r\n\r\n")
}

fn form(path: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\n{headers}connection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

/// Starts a dashboard that serves at a free port.
fn dashboard(case: &Case, settings: &[(&str, &str)]) -> (Process, u16) {
    let port = free_port();
    let listen = format!("127.0.0.1:{port}");
    let mut settings = settings.to_vec();
    settings.push(("DASHBOARD__LISTEN", &listen));
    let process = case.role("dashboard", &settings);
    wait_for("the pages", Duration::from_secs(90), || process.log().contains("pages on"));
    (process, port)
}

#[test]
fn off_loopback_the_start_is_refused_without_tls_and_a_login() {
    let case = Case::bare("open", Parts::shared());
    let run = |settings: &[(&str, &str)]| {
        let mut command = case.command(&["check", "--role", "dashboard"]);
        command.envs(settings.iter().map(|(key, value)| (format!("ANOMALY__DASHBOARD__{key}"), *value)));
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let warns = |secret: &str| {
        let mut command = case.command(&["check", "--role", "dashboard"]);
        command.env("ANOMALY__DASHBOARD__PROXY_HEADER", "X-User").env("ANOMALY__DASHBOARD__PROXY_SECRET", secret);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).contains("warning dashboard.proxy_secret: is not set")
    };
    assert!(warns("") && !warns("0123456789abcdef"));
    let (code, text) = run(&[("LISTEN", "0.0.0.0:8501")]);
    assert!(code == Some(78) && text.contains("open to the network without TLS and a login"), "{text}");
    let (code, text) = run(&[("LISTEN", "0.0.0.0:8501"), ("TLS_CERTIFICATE", "c"), ("TLS_KEY", "k")]);
    assert!(code == Some(78) && text.contains("without a login"), "{text}");
    let (code, text) = run(&[("LISTEN", "[::]:8501"), ("USERS", "u")]);
    assert!(code == Some(78) && text.contains("without TLS"), "{text}");
    certificate(case.dir.path(), "localhost");
    let [cert, key, users] =
        ["cert.pem", "key.pem", "users"].map(|name| case.dir.path().join(name).display().to_string());
    std::fs::write(&users, format!("ada:viewer:{}\n", anomaly::page::auth::hash("correct horse").unwrap())).unwrap();
    let all = [("LISTEN", "0.0.0.0:8501"), ("TLS_CERTIFICATE", &cert), ("TLS_KEY", &key), ("USERS", &users)];
    assert_eq!(run(&all).0, Some(0));
    assert_eq!(run(&[("LISTEN", "0.0.0.0:8501"), ("INSECURE", "true")]).0, Some(0));
    assert_eq!(run(&[("TLS_KEY", "k")]).0, Some(78));
    assert_eq!(run(&[("PROXY_ADDRESSES", "proxy.example")]).0, Some(78));
}

#[test]
fn a_login_over_tls_opens_the_pages_and_a_reload_takes_a_new_certificate() {
    let case = Case::bare("login", Parts::shared());
    case.ok(&["migrate"]);
    let dir = case.dir.path();
    certificate(dir, "first");
    let users = dir.join("users").display().to_string();
    for (name, role, password) in [("ada", "operator", "correct horse"), ("bob", "viewer", "battery staple")] {
        let mut command = case.command(&["passwd", name, "--role", role, "--file", &users]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(password.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
    }
    let text = std::fs::read_to_string(&users).unwrap();
    assert!(text.contains("ada:operator:$argon2id$") && !text.contains("horse"), "{text}");
    let (cert, key) = (dir.join("cert.pem").display().to_string(), dir.join("key.pem").display().to_string());
    let settings =
        [("DASHBOARD__TLS_CERTIFICATE", cert.as_str()), ("DASHBOARD__TLS_KEY", &key), ("DASHBOARD__USERS", &users)];
    let (process, port) = dashboard(&case, &settings);
    let (answer, name) = secret(port, &get("/devices?span=6h", ""));
    assert!(
        answer.starts_with("HTTP/1.1 303") && answer.contains("location: /login?next=%2Fdevices%3Fspan%3D6h"),
        "{answer}"
    );
    // Other services of this host name, on other ports, may have no TLS.
    assert!(name == "first" && !answer.contains("strict-transport-security"), "{answer}");
    assert!(secret(port, &get("/api/v1/anomalies", "")).0.starts_with("HTTP/1.1 401"));
    assert!(secret(port, &get("/events", "")).0.starts_with("HTTP/1.1 401"));
    assert!(secret(port, &get("/login", "")).0.contains("<h1 id=\"h-login\">Log in</h1>"));
    let (wrong, _) = secret(port, &form("/login", "", "name=ada&password=wrong"));
    assert!(wrong.starts_with("HTTP/1.1 401") && !wrong.contains(&format!("anomaly-{port}=")), "{wrong}");
    let login = |name: &str, password: &str| {
        let (answer, _) =
            secret(port, &form("/login", "", &format!("name={name}&password={password}&next=%2Fdevices")));
        assert!(answer.starts_with("HTTP/1.1 303") && answer.contains("location: /devices"), "{answer}");
        let cookie = answer.split("set-cookie: ").nth(1).unwrap().split(';').next().unwrap();
        assert!(cookie.starts_with(&format!("__Host-anomaly-{port}=")), "{cookie}");
        format!("cookie: {cookie}\r\n")
    };
    let (ada, bob) = (login("ada", "correct+horse"), login("bob", "battery+staple"));
    assert!(secret(port, &get("/devices", &ada)).0.starts_with("HTTP/1.1 200"));
    // No such anomaly: but the viewer does not even learn that.
    let review = |who: &str| secret(port, &form("/anomalies/t/0/1/0/point/reviews", who, "review=true")).0;
    assert!(review(&bob).starts_with("HTTP/1.1 403") && review(&ada).starts_with("HTTP/1.1 404"));
    let (left, _) = secret(port, &form("/logout", &ada, ""));
    assert!(left.starts_with("HTTP/1.1 303") && left.contains("Max-Age=0"), "{left}");
    assert!(
        secret(port, &get("/devices", &ada)).0.starts_with("HTTP/1.1 303"),
        "a cookie that was kept is worth nothing"
    );
    certificate(dir, "second");
    process.signal(rustix::process::Signal::HUP);
    wait_for("the new certificate", Duration::from_secs(90), || secret(port, &get("/login", "")).1 == "second");
    let good = std::fs::read(&key).unwrap();
    let locked = PKey::private_key_from_pem(&good).unwrap();
    let locked = locked.private_key_to_pem_pkcs8_passphrase(openssl::symm::Cipher::aes_256_cbc(), b"secret").unwrap();
    let other = PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap().private_key_to_pem_pkcs8().unwrap();
    let refused = |reason: &str| {
        let before = process.log().matches("the old one stays in use").count();
        process.signal(rustix::process::Signal::HUP);
        wait_for(reason, Duration::from_secs(90), || {
            process.log().matches("the old one stays in use").count() > before && process.log().contains(reason)
        });
        assert_eq!(secret(port, &get("/login", "")).1, "second", "{reason}");
    };
    for (bad, reason) in [
        (&b"no key"[..], "it is not in PEM"),
        (&locked, "it has a passphrase"),
        (&other, "it does not belong to the certificate"),
    ] {
        std::fs::write(&key, bad).unwrap();
        refused(reason);
    }
    valid_for(dir, "third", -1);
    refused("has expired");
    std::fs::write(&cert, X509::from_pem(&std::fs::read(&cert).unwrap()).unwrap().to_der().unwrap()).unwrap();
    refused("it contains no certificate in PEM");
}

/// Reads until the stream contains `text`; returns whether it did so before it ended, which it must do in time.
fn reads(stream: &mut TcpStream, text: &str) -> bool {
    let (begin, mut all, mut piece) = (Instant::now(), String::new(), [0; 4096]);
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    while !all.contains(text) {
        assert!(begin.elapsed() < Duration::from_secs(120), "the stream does not end: {all}");
        match stream.read(&mut piece).unwrap() {
            0 => return false,
            count => all += &String::from_utf8_lossy(&piece[..count]),
        }
    }
    true
}

#[test]
fn a_stream_ends_with_its_session() {
    let case = Case::bare("stream", Parts::shared());
    case.ok(&["migrate"]);
    let users = case.dir.path().join("users");
    let line = |password: &str| format!("ada:viewer:{}\n", anomaly::page::auth::hash(password).unwrap());
    std::fs::write(&users, line("old")).unwrap();
    let (_process, port) = dashboard(&case, &[("DASHBOARD__USERS", users.to_str().unwrap())]);
    let send = |request: &str| {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        stream
    };
    let answer = |request: &str| std::io::read_to_string(send(request)).unwrap();
    let log_in = || {
        let entered = answer(&form("/login", "", "name=ada&password=old"));
        let cookie = entered.split("set-cookie: ").nth(1).and_then(|rest| rest.split(';').next());
        format!("cookie: {}\r\n", cookie.unwrap_or_else(|| panic!("{entered}")))
    };
    let open = |cookie: &str| {
        // The stream is available when the dashboard has read the newest rows.
        let mut opened = None;
        wait_for("the stream", Duration::from_secs(90), || {
            let mut stream = send(&get("/events", cookie));
            let is_open = reads(&mut stream, "retry: ");
            opened = is_open.then_some(stream);
            is_open && opened.is_some()
        });
        opened.unwrap()
    };
    let (first, second) = (log_in(), log_in());
    let (mut of_first, mut of_second) = (open(&first), open(&second));
    assert!(answer(&form("/logout", &first, "")).starts_with("HTTP/1.1 303"));
    assert!(!reads(&mut of_first, "no such text"), "a stream of a session that was left goes on");
    assert!(reads(&mut of_second, "event: health"), "another session of the user ends too");
    std::fs::write(&users, line("new")).unwrap();
    assert!(!reads(&mut of_second, "no such text"), "a stream goes on after a new password");
}

#[test]
fn hsts_follows_the_setting_and_a_certificate_that_expires_is_reported() {
    let case = Case::bare("hsts", Parts::shared());
    case.ok(&["migrate"]);
    let dir = case.dir.path();
    let (cert, key) = (dir.join("cert.pem").display().to_string(), dir.join("key.pem").display().to_string());
    for (days, code, severity) in [(30, 200, None), (3, 200, Some("notice")), (-1, 503, Some("degraded"))] {
        valid_for(dir, "first", days);
        let settings =
            [("DASHBOARD__TLS_CERTIFICATE", cert.as_str()), ("DASHBOARD__TLS_KEY", &key), ("DASHBOARD__HSTS", "on")];
        let (process, port) = dashboard(&case, &settings);
        let (answer, _) = secret(port, &get("/keys", ""));
        assert!(answer.contains("strict-transport-security: max-age=31536000"), "{answer}");
        let Some(severity) = severity else {
            process.wait_ready();
            assert!(!process.log().contains("certificate_expires"), "{}", process.log());
            continue;
        };
        wait_for("the condition", Duration::from_secs(90), || {
            process.get("/metrics").is_some_and(|(_, text)| {
                text.contains("code=\"certificate_expires\"") && text.contains(&format!("severity=\"{severity}\""))
            })
        });
        assert_eq!(process.get("/readyz").unwrap().0, code, "{days} days");
    }
}

#[test]
fn clients_that_stall_are_cut_off_and_others_are_served_meanwhile() {
    let case = Case::bare("stalled", Parts::shared());
    case.ok(&["migrate"]);
    let dir = case.dir.path();
    certificate(dir, "first");
    let (cert, key) = (dir.join("cert.pem").display().to_string(), dir.join("key.pem").display().to_string());
    let (_plain, port) = dashboard(&case, &[]);
    let (_tls, secret_port) =
        dashboard(&case, &[("DASHBOARD__TLS_CERTIFICATE", cert.as_str()), ("DASHBOARD__TLS_KEY", &key)]);
    let begun = Instant::now();
    let stalled = |port: u16, sent: &str| {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream.write_all(sent.as_bytes()).unwrap();
        stream
    };
    let mut held = Vec::new();
    for _ in 0..300 {
        held.push(stalled(port, ""));
        held.push(stalled(port, "GET / HTTP/1.1\r\nhost: localhost\r\nx: "));
        held.push(stalled(port, "POST /login HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\nname="));
        held.push(stalled(secret_port, ""));
    }
    for _ in 0..5 {
        let start = Instant::now();
        let mut stream = stalled(port, &get("/login", ""));
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
        // Stalled clients are cut off after ten seconds and more.
        assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
        assert!(secret(secret_port, &get("/keys", "")).0.starts_with("HTTP/1.1 200"));
    }
    for stream in &mut held {
        // Until the other end closes, whatever it says before.
        let ended = stream.read_to_end(&mut Vec::new());
        assert!(!matches!(&ended, Err(e) if e.kind() == std::io::ErrorKind::WouldBlock), "{ended:?}");
    }
    assert!(begun.elapsed() < Duration::from_secs(90), "{:?}", begun.elapsed());
}

#[test]
fn ten_thousand_idle_connections_block_no_other_client() {
    let case = Case::bare("crowd", Parts::shared());
    case.ok(&["migrate"]);
    let (process, port) = dashboard(&case, &[]);
    let crowd = (0..10_000).map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap()).collect::<Vec<_>>();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream.write_all(get("/keys", "").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    drop(crowd);
    assert!(!process.log().contains("WARN"), "{}", process.log());
}

/// Waits until the process has this status and reports this text.
fn wait_readiness(process: &Process, status: u16, words: &str) {
    wait_for(words, Duration::from_secs(120), || {
        process.get("/readyz").is_some_and(|(code, text)| code == status && text.contains(words))
    });
}

#[test]
fn a_dashboard_whose_database_is_away_or_refuses_is_not_ready_until_its_pages_are_answered() {
    let mut case = Case::bare("unanswered", Parts::shared());
    let mut admin = case.parts.admin();
    let reader = format!("{}_reader", case.name);
    admin.batch_execute(&format!("create role {reader} login password 'secret'")).unwrap();
    case.set("MIGRATE__READER", &reader);
    case.ok(&["migrate"]);
    let server = format!("{}:{}", case.parts.get("POSTGRES__HOST"), case.parts.get("POSTGRES__PORT"));
    let gate = free_port();
    let settings = [
        ("POSTGRES__HOST", "127.0.0.1"),
        ("POSTGRES__PORT", &gate.to_string()),
        ("POSTGRES__USER", reader.as_str()),
        ("POSTGRES__PASSWORD_FILE", ""),
        ("POSTGRES__PASSWORD", "secret"),
    ];
    let (process, port) = dashboard(&case, &settings);
    wait_readiness(&process, 503, "PostgreSQL has been unreachable since");
    let metrics = process.get("/metrics").unwrap().1;
    assert!(metrics.contains("code=\"no_database_answer\""), "{metrics}");
    // From now on the port leads to the server.
    let listener = std::net::TcpListener::bind(("127.0.0.1", gate)).unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let Ok(server) = TcpStream::connect(&server) else { continue };
            for (mut from, mut to) in [(client.try_clone().unwrap(), server.try_clone().unwrap()), (server, client)] {
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.shutdown(std::net::Shutdown::Both);
                });
            }
        }
    });
    wait_readiness(&process, 200, "running");
    let permission = format!("select on {}.detector_status", case.name);
    case.sql().batch_execute(&format!("revoke {permission} from {reader}")).unwrap();
    wait_readiness(&process, 503, "PostgreSQL refuses to answer the pages: 42501");
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(get("/detection", "").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("PostgreSQL refuses to answer."), "{answer}");
    case.sql().batch_execute(&format!("grant {permission} to {reader}")).unwrap();
    wait_readiness(&process, 200, "running");
    drop((process, case));
    admin.batch_execute(&format!("drop owned by {reader}; drop role {reader}")).unwrap();
}

#[test]
fn one_role_of_the_database_reads_and_another_reviews_and_neither_does_more() {
    let mut case = Case::bare("roles", Parts::shared());
    let mut admin = case.parts.admin();
    let (reader, reviewer) = (format!("{}_reader", case.name), format!("{}_marker", case.name));
    for role in [&reader, &reviewer] {
        admin.batch_execute(&format!("create role {role} login password 'secret'")).unwrap();
    }
    case.set("MIGRATE__READER", &reader);
    case.set("MIGRATE__REVIEWER", &reviewer);
    case.ok(&["migrate"]);
    let row = "insert into anomalies values ('t', 0, 0, 7, 0, 'point', 2, 'pump', 'm', 9, now(), 'sigma', 8, 3, 1, -2, 4, 1, 1, 8,
               '{}', 'high', 'critical', null, 30, '{1}', null, null, null, now())";
    case.sql().batch_execute(row).unwrap();
    let settings = [
        ("POSTGRES__USER", reader.as_str()),
        ("POSTGRES__PASSWORD_FILE", ""),
        ("POSTGRES__PASSWORD", "secret"),
        ("REVIEWS__USER", reviewer.as_str()),
        ("REVIEWS__PASSWORD", "secret"),
    ];
    let (process, port) = dashboard(&case, &settings);
    let permission = format!("insert on {}.reviews", case.name);
    let check = || {
        Ended::of(
            case.command(&["check", "--role", "dashboard", "--connect"])
                .envs(settings.iter().map(|(name, value)| (format!("ANOMALY__{name}"), *value))),
        )
        .out
    };
    wait_readiness(&process, 200, "running");
    assert!(check().contains(&format!("ok      reviews: {reviewer} may add them")), "{}", check());
    case.sql().batch_execute(&format!("revoke {permission} from {reviewer}")).unwrap();
    wait_readiness(&process, 503, "cannot add reviews: 42501: permission denied for table reviews");
    assert!(check().contains("FAILED  reviews: "), "{}", check());
    case.sql().batch_execute(&format!("grant {permission} to {reviewer}")).unwrap();
    wait_readiness(&process, 200, "running");
    let ask = |request: &str| {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    for path in ["/", "/anomalies", "/devices", "/detection", "/anomalies/t/0/7/0/point", "/anomalies?review=true&q=u"]
    {
        let answer = ask(&get(path, ""));
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
    }
    assert!(ask(&form("/anomalies/t/0/7/0/point/reviews", "", "review=true")).starts_with("HTTP/1.1 303"));
    assert_eq!(case.count("reviews"), 1);
    let name = &case.name;
    for (role, statement) in [
        (&reader, format!("insert into {name}.reviews (review) values ('true')")),
        (&reader, format!("delete from {name}.anomalies")),
        (&reviewer, format!("select * from {name}.anomalies")),
        (&reviewer, format!("select * from {name}.reviews")),
        (&reviewer, format!("update {name}.reviews set review = 'false'")),
        (&reviewer, format!("delete from {name}.reviews")),
    ] {
        let refused = admin.batch_execute(&format!("set role {role}; {statement}"));
        admin.batch_execute("reset role").unwrap();
        assert_eq!(refused.unwrap_err().code().unwrap().code(), "42501", "{role}: {statement}");
    }
    drop(case);
    for role in [&reader, &reviewer] {
        admin.batch_execute(&format!("drop owned by {role}; drop role {role}")).unwrap();
    }
}
