//! Why a key, an envelope or a bundle was refused. Never holds a secret.

/// Why a key, an envelope or a bundle was refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AttestError {
    /// A key that cannot be used.
    #[error("the key cannot be used: {cause}")]
    Key {
        /// What is wrong with it, and the way out.
        cause: String,
    },
    /// A document is not what it should be.
    #[error("the {what} cannot be read: {cause}")]
    Malformed {
        /// Which kind of document.
        what: &'static str,
        /// What is wrong with it.
        cause: String,
    },
    /// The machine has no random numbers, which keys and signatures of P-256 need.
    #[error("this machine gives no random numbers, which keys and signatures need")]
    Random,
}
