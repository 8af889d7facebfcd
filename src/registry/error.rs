//! Why a registry did not do what was asked. Words of a registry are shortened and escaped before they come here.

use std::time::Duration;

use crate::base::time::human_bytes;
use crate::fs::ops::FsError;
use crate::image::ImageError;

/// Whoever wants to be left alone for longer is not asked again.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(600);

/// Bytes kept of what a registry says about an error.
const TOLD_BYTES_MAX: usize = 400;

/// Why something with a registry failed.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// A name that names no image in a registry.
    #[error("`{text}` names no image in a registry: {cause}")]
    Reference {
        /// The name, shortened.
        text: String,
        /// What is wrong with it.
        cause: String,
    },
    /// Credentials that cannot be read or asked for. Never says what is in them.
    #[error("the credentials for {host} cannot be read: {cause}")]
    Credentials {
        /// For whom.
        host: String,
        /// Which file or program, and what is wrong.
        cause: String,
    },
    /// No answer.
    #[error("{host} gave no answer to {asked}: {cause}")]
    Unreachable {
        /// The host that was asked.
        host: String,
        /// What was asked, as `the manifest v1 of demo/app`.
        asked: String,
        /// What the network said.
        cause: String,
        /// Whether it may answer a moment later: a name that nobody knows and a certificate that is wrong stay so.
        may_pass: bool,
    },
    /// A certificate that is not taken. Nothing was sent to whoever has it.
    #[error("{host} is not trusted: {cause}; it was not asked for {asked}")]
    Untrusted {
        /// The host that was asked.
        host: String,
        /// What was asked.
        asked: String,
        /// What is wrong with the certificate.
        cause: String,
    },
    /// An answer that is no.
    #[error("{host} refused {asked}: {}", refusal(*.status, .told, *.retry_after))]
    Refused {
        /// The host that was asked.
        host: String,
        /// What was asked.
        asked: String,
        /// The status of HTTP.
        status: u16,
        /// The registry's own code and words.
        told: String,
        /// How long it wants to be left alone.
        retry_after: Option<Duration>,
    },
    /// Something is not there.
    #[error("{host} does not have {asked}")]
    Missing {
        /// The host that was asked.
        host: String,
        /// What was asked.
        asked: String,
    },
    /// An answer that cannot be true, or that the protocol does not know.
    #[error("{host} answered {asked} wrongly: {cause}")]
    Wrong {
        /// The host that was asked.
        host: String,
        /// What was asked.
        asked: String,
        /// What is wrong with the answer.
        cause: String,
    },
    /// An image of a registry that is not for a platform.
    #[error("{image} is not for {wanted}; it is for {found}")]
    Platform {
        /// Its name.
        image: String,
        /// What was meant.
        wanted: String,
        /// What there is.
        found: String,
    },
    /// An image with more bytes than are pulled. None of them came.
    #[error("{image} has blobs of {} in all; at most {} are pulled", human_bytes(*.bytes), human_bytes(*.bytes_max))]
    TooLarge {
        /// Its name.
        image: String,
        /// Bytes of its blobs, as the registry says.
        bytes: u64,
        /// The limit.
        bytes_max: u64,
    },
    /// What should be pushed is not whole. Nothing of it was named in the registry.
    #[error("nothing was pushed under a name: {0}")]
    Source(#[source] ImageError),
    /// A blob that should be pushed has other bytes than its digest says.
    #[error("the blob {digest} was not pushed: {cause}")]
    Blob {
        /// Its digest.
        digest: String,
        /// What is wrong with it.
        cause: String,
    },
    /// A file operation.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// The run was stopped.
    #[error("cancelled")]
    Cancelled,
}

fn refusal(status: u16, told: &str, retry_after: Option<Duration>) -> String {
    // An answer to `HEAD` has no words of its own.
    let words = match (told, status) {
        ("", 401) => "it wants to know who asks",
        ("", 403) => "whoever asks may not do this",
        ("", 429) => "too many requests",
        (told, _) => told,
    };
    let mut text = if words.is_empty() { format!("status {status}") } else { format!("status {status}, {words}") };
    if let Some(after) = retry_after.filter(|after| after.as_secs() > 0) {
        text.push_str(&format!("; it asks to come back in {} s", after.as_secs()));
    }
    text
}

