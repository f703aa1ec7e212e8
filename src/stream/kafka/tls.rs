//! Checks the files of Kafka's TLS settings as librdkafka will open them: certificates, keys, stores. librdkafka's
//! errors name neither the file nor the remedy, and it asks on a terminal for the passphrase of a key.

use std::io;
use std::path::Path;

use openssl::pkcs12::Pkcs12;
use openssl::x509::X509Crl;

use crate::config::resolved::KafkaSettings;
use crate::event::Timestamp;
use crate::finding::{self, Finding, Grade};
use crate::pem::{self, NoKey};

/// Files that librdkafka reads for a token of OAUTHBEARER.
const TOKEN_FILES: [&str; 3] = [
    "sasl.oauthbearer.assertion.file",
    "sasl.oauthbearer.assertion.private.key.file",
    "sasl.oauthbearer.assertion.jwt.template.file",
];

/// Returns the findings about the files and the validity of certificates. Without TLS to the brokers, only the files for
/// a token are read.
pub(crate) fn check(kafka: &KafkaSettings, now: Timestamp) -> Vec<Finding> {
    let files = Files { kafka, now };
    let given = kafka
        .properties
        .keys()
        .filter(|name| name.starts_with("ssl.") && (name.ends_with(".location") || name.ends_with(".pem")));
    let given = given.map(String::as_str).collect::<Vec<_>>();
    if !uses_tls(kafka) {
        let unused = given.iter().map(|name| {
            let text = "is not used: kafka.properties.\"security.protocol\" is neither ssl nor sasl_ssl";
            Finding::new(key(name), Grade::Doubtful, text)
        });
        return unused.chain(files.token()).collect();
    }
    [files.authorities("ssl.ca"), files.revocations(), files.identity(), files.store(), files.engine(), files.token()]
        .concat()
}

/// Returns whether connections are encrypted.
pub(crate) fn uses_tls(kafka: &KafkaSettings) -> bool {
    let protocol = kafka.properties.get("security.protocol");
    protocol.is_some_and(|protocol| protocol.to_ascii_lowercase().ends_with("ssl"))
}

fn key(property: &str) -> String {
    format!("kafka.properties.{property}")
}

/// Value of a TLS property, read from a file or from the setting.
struct TlsPropertyValue {
    /// Name of the setting, for messages.
    what: String,
    /// Path of the file, or a note that the setting itself contains the text.
    place: String,
    bytes: Vec<u8>,
}

impl TlsPropertyValue {
    fn unusable(&self, why: impl std::fmt::Display) -> Vec<Finding> {
        vec![Finding::new(self.what.as_str(), Grade::Unusable, format!("{}: {why}", self.place))]
    }
}

struct Files<'a> {
    kafka: &'a KafkaSettings,
    now: Timestamp,
}

