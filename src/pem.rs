//! Reads certificates and private keys in PEM, and reports what is wrong with them. Unlike OpenSSL, it never asks for a
//! passphrase on a terminal.

use std::fmt;

use openssl::asn1::{Asn1Time, Asn1TimeRef};
use openssl::error::ErrorStack;
use openssl::pkcs12::Pkcs12;
use openssl::pkey::{Id, PKey, Private};
use openssl::x509::{X509, X509Ref, X509VerifyResult};

use crate::event::Timestamp;
use crate::finding::Grade;

/// A certificate that expires within this many days causes a warning.
const SOON_DAYS: i64 = 14;
const DAY_MILLIS: i64 = 86_400_000;

/// Reads the certificates of a file, in their order; at least one.
///
/// # Errors
/// What the file contains instead, and how to convert it to PEM.
pub(crate) fn certificates(bytes: &[u8]) -> Result<Vec<X509>, String> {
    if bytes.trim_ascii().is_empty() {
        return Err("it is empty".into());
    }
    let none = "it contains no certificate in PEM";
    if let Some(what) = instead_of_pem(bytes) {
        return Err(format!("{none}{what}"));
    }
    match X509::stack_from_pem(bytes) {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) if has(bytes, b"PRIVATE KEY-----") => {
            Err(format!("{none}, but a private key: are the two files exchanged?"))
        }
        Ok(_) => Err(none.into()),
        Err(e) => Err(format!("a certificate in it is damaged: {}", reason(&e))),
    }
}

/// Why a file contains no usable private key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NoKey {
    /// The key is encrypted, and there is no passphrase.
    Encrypted,
    /// Any other reason, as a sentence.
    Wrong(String),
}

impl fmt::Display for NoKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NoKey::Encrypted => "it has a passphrase, which is not given",
            NoKey::Wrong(why) => why,
        })
    }
}

/// Reads the private key of a file.
///
/// # Errors
/// What is wrong with the key. An encrypted key without a passphrase is refused.
pub(crate) fn key(bytes: &[u8], passphrase: Option<&str>) -> Result<PKey<Private>, NoKey> {
    let wrong = |why: &str| Err(NoKey::Wrong(why.to_owned()));
    if bytes.trim_ascii().is_empty() {
        return wrong("it is empty");
    }
    if let Some(what) = instead_of_pem(bytes) {
        return wrong(&format!("it is not in PEM{what}"));
    }
    let mut is_asked = false;
    let read = PKey::private_key_from_pem_callback(bytes, |buffer| {
        is_asked = true;
        let given = passphrase.unwrap_or_default().as_bytes();
        let length = given.len().min(buffer.len());
        buffer[..length].copy_from_slice(&given[..length]);
        Ok(length)
    });
    match read {
        Ok(key) => Ok(key),
        Err(_) if is_asked && passphrase.is_none() => Err(NoKey::Encrypted),
        Err(_) if is_asked => wrong("the passphrase is wrong"),
        Err(_) if has(bytes, b"BEGIN CERTIFICATE") && !has(bytes, b"PRIVATE KEY-----") => {
            wrong("it has a certificate and no private key: are the two files exchanged?")
        }
        Err(_) if !has(bytes, b"PRIVATE KEY-----") => wrong("it has no private key"),
        Err(e) => wrong(&format!("the private key in it is damaged: {}", reason(&e))),
    }
}

/// Checks that the first certificate belongs to the key.
///
/// # Errors
/// Which parts do not belong together.
pub(crate) fn belong(chain: &[X509], key: &PKey<Private>) -> Result<(), String> {
    let is_of_key = |certificate: &X509| certificate.public_key().is_ok_and(|public| public.public_eq(key));
    let at = chain.iter().position(is_of_key);
    // A comparison of keys of two types leaves an error in OpenSSL's queue.
    drop(ErrorStack::get());
    match at {
        Some(0) => {}
        Some(at) => {
            let place = at + 1;
            return Err(format!(
                "its certificate is number {place} in the file of certificates: put it first, before those that signed it"
            ));
        }
        None => {
            let types = chain.first().and_then(|first| first.public_key().ok()).map(|public| (public.id(), key.id()));
            return Err(match types {
                Some((theirs, ours)) if theirs != ours => format!(
                    "it does not belong to the certificate, which is for a key of type {}; this one is of type {}",
                    type_name(theirs),
                    type_name(ours)
                ),
                _ => "it does not belong to the certificate".into(),
            });
        }
    }
    Ok(())
}

/// Finds a certificate of a chain that did not sign the one before it.
fn disorder(chain: &[X509]) -> Option<String> {
    let at = chain.windows(2).position(|pair| pair[1].issued(&pair[0]) != X509VerifyResult::OK)?;
    Some(format!(
        "certificate {} ({}) did not sign the one before it: after the first comes its signer, then the signer's",
        at + 2,
        subject(&chain[at + 1])
    ))
}

