//! The files of `etc/`, made from the schema: every key with its default, commented out, and its sentence.

use std::fmt::Write;

use super::schema::{KEYS, SECTIONS, ShippedFile};

/// The text of one shipped file.
pub fn shipped(file: ShippedFile) -> String {
    let about = match file {
        ShippedFile::Common => "Settings that all roles share.",
        ShippedFile::Producer => "Settings of anomaly-producer.service.",
        ShippedFile::Detector => "Settings of anomaly-detector.service.",
        ShippedFile::Dashboard => "Settings of anomaly-dashboard.service.",
    };
    let mut text = format!(
        "# {about} Each line shows a default.\n\
         # Do not change this file: an upgrade would ask about it. Put what differs into a file of your own, such as\n\
         # /etc/anomaly/conf.d/local.toml, which is read after this one.\n\
         # Precedence: common.toml, the role's file, conf.d/*.toml in order, ANOMALY__SECTION__KEY, credentials.\n\
         # `anomaly check` validates the settings, and prints where each value came from.\n"
    );
    let mut section = "";
    for key in KEYS.iter().filter(|key| key.file == file) {
        let Some((of, name)) = key.path.split_once('.') else { continue };
        if of != section {
            section = of;
            let about = SECTIONS.iter().find(|(name, _)| *name == section).map_or("", |(_, about)| about);
            let _ = write!(text, "\n# {about}\n[{section}]\n");
        }
        let _ = write!(text, "# {}\n#{name} = {}\n", key.doc, key.default);
        if key.path == "kafka.bootstrap_servers" {
            text.push_str("#properties.\"security.protocol\" = \"sasl_ssl\"\n");
        }
    }
    text
}
