//! Real services for tests: topics, groups and a schema per test on the box, processes that end with the test, and
//! waiting.

use std::fs::File;
use std::io::{Read, Seek};
use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_anomaly");

pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Addresses of the services, as `tests/box env` prints them.
#[derive(Clone)]
pub struct Parts {
    pub env: Vec<(String, String)>,
}

impl Parts {
    /// Returns the box that `tests/run` started.
    pub fn shared() -> Self {
        let env = std::env::vars().filter(|(name, _)| name.starts_with("ANOMALY__")).collect::<Vec<_>>();
        assert!(
            env.iter().any(|(name, _)| name == "ANOMALY__KAFKA__BOOTSTRAP_SERVERS"),
            "no box: run `tests/run`, or `eval \"$(tests/box env)\"` first"
        );
        Parts { env }
    }

    pub fn get(&self, name: &str) -> &str {
        let name = format!("ANOMALY__{name}");
        &self.env.iter().find(|(n, _)| *n == name).unwrap_or_else(|| panic!("the box gives no {name}")).1
    }

    pub fn brokers(&self) -> &str {
        self.get("KAFKA__BOOTSTRAP_SERVERS")
    }

    pub fn postgres(&self) -> postgres::Client {
        let password = std::fs::read_to_string(self.get("POSTGRES__PASSWORD_FILE")).unwrap();
        postgres::Config::new()
            .host(self.get("POSTGRES__HOST"))
            .port(self.get("POSTGRES__PORT").parse().unwrap())
            .dbname(self.get("POSTGRES__DBNAME"))
            .user(self.get("POSTGRES__USER"))
            .password(password.trim())
            .connect(postgres::NoTls)
            .unwrap()
    }
}

impl Parts {
    /// Connects as the role that may create roles.
    pub fn admin(&self) -> postgres::Client {
        let dir = Path::new(self.get("POSTGRES__PASSWORD_FILE")).parent().unwrap().to_owned();
        postgres::Config::new()
            .host(self.get("POSTGRES__HOST"))
            .port(self.get("POSTGRES__PORT").parse().unwrap())
            .dbname(self.get("POSTGRES__DBNAME"))
            .user("postgres")
            .password(std::fs::read_to_string(dir.join("postgres.password")).unwrap().trim())
            .connect(postgres::NoTls)
            .unwrap()
    }
}

/// Topics, groups and a schema that no other test uses.
pub struct Case {
    pub parts: Parts,
    pub name: String,
    pub dir: tempfile::TempDir,
    pub env: Vec<(String, String)>,
}

static CASES: AtomicU32 = AtomicU32::new(0);

impl Case {
    /// Creates topics and tables with the program's own commands.
    pub fn new(name: &str) -> Self {
        let case = Self::bare(name, Parts::shared());
        case.ok(&["topics"]);
        case.ok(&["migrate"]);
        case
    }

    /// Chooses names, and creates nothing.
    pub fn bare(name: &str, parts: Parts) -> Self {
        let name = format!("{name}_{}_{}", std::process::id(), CASES.fetch_add(1, Ordering::Relaxed));
        let own = [
            ("TOPICS__RAW_EVENTS", format!("{name}.raw")),
            ("TOPICS__ANOMALIES", format!("{name}.anomalies")),
            ("TOPICS__DEAD_LETTER", format!("{name}.dlq")),
            ("TOPICS__STATE", format!("{name}.state")),
            ("DETECTOR__GROUP", format!("{name}-detector")),
            ("DETECTOR__START", "earliest".to_owned()),
            ("SINK__GROUP", format!("{name}-sink")),
            ("POSTGRES__SCHEMA", name.clone()),
            ("METRICS__LISTEN", "off".to_owned()),
            // Few partitions, as every test has tables of its own.
            ("POSTGRES__RETENTION", "28d".to_owned()),
        ];
        let mut env = parts.env.clone();
        env.extend(own.map(|(key, value)| (format!("ANOMALY__{key}"), value)));
        Case { parts, name, dir: tempfile::tempdir().unwrap(), env }
    }

    pub fn set(&mut self, key: &str, value: impl ToString) {
        let key = format!("ANOMALY__{key}");
        self.env.retain(|(name, _)| *name != key);
        self.env.push((key, value.to_string()));
    }

    pub fn raw(&self) -> String {
        format!("{}.raw", self.name)
    }

    pub fn anomalies(&self) -> String {
        format!("{}.anomalies", self.name)
    }

    pub fn dlq(&self) -> String {
        format!("{}.dlq", self.name)
    }