/// Returns how long a chain is valid: as long as its shortest certificate, since all are needed. Also checks the order.
pub(crate) fn chain_life(chain: &[X509], now: Timestamp) -> (Grade, String) {
    let worst = chain.iter().map(|certificate| life(certificate, now)).max_by_key(|(grade, _)| *grade);
    let count = match chain.len() {
        1 => "1 certificate".to_owned(),
        n => format!("{n} certificates"),
    };
    let (grade, text) = match (worst, disorder(chain)) {
        (Some((Grade::Good, _)), Some(why)) => (Grade::Doubtful, why),
        (worst, _) => worst.unwrap_or((Grade::Unusable, "no certificate".into())),
    };
    (grade, format!("{count}; {text}"))
}

/// Returns how long a set of authorities is valid. One valid authority is enough.
pub(crate) fn authorities_life(authorities: &[X509], now: Timestamp) -> (Grade, String) {
    let lives = authorities.iter().map(|certificate| life(certificate, now)).collect::<Vec<_>>();
    let dead = lives.iter().filter(|(grade, _)| *grade >= Grade::Wrong).count();
    match lives.as_slice() {
        [only] => only.clone(),
        _ if dead == lives.len() => (Grade::Wrong, format!("none of {} authorities is valid now", lives.len())),
        _ if dead > 0 => (Grade::Good, format!("{} authorities, {dead} of them not valid now", lives.len())),
        _ => (Grade::Good, format!("{} authorities", lives.len())),
    }
}

fn life(certificate: &X509Ref, now: Timestamp) -> (Grade, String) {
    let name = subject(certificate);
    let (Some(from), Some(to)) = (time(certificate.not_before()), time(certificate.not_after())) else {
        return (Grade::Wrong, format!("{name}: its dates are not understood"));
    };
    let days = (to.millis() - now.millis()) / DAY_MILLIS;
    match () {
        () if now < from => {
            (Grade::Wrong, format!("{name} is not valid before {from}; now it is {now}: is the clock right?"))
        }
        () if now > to => (Grade::Wrong, format!("{name} has expired at {to}: renew it")),
        () if days < SOON_DAYS => (Grade::Doubtful, format!("{name} expires at {to}, in {days} days: renew it")),
        () => (Grade::Good, format!("{name} is valid until {to}")),
    }
}

/// Returns when a certificate expires.
pub(crate) fn end(certificate: &X509Ref) -> Option<Timestamp> {
    time(certificate.not_after())
}

fn time(at: &Asn1TimeRef) -> Option<Timestamp> {
    let since = Asn1Time::from_unix(0).ok()?.diff(at).ok()?;
    Timestamp::from_millis((i64::from(since.days) * 86_400 + i64::from(since.secs)) * 1_000)
}

/// Returns the common name, or the whole subject.
fn subject(certificate: &X509Ref) -> String {
    let names = certificate.subject_name().entries();
    let names = names.filter_map(|entry| {
        Some(format!("{}={}", entry.object().nid().short_name().ok()?, entry.data().to_string().ok()?))
    });
    names.collect::<Vec<_>>().join(", ")
}

fn type_name(id: Id) -> String {
    match id {
        Id::RSA => "RSA".into(),
        Id::EC => "EC".into(),
        Id::ED25519 => "Ed25519".into(),
        Id::ED448 => "Ed448".into(),
        other => format!("{}", other.as_raw()),
    }
}

/// Describes bytes that are not PEM, as the end of a sentence that also says how to convert them.
fn instead_of_pem(bytes: &[u8]) -> Option<&'static str> {
    if has(bytes, b"-----BEGIN ") {
        return None;
    }
    let what = match () {
        () if X509::from_der(bytes).is_ok() => {
            ": it is a certificate in DER. Make PEM of it: openssl x509 -inform der -in OLD -out NEW"
        }
        () if PKey::private_key_from_der(bytes).is_ok() => {
            ": it is a key in DER. Make PEM of it: openssl pkey -inform der -in OLD -out NEW"
        }
        () if Pkcs12::from_der(bytes).is_ok() => {
            ": it is a PKCS #12 store. Make PEM of it: openssl pkcs12 -in OLD -out NEW -nodes"
        }
        () => "",
    };
    // The failed attempt leaves an error in OpenSSL's queue.
    drop(ErrorStack::get());
    Some(what)
}

fn has(bytes: &[u8], word: &[u8]) -> bool {
    memchr::memmem::find(bytes, word).is_some()
}

