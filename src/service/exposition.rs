//! The two formats of `/metrics`. Selects the format that a client prefers, and converts OpenMetrics to Prometheus'
//! text format, which names counters and infos differently in their descriptions.
//!
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>,
//! <https://github.com/prometheus/OpenMetrics/blob/main/specification/OpenMetrics.md>

/// Text format of the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExpositionFormat {
    /// Prometheus' text format 0.0.4, which every client reads.
    Text,
    /// OpenMetrics 1.0.0, which ends with `# EOF`.
    OpenMetrics,
}

impl ExpositionFormat {
    /// Selects the format for an `Accept` header; several headers are joined by commas. If both are equal, it selects
    /// the text format, unless the header names OpenMetrics.
    pub(crate) fn wanted(accept: &str) -> ExpositionFormat {
        let open = best(accept, "application", "openmetrics-text", "1.0.0");
        let text = best(accept, "text", "plain", "0.0.4");
        let is_open = open.quality > text.quality || (open.quality == text.quality && open.rank == EXACT);
        if is_open && open.quality > 0.0 { ExpositionFormat::OpenMetrics } else { ExpositionFormat::Text }
    }

    /// Returns the content type of the format.
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            ExpositionFormat::Text => "text/plain; version=0.0.4; charset=utf-8",
            ExpositionFormat::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// Converts metrics from OpenMetrics to this format.
    pub(crate) fn write(self, open_metrics: String) -> String {
        match self {
            ExpositionFormat::Text => text(&open_metrics),
            ExpositionFormat::OpenMetrics => open_metrics,
        }
    }
}

/// The most specific range determines the preference: the exact type before `type/*`, and that before `*/*`.
const EXACT: u8 = 3;

/// The preference of an `Accept` header for one type.
#[derive(Default)]
struct Preference {
    rank: u8,
    quality: f32,
}

fn best(accept: &str, kind: &str, name: &str, version: &str) -> Preference {
    let mut best = Preference::default();
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let range = parts.next().unwrap_or_default().to_ascii_lowercase();
        let rank = match range.split_once('/') {
            Some(("*", "*")) => 1,
            Some((of, "*")) if of == kind => 2,
            Some((of, named)) if of == kind && named == name => EXACT,
            _ => continue,
        };
        let (mut quality, mut is_version) = (1.0, true);
        for (key, value) in parts.filter_map(|part| part.split_once('=')) {
            match key.trim().to_ascii_lowercase().as_str() {
                "q" => quality = value.trim().parse::<f32>().map_or(0.0, |q| q.clamp(0.0, 1.0)),
                "version" => is_version = value.trim().trim_matches('"') == version,
                _ => {}
            }
        }
        if is_version && (rank > best.rank || (rank == best.rank && quality > best.quality)) {
            best = Preference { rank, quality };
        }
    }
    best
}

/// Renames descriptions: OpenMetrics describes `x` for the counter `x_total` and the info `x_info`; the text format
/// describes the samples.
fn text(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    let mut help = "";
    for line in open_metrics.lines() {
        if let Some(described) = line.strip_prefix("# HELP ") {
            help = described;
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|typed| typed.split_once(' ')) {
            let (end, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "untyped"),
                kind => ("", kind),
            };
            if let Some((_, words)) = help.split_once(' ').filter(|(of, _)| *of == name) {
                text += &format!("# HELP {name}{end} {words}\n");
            }
            text += &format!("# TYPE {name}{end} {kind}\n");
        } else if !line.starts_with('#') {
            text += line;
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_negotiated_and_text_is_the_default() {
        use ExpositionFormat::*;
        for (accept, format) in [
            ("", Text),
            ("*/*", Text),
            ("text/html,application/xhtml+xml,*/*;q=0.8", Text),
            ("application/json", Text),
            ("text/plain;version=0.0.4;q=0.3, */*;q=0.1", Text),
            ("application/openmetrics-text", OpenMetrics),
            ("APPLICATION/OpenMetrics-Text; Version=\"1.0.0\"; charset=utf-8", OpenMetrics),
            ("application/openmetrics-text;version=0.0.1", Text),
            ("application/openmetrics-text;q=0", Text),
            ("application/openmetrics-text;q=0,*/*", Text),
            ("application/openmetrics-text;q=0.2,text/plain;q=0.5", Text),
            ("text/plain, application/openmetrics-text", OpenMetrics),
            ("text/plain;q=0, */*;q=0.1", OpenMetrics),
            ("application/openmetrics-text;q=x", Text),
            // Headers of Prometheus 2.42, 2.54 and 3.5.
            (
                "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                 text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                OpenMetrics,
            ),
            (
                "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,\
                 text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
                OpenMetrics,
            ),
            (
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
                 application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
                 text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
                OpenMetrics,
            ),
        ] {
            assert_eq!(ExpositionFormat::wanted(accept), format, "{accept}");
        }
    }

    #[test]
    fn descriptions_in_text_name_the_samples() {
        let open = "# HELP a_events Events.\n# TYPE a_events counter\na_events_total{kind=\"x\\\"y\"} 3\n\
                    # HELP a_build Build.\n# TYPE a_build info\na_build_info{v=\"1\"} 1\n# HELP a_lag Lag.\n# TYPE a_lag gauge\n\
                    a_lag 7\n# TYPE a_size unknown\n# UNIT a_size bytes\na_size 1\n# EOF\n";
        let expected = "# HELP a_events_total Events.\n# TYPE a_events_total counter\na_events_total{kind=\"x\\\"y\"} 3\n\
                        # HELP a_build_info Build.\n# TYPE a_build_info gauge\na_build_info{v=\"1\"} 1\n# HELP a_lag Lag.\n\
                        # TYPE a_lag gauge\na_lag 7\n# TYPE a_size untyped\na_size 1\n";
        assert_eq!(text(open), expected);
    }
}