    /// Returns the program with this test's settings.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        let inherited = std::env::vars().filter(|(name, _)| name.starts_with("ANOMALY__"));
        inherited.for_each(|(name, _)| {
            command.env_remove(name);
        });
        command.args(arguments).args(["--config", self.dir.path().to_str().unwrap()]);
        command.envs(self.env.iter().cloned()).env_remove("JOURNAL_STREAM").stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs a command that must succeed; returns its standard output.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{arguments:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
        text
    }

    /// Starts a role that ends with the test.
    pub fn role(&self, role: &str, settings: &[(&str, &str)]) -> Process {
        let port = free_port();
        let log = self.dir.path().join(format!("{role}-{port}.log"));
        let mut command = self.command(&["--role", role]);
        command.env("ANOMALY__METRICS__LISTEN", format!("127.0.0.1:{port}"));
        command.env("ANOMALY__LOG__ANOMALIES_PER_SECOND", "0");
        for (key, value) in settings {
            command.env(if key.contains("__") { format!("ANOMALY__{key}") } else { (*key).to_owned() }, value);
        }
        let file = File::create(&log).unwrap();
        let child = command.stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap();
        Process { child, log, port }
    }

    /// Starts a detector with this instance name.
    pub fn detector(&self, instance: &str, settings: &[(&str, &str)]) -> Process {
        let mut settings = settings.to_vec();
        settings.push(("DETECTOR__INSTANCE", instance));
        self.role("detector", &settings)
    }

    /// Sends records with Kafka's own producer; each has key, value and label.
    pub fn produce(&self, records: impl IntoIterator<Item = Sent>) {
        let producer: BaseProducer = self
            .client()
            .set("enable.idempotence", "true")
            .set("partitioner", "murmur2_random")
            .set("message.max.bytes", "10000000")
            .set("queue.buffering.max.messages", "2000000")
            .set("queue.buffering.max.kbytes", "1000000")
            .create()
            .unwrap();
        let topic = self.raw();
        for sent in records {
            let mut record = BaseRecord::<[u8], [u8]>::to(&topic);
            record.key = sent.key.as_deref();
            record.payload = sent.value.as_deref();
            record.partition = sent.partition;
            record.timestamp = sent.timestamp;
            let label = sent.label.map(|label| ("anomaly-label", Some(label.as_bytes())));
            let headers = sent.headers.iter().copied().chain(label).collect::<Vec<_>>();
            if !headers.is_empty() {
                let all = headers.into_iter();
                record = record
                    .headers(all.fold(OwnedHeaders::new(), |all, (key, value)| all.insert(Header { key, value })));
            }
            loop {
                match producer.send(record) {
                    Ok(()) => break,
                    Err((_, back)) => {
                        producer.poll(Duration::from_millis(10));
                        record = back;
                    }
                }
            }
        }
        producer.flush(Duration::from_secs(120)).unwrap();
    }

    /// Returns a client configuration with the addresses of the brokers.
    pub fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.parts.brokers());
        config
    }

    /// Returns everything that a read-committed consumer finds in a topic now, by partition and offset.
    pub fn read(&self, topic: &str) -> Vec<Got> {
        let consumer: BaseConsumer = self
            .client()
            .set("group.id", "unused")
            .set("enable.auto.commit", "false")
            .set("isolation.level", "read_committed")
            .set("enable.partition.eof", "true")
            .create()
            .unwrap();
        let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(20)).unwrap();
        let mut left = metadata.topics()[0].partitions().len();
        let mut list = TopicPartitionList::new();
        for partition in metadata.topics()[0].partitions() {
            list.add_partition_offset(topic, partition.id(), Offset::Beginning).unwrap();
        }
        consumer.assign(&list).unwrap();
        let mut all = Vec::new();
        let deadline = Instant::now() + Duration::from_secs(120);
        while left > 0 {
            assert!(Instant::now() < deadline, "cannot read {topic} to its end");
            match consumer.poll(Duration::from_secs(1)) {
                Some(Ok(message)) => all.push(Got {
                    partition: message.partition(),
                    offset: message.offset(),
                    timestamp: message.timestamp().to_millis(),
                    key: message.key().map(<[u8]>::to_vec),
                    value: message.payload().map(<[u8]>::to_vec),
                    headers: message
                        .headers()
                        .map(|headers| {
                            headers.iter().map(|h| (h.key.to_owned(), h.value.map(<[u8]>::to_vec))).collect()
                        })
                        .unwrap_or_default(),
                }),
                Some(Err(rdkafka::error::KafkaError::PartitionEOF(_))) => left -= 1,
                Some(Err(error)) => panic!("{topic}: {error}"),
                None => {}
            }
        }
        all.sort_by_key(|got| (got.partition, got.offset));
        all
    }

    /// Connects with this test's schema as search path.
    pub fn sql(&self) -> postgres::Client {
        let mut client = self.parts.postgres();
        client.batch_execute(&format!("set search_path = {}", self.name)).unwrap();
        client
    }

    pub fn count(&self, what: &str) -> i64 {
        self.sql().query_one(&format!("select count(*) from {what}"), &[]).unwrap().get(0)
    }

    /// Returns the sum of the group's committed offsets over all partitions.
    pub fn committed(&self) -> i64 {
        let group = format!("{}-detector", self.name);
        let consumer: BaseConsumer =
            self.client().set("group.id", group).set("enable.auto.commit", "false").create().unwrap();
        let topic = self.raw();
        let metadata = consumer.fetch_metadata(Some(&topic), Duration::from_secs(20)).unwrap();
        let mut list = TopicPartitionList::new();
        for partition in metadata.topics()[0].partitions() {
            list.add_partition(&topic, partition.id());
        }
        // A broker that has just started does not know its groups yet.
        let mut offsets = consumer.committed_offsets(list.clone(), Duration::from_secs(20));
        wait_for("the committed offsets", Duration::from_secs(120), || {
            if offsets.is_err() {
                offsets = consumer.committed_offsets(list.clone(), Duration::from_secs(20));
            }
            offsets.is_ok()
        });
        let offsets = offsets.unwrap();
        offsets.elements().iter().filter_map(|e| e.offset().to_raw()).filter(|o| *o >= 0).sum()
    }
}

