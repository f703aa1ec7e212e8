//! A private PostgreSQL cluster in a temporary directory: Debian's `initdb` and `postgres`, with a socket only. It runs
//! as an unprivileged user even if root starts it, and is removed when dropped.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::config::resolved::PostgresSettings;
use crate::error::{Error, Result};
use crate::store;

const START: Duration = Duration::from_secs(60);
const STOP: Duration = Duration::from_secs(3);

/// A running cluster. Dropping it stops the server and removes the directory.
pub(crate) struct DemoDatabase {
    server: Child,
    directory: tempfile::TempDir,
}

impl DemoDatabase {
    /// Creates and starts the cluster; returns when it answers.
    ///
    /// # Errors
    /// 69 if the programs are missing or do not start, with the end of their log.
    pub(crate) fn start() -> Result<Self> {
        let programs = programs()?;
        let directory = tempfile::Builder::new()
            .prefix("anomaly-demo-")
            .tempdir()
            .map_err(|e| Error::unavailable(format_args!("cannot make a temporary directory: {e}")))?;
        let user = unprivileged(directory.path())?;
        let path = directory.path();
        let made = as_user(user.as_deref(), &programs.join("initdb"))
            .args(["--auth=trust", "--username=anomaly_user", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", "-D"])
            .arg(path.join("data"))
            .current_dir("/")
            // Ctrl-C is for the demo: an interrupted step would look like a failed one.
            .process_group(0)
            .output()
            .map_err(|e| Error::unavailable(format_args!("cannot run initdb: {e}")))?;
        if !made.status.success() {
            let why = String::from_utf8_lossy(&made.stderr).into_owned();
            return Err(Error::unavailable(format_args!("initdb failed: {}", why.trim())));
        }
        let log = fs::File::create(path.join("log"))
            .map_err(|e| Error::unavailable(format_args!("cannot write into {}: {e}", path.display())))?;
        let mut command = as_user(user.as_deref(), &programs.join("postgres"));
        command.arg("-D").arg(path.join("data")).arg("-k").arg(path);
        // The cluster is removed at the end and does not need to survive a crash.
        for setting in ["listen_addresses=", "fsync=off", "full_page_writes=off", "shared_buffers=32MB"] {
            command.args(["-c", setting]);
        }
        let server = command
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            // Ctrl-C is for the demo, which stops the server in order.
            .process_group(0)
            .spawn()
            .map_err(|e| Error::unavailable(format_args!("cannot run postgres: {e}")))?;
        let mut cluster = DemoDatabase { server, directory };
        cluster.wait()?;
        Ok(cluster)
    }

    fn wait(&mut self) -> Result<()> {
        let mut settings = crate::config::load(&crate::config::SettingFiles::default())?.settings.postgres;
        self.settings(&mut settings);
        settings.dbname = "postgres".into();
        let deadline = Instant::now() + START;
        loop {
            match store::connect(&settings) {
                Ok(mut client) => {
                    return client
                        .batch_execute("create database anomalies_db")
                        .map_err(|e| Error::unavailable(store::explain(&e)));
                }
                Err(why) => {
                    let has_ended = !matches!(self.server.try_wait(), Ok(None));
                    if has_ended || Instant::now() > deadline {
                        let log = fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
                        let tail = log.lines().rev().take(5).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>();
                        let tail = tail.join(" | ");
                        return Err(Error::unavailable(format_args!(
                            "PostgreSQL does not start: {why}; the end of its log: {tail}"
                        )));
                    }
                    std::thread::sleep(Duration::from_millis(50));
                }
            }
        }
    }

    /// Returns the directory of the cluster.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Returns the settings to connect to it.
    pub(crate) fn settings(&self, postgres: &mut PostgresSettings) {
        postgres.host = self.directory.path().display().to_string();
        postgres.dbname = "anomalies_db".into();
        postgres.user = "anomaly_user".into();
        postgres.sslmode = "disable".into();
    }
}

impl Drop for DemoDatabase {
    fn drop(&mut self) {
        let Some(pid) = i32::try_from(self.server.id()).ok().and_then(Pid::from_raw) else { return };
        // SIGINT ends sessions and stops; SIGQUIT stops at once.
        for signal in [Signal::INT, Signal::QUIT, Signal::KILL] {
            if kill_process(pid, signal).is_err() {
                return;
            }
            let deadline = Instant::now() + STOP;
            while Instant::now() < deadline {
                if !matches!(self.server.try_wait(), Ok(None)) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

/// Returns the program directory of the newest version.
fn programs() -> Result<PathBuf> {
    let version = |path: &Path| path.file_name().and_then(|n| n.to_str()).and_then(|n| n.parse::<u32>().ok());
    let mut found = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| version(path).is_some() && path.join("bin/initdb").exists())
        .collect::<Vec<_>>();
    found.sort_by_key(|path| version(path));
    found.pop().map(|path| path.join("bin")).ok_or_else(|| {
        Error::unavailable("PostgreSQL's programs are not installed: `apt install postgresql-15`, then try again")
    })
}

/// Returns the user to run as if root calls, who then owns the directory. PostgreSQL refuses to run as root.
fn unprivileged(directory: &Path) -> Result<Option<String>> {
    let cannot = |e: std::io::Error| Error::unavailable(format_args!("cannot prepare {}: {e}", directory.display()));
    if fs::metadata(directory).map_err(cannot)?.uid() != 0 {
        return Ok(None);
    }
    for user in ["postgres", "nobody"] {
        let Ok(id) = Command::new("id").args(["-u", user]).stderr(Stdio::null()).output() else { continue };
        let Ok(uid) = String::from_utf8_lossy(&id.stdout).trim().parse::<u32>() else { continue };
        std::os::unix::fs::chown(directory, Some(uid), None).map_err(cannot)?;
        fs::set_permissions(directory, fs::Permissions::from_mode(0o700)).map_err(cannot)?;
        return Ok(Some(user.to_owned()));
    }
    Err(Error::unavailable("PostgreSQL does not run as root, and there is neither a user postgres nor nobody"))
}

/// `setpriv` becomes the program: the child's pid is the server's, and the server ends with this process in every case.
fn as_user(user: Option<&str>, program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.arg("--pdeathsig=INT");
    if let Some(user) = user {
        command.arg(format!("--reuid={user}")).args(["--clear-groups", "--regid=nogroup"]);
    }
    command.arg("--").arg(program);
    command
}
