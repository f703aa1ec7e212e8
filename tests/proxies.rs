//! Tests of the dashboard behind real proxies, each with the example of the package: pages below a path, a login over
//! plain HTTP, the event stream, and the client whose failures count.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::common::{Process, free_port, root, wait_for};
use super::dashboard::{Stage, ago, anomaly};

/// A proxy, its dashboard, and the ports of both.
struct Site {
    stage: Stage,
    proxy: Process,
    _dir: tempfile::TempDir,
}

/// Address of a client. Each address of the loopback network counts as a different client.
const ADA: &str = "127.0.0.2";
const EVE: &str = "127.0.0.3";

fn open(from: &str, port: u16) -> TcpStream {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let stream = runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
        socket.connect(([127, 0, 0, 1], port).into()).await.unwrap()
    });
    let stream = stream.into_std().unwrap();
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream
}

impl Site {
    /// Starts a dashboard behind the proxy that `start` configures from a directory, its own port and the dashboard's
    /// port.
    fn new(start: impl FnOnce(&Path, u16, u16) -> Command) -> Site {
        let (dir, outer) = (tempfile::tempdir().unwrap(), free_port());
        let users = dir.path().join("users");
        std::fs::write(&users, format!("ada:operator:{}\n", anomaly::page::auth::hash("secret").unwrap())).unwrap();
        let stage = Stage::with(|settings| {
            settings.dashboard.path = "/anomaly".to_owned();
            settings.dashboard.users = users.display().to_string();
        });
        let mut command = start(dir.path(), outer, stage.address.port());
        let proxy = Process::start(&mut command, dir.path().join("proxy.log"), outer);
        wait_for("the proxy", Duration::from_secs(90), || TcpStream::connect(("127.0.0.1", outer)).is_ok());
        Site { stage, proxy, _dir: dir }
    }

