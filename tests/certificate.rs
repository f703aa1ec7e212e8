//! Tests of the login to PostgreSQL with a client certificate and no password. They start their own server, because the
//! box's server has no TLS.

use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::x509::extension::{BasicConstraints, SubjectAlternativeName};
use openssl::x509::{X509, X509Builder, X509NameBuilder};
use rustix::process::{Pid, Signal, geteuid, kill_process};

use super::common::{Case, event, free_port, wait};

const TOOLS: &str = "/usr/lib/postgresql/15/bin";

/// An authority, or a certificate that it has signed.
struct Issued {
    certificate: X509,
    key: PKey<Private>,
}

impl Issued {
    /// Creates a certificate for the common name with this number of days to live, signed by the authority or by
    /// itself.
    fn of(name: &str, days: i64, by: Option<&Issued>) -> Issued {
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
        let key = PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap();
        let mut subject = X509NameBuilder::new().unwrap();
        subject.append_entry_by_nid(Nid::COMMONNAME, name).unwrap();
        let subject = subject.build();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64;
        let at = |days: i64| Asn1Time::from_unix(now + days * 86_400).unwrap();
        let mut builder = X509Builder::new().unwrap();
        builder.set_version(2).unwrap();
        let mut serial = BigNum::new().unwrap();
        serial.rand(64, openssl::bn::MsbOption::MAYBE_ZERO, false).unwrap();
        builder.set_serial_number(&serial.to_asn1_integer().unwrap()).unwrap();
        builder.set_subject_name(&subject).unwrap();
        builder.set_issuer_name(by.map_or(&*subject, |by| by.certificate.subject_name())).unwrap();
        builder.set_pubkey(&key).unwrap();
        builder.set_not_before(&at(-30)).unwrap();
        builder.set_not_after(&at(days)).unwrap();
        if by.is_some() {
            let address =
                SubjectAlternativeName::new().ip("127.0.0.1").build(&builder.x509v3_context(None, None)).unwrap();
            builder.append_extension(address).unwrap();
        } else {
            builder.append_extension(BasicConstraints::new().critical().ca().build().unwrap()).unwrap();
        }
        builder.sign(by.map_or(&key, |by| &by.key), MessageDigest::sha256()).unwrap();
        Issued { certificate: builder.build(), key }
    }

    /// Writes the files `NAME.crt` and `NAME.key`.
    fn write(&self, dir: &Path, name: &str) {
        std::fs::write(dir.join(format!("{name}.crt")), self.certificate.to_pem().unwrap()).unwrap();
        let key = dir.join(format!("{name}.key"));
        std::fs::write(&key, self.key.private_key_to_pem_pkcs8().unwrap()).unwrap();
        std::fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
    }
}

/// A PostgreSQL that accepts role `ada` only with a certificate over TLS, and `postgres` without TLS.
struct Server {
    child: Child,
    port: u16,
    dir: tempfile::TempDir,
}

impl Server {
    fn start(authority: &Issued) -> Server {
        let (dir, port) = (tempfile::tempdir_in("/tmp").unwrap(), free_port());
        std::fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        let data = dir.path().join("data");
        std::fs::create_dir(&data).unwrap();
        std::fs::set_permissions(&data, Permissions::from_mode(0o700)).unwrap();
        own(&data);
        let made = tool("initdb")
            .args(["-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8", "--auth=trust", "-N", "-D"])
            .arg(&data)
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let rules =
            "hostnossl all postgres 127.0.0.1/32 trust\nhostssl all ada 127.0.0.1/32 cert clientcert=verify-full\n";
        std::fs::write(data.join("pg_hba.conf"), rules).unwrap();
        Issued::of("server", 30, Some(authority)).write(&data, "server");
        std::fs::write(data.join("ca.crt"), authority.certificate.to_pem().unwrap()).unwrap();
        for name in ["pg_hba.conf", "server.crt", "server.key", "ca.crt"] {
            own(&data.join(name));
        }
        let log = File::create(dir.path().join("log")).unwrap();
        let mut server = tool("postgres");
        server.arg("-D").arg(&data).args(["-p", &port.to_string()]);
        let settings = ["listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off", "ssl=on"];
        let files = ["ssl_cert_file=server.crt", "ssl_key_file=server.key", "ssl_ca_file=ca.crt"];
        for setting in settings.iter().chain(&files) {
            server.args(["-c", setting]);
        }
        server.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let server = Server { child: server.spawn().unwrap(), port, dir };
        wait("PostgreSQL", || server.try_admin("postgres").is_ok());
        server.try_admin("postgres").unwrap().batch_execute("create role ada login").unwrap();
        server.try_admin("postgres").unwrap().batch_execute("create database secured owner ada").unwrap();
        server
    }