impl Drop for Case {
    fn drop(&mut self) {
        // A failed test leaves its tables to look at.
        if std::thread::panicking() {
            return;
        }
        // Thousands of partitions would make the box slow to start.
        let topics = [self.raw(), self.anomalies(), self.dlq(), format!("{}.state", self.name)];
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        if let (Ok(runtime), Ok(admin)) = (runtime, self.client().create::<AdminClient<DefaultClientContext>>()) {
            let names = topics.iter().map(String::as_str).collect::<Vec<_>>();
            let options = AdminOptions::new().request_timeout(Some(Duration::from_secs(5)));
            let _ = runtime.block_on(admin.delete_topics(&names, &options));
        }
        if let Ok(mut client) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.parts.postgres())) {
            let _ = client.batch_execute(&format!("drop schema if exists {} cascade", self.name));
        }
    }
}

/// One record to send to a topic.
#[derive(Debug, Clone, Default)]
pub struct Sent {
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub partition: Option<i32>,
    pub timestamp: Option<i64>,
    pub label: Option<&'static str>,
    /// Headers in order, before the label; a value may be null.
    pub headers: Vec<(&'static str, Option<&'static [u8]>)>,
}

/// Returns an event in the form of the contract.
pub fn event(device: &str, value: f64) -> Sent {
    let json = serde_json::json!({"device_id": device, "metric_name": "m", "metric_value": value});
    Sent { key: Some(device.into()), value: Some(json.to_string().into_bytes()), ..Sent::default() }
}

/// One record that was read from a topic.
#[derive(Debug, Clone)]
pub struct Got {
    pub partition: i32,
    pub offset: i64,
    /// Time of the record in milliseconds since the epoch.
    pub timestamp: Option<i64>,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    /// Headers in order; a value may be null.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Got {
    pub fn header(&self, name: &str) -> Option<String> {
        let value = self.headers.iter().find(|(key, _)| key == name)?.1.as_deref()?;
        Some(String::from_utf8_lossy(value).into_owned())
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(self.value.as_deref().unwrap_or_default()).unwrap()
    }
}

/// A running role. Dropping it kills the process.
pub struct Process {
    pub child: Child,
    pub log: PathBuf,
    pub port: u16,
}