    fn ask(&self, from: &str, method: &str, path: &str, headers: &str, body: &str) -> String {
        let (port, length) = (self.proxy.port, body.len());
        let head = format!("{method} {path} HTTP/1.1\r\nhost: localhost:{port}\r\nconnection: close\r\n{headers}");
        let mut stream = open(from, port);
        write!(stream, "{head}content-length: {length}\r\n\r\n{body}").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn get(&self, path: &str, headers: &str) -> String {
        self.ask(ADA, "GET", path, headers, "")
    }

    /// Sends a form as a browser does over plain HTTP: the origin is the only header that names its site.
    fn log_in(&self, from: &str, password: &str, headers: &str) -> String {
        let origin = format!("origin: http://localhost:{}\r\n{headers}", self.proxy.port);
        self.ask(from, "POST", "/anomaly/login", &origin, &format!("name=ada&password={password}&next=%2Fdevices"))
    }

    /// Checks everything that a proxy must not break.
    fn check(&self) {
        let header = |answer: &str, name: &str| {
            let line = answer.lines().find(|line| line.to_ascii_lowercase().starts_with(&format!("{name}: ")));
            line.unwrap_or_else(|| panic!("no {name} in {answer}")).split_once(": ").unwrap().1.trim_end().to_owned()
        };
        let asked = self.get("/anomaly/devices?span=1h", "");
        assert!(header(&asked, "location").ends_with("/anomaly/login?next=%2Fdevices%3Fspan%3D1h"), "{asked}");
        // Guessing with an invented address for each attempt does not lock out other users.
        for i in 0..10 {
            let lie = format!("x-forwarded-for: 198.51.100.{i}\r\nforwarded: for=198.51.100.{i}\r\n");
            assert!(self.log_in(EVE, "wrong", &lie).contains(" 401 "), "attempt {i}");
        }
        assert!(self.log_in(EVE, "secret", "").contains(" 429 "), "guessing is not limited");
        let entered = self.log_in(ADA, "secret", "");
        assert!(header(&entered, "location").ends_with("/anomaly/devices"), "{entered}");
        let cookie = header(&entered, "set-cookie");
        assert!(cookie.contains("Path=/anomaly;"), "{cookie}");
        let cookie = format!("cookie: {}\r\n", cookie.split(';').next().unwrap());
        let page = self.get("/anomaly/", &cookie);
        assert!(page.contains(" 200 ") && page.contains("href=\"/anomaly/devices"), "{page}");
        let script = page.split("<script src=\"").nth(1).unwrap().split('"').next().unwrap();
        assert!(self.get(script, "").contains("EventSource"));
        let mut stream = open(ADA, self.proxy.port);
        let port = self.proxy.port;
        write!(stream, "GET /anomaly/events?format=json HTTP/1.1\r\nhost: localhost:{port}\r\n{cookie}\r\n").unwrap();
        let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
        assert!(lines.any(|line| line.starts_with("id: ")), "the stream does not begin");
        self.stage.insert(&anomaly("press/1", 7, ago(3), 24.6));
        assert!(lines.any(|line| line.starts_with("data: ") && line.contains("press/1")), "a record does not arrive");
        // A name with a slash, as the pages encode it.
        let device = self.get("/anomaly/devices/press%2F1", &cookie);
        assert!(device.contains(" 200 ") && device.contains("press/1"), "{device}");
        let review = self.ask(
            ADA,
            "POST",
            "/anomaly/anomalies/raw_events/0/7/0/point/reviews",
            &format!("{cookie}origin: http://localhost:{port}\r\n"),
            "review=true",
        );
        assert!(header(&review, "location").ends_with("/anomaly/anomalies/raw_events/0/7/0/point"), "{review}");
        assert!(
            self.ask(ADA, "POST", "/anomaly/logout", &format!("{cookie}origin: http://evil.example\r\n"), "")
                .contains(" 403 ")
        );
    }
}

/// Returns a shipped example, changed for the dashboard at `inner`.
fn example(name: &str, inner: u16) -> String {
    let text = std::fs::read_to_string(root().join("packaging/examples").join(name)).unwrap();
    assert!(text.contains("127.0.0.1:8501"), "{name}");
    text.replace("127.0.0.1:8501", &format!("127.0.0.1:{inner}"))
}

fn write(path: &Path, text: &str) -> String {
    std::fs::write(path, text).unwrap();
    path.display().to_string()
}

fn nginx(dir: &Path, outer: u16, location: &str) -> Command {
    let dir = dir.display();
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let temporary = temporary.map(|name| format!("{name}_temp_path {dir}/{name};")).join(" ");
    let config = format!(
        "daemon off; master_process off; user root; pid {dir}/nginx.pid; error_log stderr; events {{}}\n\
         http {{ access_log off; {temporary} server {{ listen 127.0.0.1:{outer};\n{location}\n}} }}\n"
    );
    let path = write(&Path::new(&dir.to_string()).join("nginx.conf"), &config);
    let mut command = Command::new("nginx");
    command.args(["-e", "stderr", "-c", &path]);
    command
}

#[test]
fn behind_nginx_as_in_the_example() {
    Site::new(|dir, outer, inner| nginx(dir, outer, &example("nginx.conf", inner))).check();
}

#[test]
fn behind_apache_as_in_the_example() {
    let start = |dir: &Path, outer: u16, inner: u16| {
        let modules = ["mpm_event", "authz_core", "proxy", "proxy_http", "headers"];
        let modules = modules.map(|name| format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n"));
        let config = format!(
            "{}ServerRoot {dir}\nPidFile {dir}/apache.pid\nErrorLog /dev/stderr\nServerName localhost\nDefaultRuntimeDir {dir}\n\
             Listen 127.0.0.1:{outer}\n<VirtualHost *:{outer}>\n{}\n</VirtualHost>\n",
            modules.concat(),
            example("apache.conf", inner),
            dir = dir.display(),
        );
        let path = write(&dir.join("apache.conf"), &config);
        let mut command = Command::new("apache2");
        command.args(["-X", "-f", &path]);
        command
    };
    Site::new(start).check();
}

#[test]
fn behind_haproxy_as_in_the_example() {
    let start = |dir: &Path, outer: u16, inner: u16| {
        let config = example("haproxy.cfg", inner);
        let bind = ":443 ssl crt /etc/haproxy/watch.example.com.pem";
        assert!(config.contains(bind));
        let path = write(&dir.join("haproxy.cfg"), &config.replace(bind, &format!("127.0.0.1:{outer}")));
        let mut command = Command::new("haproxy");
        command.args(["-db", "-f", &path]);
        command
    };
    Site::new(start).check();
}

#[test]
#[ignore = "needs the package caddy: `make test-all`"]
fn behind_caddy_as_in_the_example() {
    let start = |dir: &Path, outer: u16, inner: u16| {
        let site = format!("http://localhost:{outer} {{");
        let config = example("Caddyfile", inner).replace("watch.example.com {", &site);
        let path = write(&dir.join("Caddyfile"), &format!("{{\n\tadmin off\n}}\n{config}"));
        let mut command = Command::new("caddy");
        command.args(["run", "--adapter", "caddyfile", "--config", &path]).env("HOME", dir);
        command
    };
    Site::new(start).check();
}

#[test]
fn a_proxy_that_changes_the_host_is_named_and_may_send_the_host_in_a_header() {
    let plain = "location / { proxy_pass http://127.0.0.1:PORT; ADD }";
    let with = |add: &str| {
        let location = plain.replace("ADD", add);
        Site::new(|dir, outer, inner| nginx(dir, outer, &location.replace("PORT", &inner.to_string())))
    };
    let refused = with("").log_in(ADA, "secret", "");
    assert!(refused.contains(" 403 ") && refused.contains("proxy_set_header Host $http_host"), "{refused}");
    let entered = with("proxy_set_header X-Forwarded-Host $http_host;").log_in(ADA, "secret", "");
    assert!(entered.contains(" 303 "), "{entered}");
    let removed = with("rewrite ^/anomaly/(.*) /$1 break; proxy_set_header Host $http_host;");
    assert!(removed.log_in(ADA, "secret", "").contains(" 303 "), "a proxy may remove the path");
}