    fn try_admin(&self, dbname: &str) -> Result<postgres::Client, postgres::Error> {
        let mut config = postgres::Config::new();
        config.host("127.0.0.1").port(self.port).dbname(dbname).user("postgres");
        config.connect(postgres::NoTls)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // An immediate end, which its children take part in.
        let _ = kill_process(Pid::from_child(&self.child), Signal::QUIT);
        let _ = self.child.wait();
    }
}

/// Starts a program as an unprivileged user, because PostgreSQL refuses to run as root.
fn tool(name: &str) -> Command {
    let path = Path::new(TOOLS).join(name);
    if !geteuid().is_root() {
        return Command::new(path);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]).arg(path);
    command
}

/// Makes the server's user the owner of a file.
fn own(path: &Path) {
    if geteuid().is_root() {
        assert!(Command::new("chown").arg("postgres:postgres").arg(path).status().unwrap().success());
    }
}

#[test]
fn a_certificate_logs_in_without_a_password_and_without_it_the_refusal_names_the_remedy() {
    let (authority, stranger) = (Issued::of("authority", 30, None), Issued::of("stranger", 30, None));
    let server = Server::start(&authority);
    let mut case = Case::topics("certificate");
    let dir = case.dir.path().to_owned();
    authority.write(&dir, "ca");
    Issued::of("ada", 30, Some(&authority)).write(&dir, "ada");
    Issued::of("bob", 30, Some(&authority)).write(&dir, "bob");
    Issued::of("ada", 30, Some(&stranger)).write(&dir, "strange");
    Issued::of("ada", -1, Some(&authority)).write(&dir, "expired");
    let file = |name: &str| dir.join(name).display().to_string();
    let log_in_as = |case: &mut Case, name: &str| {
        let (certificate, key) = match name {
            "" => (String::new(), String::new()),
            name => (file(&format!("{name}.crt")), file(&format!("{name}.key"))),
        };
        case.set("POSTGRES__SSLCERT", certificate);
        case.set("POSTGRES__SSLKEY", key);
    };
    for (key, value) in [
        ("HOST", "127.0.0.1"),
        ("PORT", &server.port.to_string()),
        ("DBNAME", "secured"),
        ("USER", "ada"),
        ("PASSWORD_FILE", ""),
        ("SSLMODE", "verify-full"),
        ("SSLROOTCERT", &file("ca.crt")),
    ] {
        case.set(&format!("POSTGRES__{key}"), value);
    }

    log_in_as(&mut case, "ada");
    case.ok(&["migrate"]);
    let text = case.ok(&["check", "--role", "detector", "--connect"]);
    assert!(text.contains("ok      postgres.sslcert") && text.contains("ok      schema"), "{text}");
    let detector = case.detector("a", &[]);
    case.produce((0..40).map(|i| event("a", f64::from(i % 5))).chain([event("a", 99.0)]));
    let mut admin = server.try_admin("secured").unwrap();
    let mut number = |sql: &str| admin.query_one(sql, &[]).unwrap().get::<_, i64>(0);
    let rows = format!("select count(*) from {}.anomalies", case.name);
    wait("the row", || number(&rows) == 1);
    let names = "select count(*) from pg_stat_ssl join pg_stat_activity using (pid)
                 where usename = 'ada' and client_dn = '/CN=ada'";
    assert!(number(names) > 0, "{}", server.log());
    assert!(detector.terminate(Duration::from_secs(20)).success());

    for (name, mode, wanted) in [
        ("", "verify-full", &["28000: ", "valid client certificate", "postgres.sslcert and postgres.sslkey"][..]),
        ("bob", "verify-full", &["28000: certificate authentication failed", "common name"]),
        ("strange", "verify-full", &["alert unknown ca", "postgres.sslcert"]),
        ("expired", "verify-full", &["alert certificate expired", "postgres.sslcert"]),
        ("ada", "disable", &["28000: no pg_hba.conf entry", "no encryption", "postgres.sslmode"]),
    ] {
        log_in_as(&mut case, name);
        case.set("POSTGRES__SSLMODE", mode);
        for arguments in [&["check", "--role", "dashboard", "--connect"][..], &["migrate"], &["status"]] {
            let output = case.run(arguments);
            let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            assert!(!output.status.success(), "{name} {arguments:?}: {text}");
            // The server may cut the connection before its alert is read: then both causes are named.
            let is_cut = text.contains("reset by peer")
                && text.contains("perhaps it refuses the certificate in postgres.sslcert");
            let lacks = wanted.iter().find(|part| !text.contains(**part));
            let is_clear = lacks.is_none() && !text.contains("is unreachable");
            assert!(is_clear || is_cut, "{lacks:?} by {name} in {arguments:?}: {text}");
        }
    }
}