fn reason(error: &ErrorStack) -> String {
    error.errors().iter().filter_map(openssl::error::Error::reason).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use openssl::ec::{EcGroup, EcKey};
    use openssl::hash::MessageDigest;
    use openssl::nid::Nid;
    use openssl::symm::Cipher;
    use openssl::x509::X509NameBuilder;

    use super::*;

    fn secret() -> PKey<Private> {
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
        PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap()
    }

    /// A certificate of a key, signed by another, valid between two days from now.
    fn certificate(name: &str, key: &PKey<Private>, signer: (&str, &PKey<Private>), days: (i64, i64)) -> X509 {
        let names = |name: &str| {
            let mut names = X509NameBuilder::new().unwrap();
            names.append_entry_by_nid(Nid::COMMONNAME, name).unwrap();
            names.build()
        };
        let at = |days: i64| Asn1Time::from_unix((Timestamp::now().millis() / 1000) + days * 86_400).unwrap();
        let mut builder = X509::builder().unwrap();
        builder.set_version(2).unwrap();
        builder.set_subject_name(&names(name)).unwrap();
        builder.set_issuer_name(&names(signer.0)).unwrap();
        builder.set_pubkey(key).unwrap();
        builder.set_not_before(&at(days.0)).unwrap();
        builder.set_not_after(&at(days.1)).unwrap();
        builder.sign(signer.1, MessageDigest::sha256()).unwrap();
        builder.build()
    }

    #[test]
    fn a_file_that_is_not_pem_is_named_by_its_format() {
        let key = secret();
        let own = certificate("a", &key, ("a", &key), (-1, 90));
        for (bytes, why) in [
            (own.to_der().unwrap(), "a certificate in DER"),
            (key.private_key_to_der().unwrap(), "it is a key in DER"),
            (b" \n".to_vec(), "it is empty"),
            (b"hello".to_vec(), "it contains no certificate in PEM"),
            (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_vec(), "damaged"),
            (key.private_key_to_pem_pkcs8().unwrap(), "are the two files exchanged?"),
        ] {
            let message = certificates(&bytes).unwrap_err();
            assert!(message.contains(why), "{message}, not {why}");
        }
        let message = super::key(&own.to_pem().unwrap(), None).unwrap_err();
        assert!(message.to_string().contains("exchanged?"), "{message}");
    }

    #[test]
    fn an_encrypted_key_never_asks_and_takes_the_passphrase_that_is_given() {
        let encrypted = secret().private_key_to_pem_pkcs8_passphrase(Cipher::aes_256_cbc(), b"right").unwrap();
        assert_eq!(key(&encrypted, None).unwrap_err(), NoKey::Encrypted);
        assert!(key(&encrypted, Some("wrong")).unwrap_err().to_string().contains("the passphrase is wrong"));
        assert!(key(&encrypted, Some("right")).is_ok());
    }

    #[test]
    fn a_key_of_another_certificate_of_another_type_and_an_order_that_is_wrong_are_reported() {
        let (root, leaf, other) =
            (secret(), secret(), PKey::from_rsa(openssl::rsa::Rsa::generate(2048).unwrap()).unwrap());
        let of_root = certificate("root", &root, ("root", &root), (-1, 90));
        let of_leaf = certificate("leaf", &leaf, ("root", &root), (-1, 90));
        let chain = [of_leaf.clone(), of_root.clone()];
        assert_eq!(belong(&chain, &leaf), Ok(()));
        assert!(belong(&[of_root.clone(), of_leaf.clone()], &leaf).unwrap_err().contains("is number 2 in the file"));
        assert!(belong(&chain, &secret()).unwrap_err().contains("does not belong to the certificate"));
        let message = belong(&chain, &other).unwrap_err();
        assert!(message.contains("of type EC") && message.contains("of type RSA"), "{message}");
        let now = Timestamp::now();
        assert_eq!(chain_life(&chain, now).0, Grade::Good);
        let stranger = certificate("stranger", &other, ("stranger", &other), (-1, 90));
        let (grade, message) = chain_life(&[of_leaf, stranger], now);
        assert!(grade == Grade::Doubtful && message.contains("did not sign the one before it"), "{message}");
    }

    #[test]
    fn an_expired_certificate_is_wrong_and_one_that_expires_soon_is_doubtful() {
        let (key, now) = (secret(), Timestamp::now());
        let of = |days| certificate("a", &key, ("a", &key), days);
        for (days, grade, why) in [
            ((-2, 90), Grade::Good, "is valid until"),
            ((-2, 13), Grade::Doubtful, "expires at"),
            ((-2, -1), Grade::Wrong, "has expired at"),
            ((1, 90), Grade::Wrong, "is not valid before"),
        ] {
            let message = chain_life(&[of(days)], now);
            assert!(message.0 == grade && message.1.contains(why), "{message:?}");
        }
        assert_eq!(authorities_life(&[of((-2, -1)), of((-2, 90))], now).0, Grade::Good);
        assert_eq!(authorities_life(&[of((-2, -1)), of((1, 9))], now).0, Grade::Wrong);
    }
}