impl Files<'_> {
    fn get(&self, property: &str) -> Option<&str> {
        self.kafka.properties.get(property).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Reads the bytes of `…location` or `…pem`; `None` if neither is set.
    fn content(&self, stem: &str) -> Option<Result<TlsPropertyValue, Finding>> {
        if let Some(pem) = self.get(&format!("{stem}.pem")) {
            let what = key(&format!("{stem}.pem"));
            return Some(Ok(TlsPropertyValue { what, place: "the text".into(), bytes: pem.as_bytes().to_vec() }));
        }
        let property = format!("{stem}.location");
        let path = Path::new(self.get(&property)?);
        Some(match finding::file::read_certificates(path) {
            Ok(bytes) => Ok(TlsPropertyValue { what: key(&property), place: path.display().to_string(), bytes }),
            Err(e) => Err(Finding::new(key(&property), Grade::Unusable, finding::unreadable(path, &e))),
        })
    }

    /// Checks the authorities of a stem such as `ssl.ca`.
    fn authorities(&self, stem: &str) -> Vec<Finding> {
        let location = format!("{stem}.location");
        let place = self.get(&location).unwrap_or("probe");
        if self.get(&format!("{stem}.pem")).is_none() && (place == "probe" || Path::new(place).is_dir()) {
            return match std::fs::read_dir(place) {
                Err(e) if place != "probe" => {
                    vec![Finding::new(key(&location), Grade::Unusable, finding::unreadable(place.as_ref(), &e))]
                }
                _ => Vec::new(),
            };
        }
        match self.content(stem) {
            None => Vec::new(),
            Some(Err(finding)) => vec![finding],
            Some(Ok(content)) => match pem::certificates(&content.bytes) {
                Err(why) => content.unusable(why),
                Ok(all) => {
                    let (grade, life) = pem::authorities_life(&all, self.now);
                    vec![Finding::new(content.what, grade, format!("{}: {life}", content.place))]
                }
            },
        }
    }

    fn revocations(&self) -> Vec<Finding> {
        match self.content("ssl.crl") {
            None => Vec::new(),
            Some(Err(finding)) => vec![finding],
            Some(Ok(content)) => match X509Crl::from_pem(&content.bytes) {
                Err(_) => content.unusable("it contains no list of revoked certificates in PEM"),
                Ok(_) => {
                    let text = format!("{}: a list of revoked certificates", content.place);
                    vec![Finding::new(content.what, Grade::Good, text)]
                }
            },
        }
    }

    /// Checks the library of an engine. The system searches for a name without a directory.
    fn engine(&self) -> Vec<Finding> {
        let path = self.get("ssl.engine.location").filter(|path| path.contains('/'));
        let refused = path.and_then(|path| Self::unopened("ssl.engine.location", path, finding::file::opens_regular));
        refused.into_iter().collect()
    }

    /// Checks the files that are read for a token of OAUTHBEARER.
    fn token(&self) -> Vec<Finding> {
        let read = |path: &Path| finding::file::read(path).map(drop);
        let files = TOKEN_FILES.iter().filter_map(|name| Self::unopened(name, self.get(name)?, read));
        // librdkafka requires this one even where no token is used.
        let authorities = self.get("https.ca.location").map(|_| self.authorities("https.ca"));
        authorities.into_iter().flatten().chain(files).collect()
    }

    fn unopened(property: &str, path: &str, open: impl Fn(&Path) -> io::Result<()>) -> Option<Finding> {
        let error = open(path.as_ref()).err()?;
        Some(Finding::new(key(property), Grade::Unusable, finding::unreadable(path.as_ref(), &error)))
    }

    /// Checks the client certificate and its key.
    fn identity(&self) -> Vec<Finding> {
        let (chain, secret) = match (self.content("ssl.certificate"), self.content("ssl.key")) {
            (None, None) => return Vec::new(),
            (Some(Err(finding)), _) | (_, Some(Err(finding))) => return vec![finding],
            (Some(Ok(chain)), None) => {
                return chain.unusable("has no key; set kafka.properties.\"ssl.key.location\"");
            }
            (None, Some(Ok(secret))) => {
                return secret.unusable("has no certificate; set kafka.properties.\"ssl.certificate.location\"");
            }
            (Some(Ok(chain)), Some(Ok(secret))) => (chain, secret),
        };
        let certificates = match pem::certificates(&chain.bytes) {
            Ok(certificates) => certificates,
            Err(why) => return chain.unusable(why),
        };
        let private = match pem::key(&secret.bytes, self.get("ssl.key.password")) {
            Ok(private) => private,
            Err(why @ NoKey::Encrypted) => {
                return secret.unusable(format_args!(
                    "{why}. Set kafka.properties.\"ssl.key.password\" (better: a file \
                     /etc/anomaly/credentials/kafka.properties.ssl.key.password), or use a key without one"
                ));
            }
            Err(why) => return secret.unusable(why),
        };
        if let Err(why) = pem::belong(&certificates, &private) {
            return secret.unusable(why);
        }
        let (grade, life) = pem::chain_life(&certificates, self.now);
        let of_chain = Finding::new(chain.what, grade, format!("{}: {life}", chain.place));
        vec![of_chain, Finding::new(secret.what, Grade::Good, format!("{}: the certificate's key", secret.place))]
    }

    /// Checks a PKCS #12 store that contains both.
    fn store(&self) -> Vec<Finding> {
        let content = match self.content("ssl.keystore") {
            None => return Vec::new(),
            Some(Err(finding)) => return vec![finding],
            Some(Ok(content)) => content,
        };
        let password = self.get("ssl.keystore.password").unwrap_or("");
        match Pkcs12::from_der(&content.bytes).and_then(|store| store.parse2(password)) {
            Err(_) => content.unusable(
                "is not a PKCS #12 key store, or kafka.properties.\"ssl.keystore.password\" does not open it",
            ),
            Ok(store) => {
                let chain = store.cert.into_iter().collect::<Vec<_>>();
                let (grade, life) = pem::chain_life(&chain, self.now);
                vec![Finding::new(content.what, grade, format!("{}: {life}", content.place))]
            }
        }
    }
}