impl RegistryError {
    /// Whether the same may go well a moment later.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { may_pass, .. } => *may_pass,
            Self::Refused { status, retry_after, .. } => {
                is_passing_status(*status) && retry_after.is_none_or(|after| after <= RETRY_AFTER_MAX)
            }
            _ => false,
        }
    }

    /// How long the registry wants to be left alone.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// The status of a refusal.
    pub(super) fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// Whether the disk or the store is at fault, rather than a registry or an image.
    pub fn is_of_the_machine(&self) -> bool {
        match self {
            Self::Fs(_) => true,
            Self::Source(error) => error.is_of_the_machine(),
            _ => false,
        }
    }

    /// Whether it is no fault at all: the run was stopped.
    pub fn is_cancelled(&self) -> bool {
        matches!(self, Self::Cancelled)
    }

    /// What a person does about it.
    pub fn way_out(&self) -> Option<String> {
        let log_in = |host: &str| {
            format!(
                "log in with `docker login {host}` or `podman login {host}`, or name a file with credentials in \
                 `REGISTRY_AUTH_FILE`; the account must be allowed to do this"
            )
        };
        Some(match self {
            Self::Refused { host, status: 401 | 403, .. } => log_in(host),
            Self::Refused { status: 404, .. } => {
                "see that the repository exists: some registries want it made first".into()
            }
            Self::Refused { status: 413, .. } => "a smaller layer: split it into several".into(),
            Self::Refused { status: 429, .. } => {
                "the registry counts requests: try again later, or log in for more of them".into()
            }
            Self::Refused { status: 500.., .. } => "the registry has trouble of its own: try again later".into(),
            Self::Unreachable { .. } => "see that the host is right, and that it can be reached from here".into(),
            Self::Untrusted { host, cause, .. } if cause.contains("signed by nobody") => format!(
                "if it is yours, put the certificate of the authority that signed for it into \
                 `/etc/containers/certs.d/{host}/ca.crt` or `/etc/docker/certs.d/{host}/ca.crt`, or name a file of certificates in \
                 `SSL_CERT_FILE`"
            ),
            Self::Untrusted { cause, .. } if cause.contains("CA:TRUE") => {
                "if it is yours, make its certificate anew, with `basicConstraints = CA:FALSE`".into()
            }
            Self::Untrusted { host, .. } => {
                format!("see that the host is right; if it is, whoever runs {host} has to renew its certificate")
            }
            Self::Missing { host, .. } => format!(
                "see that the name is right and pushed already; some registries say so too where one may not look: `docker login {host}`"
            ),
            Self::Wrong { .. } => {
                "nothing of it was used; if it stays so, the registry, or what stands before it, is broken".into()
            }
            Self::Platform { .. } => "name a platform that it has".into(),
            Self::TooLarge { .. } => "take it for fewer platforms, or an image that has less in it".into(),
            Self::Fs(_) => {
                "see that the disk has room and that the place can be written; what arrived serves the next attempt"
                    .into()
            }
            Self::Blob { .. } => "`drystone store verify` tells what is damaged in the store".into(),
            _ => return None,
        })
    }
}

/// Whether a status says that the same may go well a moment later.
pub(super) fn is_passing_status(status: u16) -> bool {
    matches!(status, 408 | 429 | 499 | 500 | 502..=504 | 522 | 524)
}

/// Words of others for an error: one line, shortened, without control characters.
pub(super) fn quoted(text: &str) -> String {
    let mut short: String = text.trim().chars().take(TOLD_BYTES_MAX).flat_map(char::escape_debug).collect();
    short = short.replace("\\\"", "\"").replace("\\'", "'");
    if text.trim().chars().nth(TOLD_BYTES_MAX).is_some() {
        short.push('…');
    }
    short
}

/// The registry's own code and words of an error document (distribution specification, "Error Codes"), without what `hide` takes out.
pub(super) fn told_by(body: &[u8], hide: impl Fn(&str) -> String) -> String {
    let Ok(document) = serde_json::from_slice::<serde_json::Value>(body) else {
        // Pages for people say nothing in one line.
        let text = String::from_utf8_lossy(body);
        return if text.trim_start().starts_with('<') { String::new() } else { quoted(&hide(&text)) };
    };
    let words = |value: &serde_json::Value| {
        let code = value.get("code").and_then(serde_json::Value::as_str).unwrap_or_default();
        let message = value.get("message").and_then(serde_json::Value::as_str).unwrap_or_default();
        let both = [code, message].into_iter().filter(|part| !part.is_empty());
        both.collect::<Vec<_>>().join(": ")
    };
    let errors = document.get("errors").and_then(serde_json::Value::as_array);
    let told = match errors {
        Some(errors) => errors.iter().take(4).map(words).filter(|told| !told.is_empty()).collect::<Vec<_>>().join("; "),
        None => words(&document),
    };
    quoted(&hide(&told))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_about_a_certificate_follows_from_what_is_wrong_with_it() {
        let check = |told: &str, cause: &str, way_out: &str| {
            let error =
                std::io::Error::new(std::io::ErrorKind::InvalidData, format!("invalid peer certificate: {told}"));
            let found = crate::registry::distrust(&error, "r.example:5000").expect("it is about a certificate");
            assert!(found.contains(cause), "{found}");
            let (host, asked) = ("r.example:5000".into(), "a blob".into());
            let found = RegistryError::Untrusted { host, asked, cause: found }.way_out().expect("there is one");
            assert!(found.contains(way_out), "{found}");
        };
        check("UnknownIssuer", "signed by nobody who is trusted here", "`/etc/docker/certs.d/r.example:5000/ca.crt`");
        check("Other(OtherError(CaUsedAsEndEntity))", "`CA:TRUE`", "CA:FALSE");
        check("certificate expired: verification time 2", "out of date", "renew");
        check("certificate not valid for name \"x\"", "is not for `r.example`", "see that the host is right");
        check("certificate not valid yet: now", "not valid yet", "renew");
        check("BadEncoding", "BadEncoding", "renew");
        assert!(crate::registry::distrust(&std::io::Error::other("closed"), "r.example").is_none());
    }

    #[test]
    fn what_a_registry_says_is_short_and_harmless() {
        let told_by = |body: &[u8]| told_by(body, |words| words.replace("hush", "…"));
        let check = |body: &str, expect: &str| assert_eq!(told_by(body.as_bytes()), expect, "{body}");
        check("plain hush", "plain …");
        check(r#"{"errors":[{"code":"DENIED","message":"not h\u0075sh"}]}"#, "DENIED: not …");
        check(r#"{"errors":[{"code":"DENIED","message":"not you"}]}"#, "DENIED: not you");
        check(r#"{"errors":[{"code":"A"},{"message":"b"},{"detail":1}]}"#, "A; b");
        check(r#"{"errors":[]}"#, "");
        check("<html>503</html>", "");
        check("plain\u{1b}[31m \"words\"\n", r#"plain\u{1b}[31m "words""#);
        assert!(told_by("x".repeat(1 << 20).as_bytes()).chars().count() <= TOLD_BYTES_MAX + 1);
        assert!(told_by(&[0xff; 100]).chars().count() <= TOLD_BYTES_MAX);
    }
}
