//! Logs to the journal, to syslog or to standard error. The level can change while the process runs.
//!
//! One event is one line. This file escapes foreign text in messages and fields, so that a name with a newline cannot
//! forge a line. The journal stores each field with its length and needs no escapes.

use std::fmt::{self, Debug, Write};
use std::io::IsTerminal;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Mutex;

use syslog::{Facility, Formatter3164, Logger, LoggerBackend};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::debug_fn;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::Registry;
use tracing_subscriber::reload;

use crate::config::resolved::LogSettings;
use crate::error::{Error, Result};
use crate::foreign;

/// Maximum number of characters of a message and of each field.
const FIELD: usize = 8_192;

/// Changes the log level while the process runs.
pub(crate) struct LevelHandle(reload::Handle<LevelFilter, Registry>);

impl LevelHandle {
    /// Sets the least severe level to log.
    pub(crate) fn set_level(&self, level: &str) {
        if let Err(e) = self.0.reload(filter(level)) {
            tracing::warn!("cannot change the log level: {e}");
        }
    }
}

fn filter(level: &str) -> LevelFilter {
    level.parse().unwrap_or(LevelFilter::INFO)
}

/// Starts logging for the rest of the process.
///
/// # Errors
/// 78 if the configured target is not available.
pub(crate) fn start(settings: &LogSettings, role: &str) -> Result<LevelHandle> {
    let (level, handle) = reload::Layer::new(filter(&settings.level));
    let has_journal = is_journal(std::env::var("JOURNAL_STREAM").ok().as_deref(), Path::new("/proc/self/fd/2"));
    let target = match settings.target.as_str() {
        "auto" if has_journal => "journal",
        "auto" => "stderr",
        other => other,
    };
    let sink: Box<dyn Layer<_> + Send + Sync> = match target {
        "journal" => {
            let journal = tracing_journald::layer()
                .map_err(|e| Error::config(format_args!("log.target is \"journal\", which cannot be reached: {e}")))?;
            Box::new(journal.with_field_prefix(None).with_syslog_identifier(format!("anomaly-{role}")))
        }
        "syslog" => Box::new(Syslog::connect(role)?),
        _ => Box::new(
            tracing_subscriber::fmt::layer()
                .with_writer(std::io::stderr)
                .with_ansi(std::io::stderr().is_terminal())
                .with_target(false)
                // A log that cannot be written must not end the process with a panic.
                .log_internal_errors(false)
                .fmt_fields(debug_fn(|writer, field, value| show(writer, field.name(), value)).delimited(" ")),
        ),
    };
    let subscriber = tracing_subscriber::registry().with(level).with(sink);
    tracing::subscriber::set_global_default(subscriber)
        .map_err(|e| Error::internal(format_args!("logging was started twice: {e}")))?;
    Ok(LevelHandle(handle))
}

/// Returns whether standard error is the journal: systemd passes its device and inode. The variable alone proves
/// nothing, because child processes inherit it.
fn is_journal(named: Option<&str>, stderr: &Path) -> bool {
    let actual = std::fs::metadata(stderr).map(|file| format!("{}:{}", file.dev(), file.ino()));
    actual.is_ok_and(|actual| named == Some(actual.as_str()))
}

/// Formats a field as the message, or as `name=value`, on one line.
fn show(to: &mut dyn Write, name: &str, value: &dyn Debug) -> fmt::Result {
    let text = format!("{value:?}");
    let text = foreign::bytes(text.as_bytes(), FIELD);
    match name {
        "message" => write!(to, "{text}"),
        name => write!(to, "{name}={text}"),
    }
}

/// Writes RFC 3164 to the local daemon, with the fields after the message.
struct Syslog(Mutex<Logger<LoggerBackend, Formatter3164>>);

impl Syslog {
    fn connect(role: &str) -> Result<Self> {
        let formatter = Formatter3164 {
            facility: Facility::LOG_DAEMON,
            hostname: None,
            process: format!("anomaly-{role}"),
            pid: std::process::id(),
        };
        let logger = syslog::unix(formatter)
            .map_err(|e| Error::config(format_args!("log.target is \"syslog\", which cannot be reached: {e}")))?;
        Ok(Syslog(Mutex::new(logger)))
    }
}

#[derive(Default)]
struct LogLine {
    message: String,
    fields: String,
}

impl LogLine {
    fn of(event: &Event<'_>) -> String {
        let mut line = LogLine::default();
        event.record(&mut line);
        line.message + &line.fields
    }
}

impl Visit for LogLine {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _ = match field.name() {
            "message" => show(&mut self.message, "message", value),
            name => self.fields.write_char(' ').and_then(|()| show(&mut self.fields, name, value)),
        };
    }
}

impl<S: Subscriber> Layer<S> for Syslog {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let text = LogLine::of(event);
        let Ok(mut logger) = self.0.lock() else { return };
        // If the log itself fails, there is no place to report it.
        let _ = match *event.metadata().level() {
            Level::ERROR => logger.err(text),
            Level::WARN => logger.warning(text),
            Level::INFO => logger.info(text),
            _ => logger.debug(text),
        };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    struct Lines(Arc<Mutex<Vec<String>>>);

    impl<S: Subscriber> Layer<S> for Lines {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            self.0.lock().unwrap().push(LogLine::of(event));
        }
    }

    #[test]
    fn a_line_for_syslog_has_no_newline_and_no_escape_whoever_logs_it() {
        let (lines, name) = (Arc::default(), "a\n<3>forged\u{1b}[2J\u{202e}");
        tracing::subscriber::with_default(tracing_subscriber::registry().with(Lines(Arc::clone(&lines))), || {
            tracing::warn!(%name, other = name, "{name} is wrong");
        });
        let shown = r"a\n<3>forged\u{1b}[2J\u{202e}";
        let expected = format!("{shown} is wrong name={shown} other=\"{shown}\"");
        assert_eq!(*lines.lock().unwrap(), [expected]);
    }

    #[test]
    fn the_journal_is_used_only_if_standard_error_leads_to_it() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let own = file.as_file().metadata().unwrap();
        let named = format!("{}:{}", own.dev(), own.ino());
        assert!(is_journal(Some(&named), file.path()));
        assert!(!is_journal(Some("8:1"), file.path()));
        assert!(!is_journal(None, file.path()));
        assert!(!is_journal(Some(&named), Path::new("/nowhere")));
    }
}