impl Process {
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.child.id() as i32).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Sends SIGTERM, and waits for the exit within a limit.
    pub fn terminate(mut self, limit: Duration) -> ExitStatus {
        self.signal(rustix::process::Signal::TERM);
        self.exit(limit)
    }

    pub fn exit(&mut self, limit: Duration) -> ExitStatus {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "still running after {limit:?}:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Returns status and body of a path of the endpoint; `None` while it does not listen.
    pub fn get(&self, path: &str) -> Option<(u16, String)> {
        get(self.port, path)
    }

    pub fn wait_ready(&self) {
        wait("the role to be ready", || matches!(self.get("/readyz"), Some((200, _))));
    }

    /// Returns a line of `/proc/PID/status` in mebibytes.
    pub fn mebibytes(&self, line: &str) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let value = text.lines().find_map(|l| l.strip_prefix(line)).unwrap();
        value.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
    }

    /// Returns the value of the metric whose line begins with this text.
    pub fn metric(&self, line: &str) -> f64 {
        let text = self.get("/metrics").map(|(_, text)| text).unwrap_or_default();
        let value = text.lines().find_map(|l| l.strip_prefix(line));
        value.and_then(|v| v.trim().parse().ok()).unwrap_or(0.0)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- {}\n{}", self.log.display(), self.log());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn get(port: u16, path: &str) -> Option<(u16, String)> {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let mut answer = agent.get(format!("http://127.0.0.1:{port}{path}")).call().ok()?;
    Some((answer.status().as_u16(), answer.body_mut().read_to_string().ok()?))
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Waits for a condition, for at most a minute and a half.
#[track_caller]
pub fn wait(what: &str, condition: impl FnMut() -> bool) {
    wait_for(what, Duration::from_secs(180), condition);
}

#[track_caller]
pub fn wait_for(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < deadline, "waited {limit:?} for {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Returns the program without variables of the box or of a service manager in its environment.
pub fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    let ours = |name: &str| name.starts_with("ANOMALY__") || ["JOURNAL_STREAM", "NOTIFY_SOCKET"].contains(&name);
    for (name, _) in std::env::vars().filter(|(name, _)| ours(name)) {
        command.env_remove(name);
    }
    command.args(arguments).stdin(Stdio::null());
    command
}

impl Process {
    /// Starts any command so that it ends with the test; both its outputs go into `log`.
    pub fn start(command: &mut Command, log: PathBuf, port: u16) -> Process {
        let file = File::create(&log).unwrap();
        let child = command.stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap();
        Process { child, log, port }
    }
}

/// A service manager that records its notifications, each with the time since it began to listen.
pub struct Manager {
    path: PathBuf,
    heard: Arc<Mutex<Vec<(Duration, String)>>>,
}

impl Manager {
    /// Listens on a socket in a directory.
    pub fn new(dir: &Path) -> Manager {
        let path = dir.join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let (ear, began) = (Arc::downgrade(&heard), Instant::now());
        // Read at once: a full queue would hold up the sender.
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Some(heard) = ear.upgrade() {
                if let Ok(n) = socket.recv(&mut buffer) {
                    let text = String::from_utf8_lossy(&buffer[..n]).into_owned();
                    heard.lock().unwrap().push((began.elapsed(), text));
                }
            }
        });
        Manager { path, heard }
    }

    /// Returns the value for `NOTIFY_SOCKET`.
    pub fn socket(&self) -> &str {
        self.path.to_str().unwrap()
    }

    /// Returns all datagrams in order; a datagram may have several lines.
    pub fn heard(&self) -> Vec<(Duration, String)> {
        self.heard.lock().unwrap().clone()
    }

    /// Returns whether a datagram has this line.
    pub fn has(&self, line: &str) -> bool {
        self.count(line) > 0
    }

    pub fn count(&self, line: &str) -> usize {
        self.heard().iter().filter(|(_, text)| text.lines().any(|l| l == line)).count()
    }

    #[track_caller]
    pub fn wait(&self, line: &str) {
        wait_for(&format!("{line} to the service manager"), Duration::from_secs(90), || self.has(line));
    }
}

impl Case {
    /// Creates topics, but no tables.
    pub fn topics(name: &str) -> Self {
        let case = Self::bare(name, Parts::shared());
        case.ok(&["topics"]);
        case
    }
}

/// A command that ran to its end.
pub struct Ended {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Ended {
    /// Runs a command that must end by itself within half a minute.
    pub fn of(command: &mut Command) -> Ended {
        let files = [tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap()];
        let [out, err] = files.each_ref().map(|file| file.try_clone().unwrap());
        let mut child = command.stdout(out).stderr(err).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        let status = loop {
            match child.try_wait().unwrap() {
                Some(status) => break Some(status),
                None if Instant::now() > deadline => break None,
                None => std::thread::sleep(Duration::from_millis(10)),
            }
        };
        let [out, err] = files.map(|mut file| {
            let mut bytes = Vec::new();
            file.rewind().unwrap();
            file.read_to_end(&mut bytes).unwrap();
            String::from_utf8_lossy(&bytes).into_owned()
        });
        let Some(status) = status else {
            let _ = child.kill();
            let _ = child.wait();
            panic!("{command:?} did not end by itself:\n{out}{err}");
        };
        Ended { code: status.code(), out, err }
    }
}

impl From<Output> for Ended {
    fn from(output: Output) -> Ended {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ended { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
    }
}
